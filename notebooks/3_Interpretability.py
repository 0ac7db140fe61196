# %% [markdown]
# # 3. Interpretability: what have the networks learnt?
#
# **What is asked.** Open two networks: the small CNN of notebook 1, and VGG16 with weights from ImageNet. What does
# each unit respond to? What do units in deep layers stand for that those in early layers do not? Where in an image does
# a network look, and *can the picture that says so be believed*?
#
# **What to expect.** First layers of edges and colours, the same in nearly every network. Then units that are hard to
# name, and near the end units for one class. And attribution maps of which some look convincing and say little.
#
# **How to run this.** From top to bottom. Without a setting the networks are tiny and barely trained, on generated
# images; it takes two or three minutes, and shows how to look, not what there is to see. With `PROFILE=cpu` it shows
# the networks of the study, from `results/` where these are published.

# %%
from tfproject import notebook

setting = notebook.begin("task3")

# %%
import json

import keras
import numpy as np

from tfproject import data, interpret
from tfproject.report import attribution_figures, exploration_figures
from tfproject.tasks import task3_visualizations as task3

# %% [markdown]
# ## Look, stage by stage
#
# One call does everything that follows for both networks: filters, activations, top images, meanings, t-SNE,
# attribution and its checks. Each stage keeps what it found; interrupted, the call goes on with the next one.

# %%
directory = setting.published(task3.RESULTS)
if directory is None:
    task3.run_task(setting.data, setting.profile, setting.directory)
    directory = setting.directory
networks = json.loads((directory / "metrics.json").read_text())["networks"]


# %%
def show(name, what, network="CustomCNN"):
    notebook.show(*(directory / network / "figures").glob(f"{name}.png"), caption=f"{network}: {what}")


def show_by_depth(kind, what, network="CustomCNN"):
    drawn = [layer for layer in networks[network]["scores"]["units"]
             if (directory / network / "figures" / f"{kind}_{layer}.png").exists()]  # fmt: skip
    for layer in dict.fromkeys((drawn[0], drawn[len(drawn) // 2], drawn[-1])):
        show(f"{kind}_{layer}", f"{what} in {layer}", network)


def say(stage, network="CustomCNN"):
    notebook.say(*(f"{network}: {text}" for text in networks[network].get(stage, {}).get("told", ())))


# %% [markdown]
# Before asking what a network has learnt, ask how much: with a network that guesses, the rest is decoration.

# %%
rows = [{"network": name} | found["scores"] for name, found in networks.items()]
notebook.say(*(f"{name}: {found['subtitle']}" for name, found in networks.items()))
notebook.table(rows, {"network": "", "parameters": ",.0f", "images": ",.0f", "accuracy": ".2%"})

# %% [markdown]
# ## Filters
#
# A filter of the first layer reads three colours, so it can be shown as a picture. **Look for** edges in several
# directions, and for pairs of opposite colours.

# %%
show("colour_kernels", "the first layer's kernels as colours")
show("colour_kernels", "the first layer's kernels as colours", "VGG16")
say("filters")
say("filters", "VGG16")

# %% [markdown]
# Deeper filters read dozens of maps and cannot be seen so. Instead we ask the unit: start from noise, and climb the
# gradient to the image that excites it most. Such images are *not* photographs, and nothing says that the network ever
# met one; they show which pattern the weights add up to. **Look at** the first, a middle and the last layer; the last
# one's units are the classes.

# %%
show_by_depth("maximised", "what units respond to most")

# %% [markdown]
# ## Activations
#
# One image through the network: from layer to layer the maps get coarser, and fewer places are bright. A unit that says
# the same of every image is *dead*: it takes up room and does nothing. One whose outputs nearly all lie at a bound of
# its activation function is *saturated*, and one that ReLU never cuts off is *always on*, no more than a linear unit.

# %%
show("feature_maps_1", "the most active feature maps of an image, layer by layer")
show("activity", "units that say nothing, or always the same")

# %% [markdown]
# ## The images that a unit likes best
#
# The most honest picture of a unit is not a drawing but evidence: of all test images, which nine excite it most, cut to
# the part that the unit can see? **Cover the captions** first and name the unit yourself; then compare with what the
# counting says. Low in the network you will name textures, high in it things.

# %%
show_by_depth("samples", "the images that excite the most selective units most,")

# %% [markdown]
# There is no magic in it. Here it is by hand, for one unit of the last convolution and 200 images: a model that ends
# there, the greatest value of each map, and the ten images with the largest.

# %%
model = keras.models.load_model(
    task3.SAVED if setting.data == "real" else directory / "runs" / "custom_cnn-seed0" / "model.keras"
)
images = data.load(task3.SETS[setting.data])
test, names = images.test.take(range(200)), images.class_names
unit = 5
body = keras.Model(model.input, model.get_layer("block3_conv2_relu").output)
excited = body.predict(test.images.astype("float32"), verbose=0).max(axis=(1, 2))[:, unit]
best = np.argsort(-excited)[:10]
captions = [(names[test.labels[i]], f"{excited[i]:.2f}") for i in best]
sheet = exploration_figures.captioned_sheet(test.images, best, captions, columns=5)
notebook.show(sheet, alt=f"The ten images that excite unit {unit} most, with their classes")

# %% [markdown]
# ## What units stand for
#
# For each unit its 50 top images (nine are shown above) are counted: are they of one class, of one group of classes
# (animals, vehicles), of one colour? *Purity* is the share of the most frequent class among them, and *by chance* what
# it would be for images drawn at random. *Selectivity* is (m - r) / (m + r), with m a unit's mean output for the class
# that it prefers and r that for the others: 0 for no preference, 1 for one class alone. **Look at** how the rows change
# with depth: that change is what deep learning is about.

# %%
columns = {"layer": "", "units": ".0f", "class_selective_share": ".1%", "selectivity": ".2f", "purity": ".1%",
           "purity_by_chance": ".1%"}  # fmt: skip
notebook.table(directory / "CustomCNN" / "layers.csv", columns)
show("kinds", "what the units of each layer stand for")
say("semantics")

# %% [markdown]
# A unit that fires for horses is not yet a unit that is *needed* for horses. To find out, silence it and measure
# accuracy again. Often no loss can be shown on so few images. One explanation would be that other units say the same;
# that was not tested.

# %%
show("silencing", "the accuracy lost by silencing single units")
say("silencing")

# %% [markdown]
# ## Does another seed find the same units?
#
# The same network, trained from another seed, has its units in another order. So each unit is matched, one to one, with
# the one of the other network whose greatest output *correlates* most with its own over the images; from a correlation
# of 0.5 on they count as the same. *CKA* asks nothing of single units, but whether all of a layer together tell images
# apart alike. **Beware:** two networks with random weights agree too. The greatest output of a random filter tends to
# grow with an image's contrast, so that all units of such a network resemble each other, and partners are easily found.
# What training adds is only what lies above that line, and where it makes units different the share falls below it.

# %%
show("similarity", "how well each unit's partner in another seed's network agrees with it")
say("similarity")

# %% [markdown]
# ## t-SNE
#
# Each image as a point, laid out so that neighbours stay neighbours. **Beware:** distances between clusters and the
# sizes of clusters mean nothing in t-SNE. What can be believed is who is next to whom, and *trustworthiness* says how
# far. The curve asks the layers themselves, without a picture: how often is the class told right by the neighbours?

# %%
show("tsne_dense", "the images laid out by what the layer dense says of them")
show("tsne_images_dense", "the same layout with the images")
show("neighbourhoods", "how well the classes lie apart in the dense layers")

# %% [markdown]
# ## Where does it look?
#
# Each row is an image, each column a method. They do not measure the same, and the table says what each does: gradients
# and SmoothGrad how *sensitive* the class's logit is to a pixel, for or against it; the others how channels of the last
# convolution add up, in few cells that are enlarged to the image. Each map is scaled from its own least to its own
# greatest value, so brightness compares places of one map, never two maps.

# %%
rows = [{"network": name} | row for name, found in networks.items() for row in found["attribution"]["maps"]]
columns = {"network": "", "method": "", "measures": "", "layer": "", "rows": ".0f", "columns": ".0f"}
notebook.table(rows, columns)
show("attribution", "maps for the class that the network says, by each method")
show("attribution", "maps for the class that the network says, by each method", "VGG16")

# %% [markdown]
# The same for images of your choice. Change the numbers. Do the maps of an image that is classified wrongly tell why?

# %%
chosen = test.take([3, 14, 15, 92])
maps = interpret.attribute(model, chosen.images, methods=("gradients", "gradcam", "layercam"))
said = model.predict(chosen.images.astype("float32"), verbose=0).argmax(axis=1)
titles = [f"{names[label]}\nsaid: {names[guess]}" for label, guess in zip(chosen.labels, said)]
sheet = attribution_figures.attribution_sheet(chosen.images, maps, titles)
notebook.show(sheet, alt="Four images, and beside each the maps of three methods")

# %% [markdown]
# ## Can the maps be believed?
#
# Two tests, and both can fail.
#
# - **Randomise the weights**, layer by layer from the output. A map that stays the same did not depend on what was
#   learnt; it is an edge detector with a good reputation.
# - **Delete the pixels** that the map names first, and watch the class's probability: with a true map it falls early,
#   and the area under the curve is small. **Insert** them into a blurred image: with a true map it rises early, and the
#   area is large. Small and large against what? Against the same map *moved* in its image, which takes just as many
#   pixels in just such patches (*control*). But what is bright in the middle, where photographs have their subject,
#   then ends in a corner; so also against *other* images' maps, which are as bright in the middle and say nothing of
#   this image.

# %%
show("sanity_check", "how similar the maps stay while the layers are randomised")
show("deletion_insertion", "the class's probability while pixels are deleted or inserted")

# %%
numbers = ("auc", "control", "others")
columns = {"method": "", "sanity_correlation": ".2f"}
columns |= {f"{kind}_{number}": ".3f" for kind in ("deletion", "insertion") for number in numbers} | {"verdict": ""}
for name in networks:
    notebook.say(name)
    notebook.table(directory / name / "faithfulness.csv", columns)

# %% [markdown]
# ## Two networks, two educations
#
# VGG16 learnt from a million photographs of a thousand things and has only its head from us. Where do its units begin
# to stand for our classes?

# %%
show_by_depth("samples", "the images that excite the most selective units most,", "VGG16")
show("kinds", "what the units of each layer stand for", "VGG16")
say("semantics", "VGG16")
say("silencing", "VGG16")

# %%
notebook.say(*(f"{name}: {text}" for name, found in networks.items() for text in found["conclusions"]))

# %% [markdown]
# ## Exercises
#
# 1. In the cell with `unit = 5`, go through ten units. For how many can you find a name that a friend, shown only the
#    images, would find too? Try the same with `block1_conv1_relu`.
# 2. Take `.mean(axis=(1, 2))` in place of `.max(axis=(1, 2))`. Which kind of unit gets other top images, and why?
# 3. Choose an image that is classified wrongly, and ask for the map of the *true* class:
#    `interpret.attribute(model, images, classes=labels)`. Does the evidence lie elsewhere?
# 4. The same for a model of your own: `.venv/bin/tfproject interpret my_model.keras --data my_folder/`. It needs a file
#    `my_model.json` beside it: `{"class_names": [...], "image_size": [height, width]}`.

# %%
print(directory / "report.html")
