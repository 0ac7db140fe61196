# %% [markdown]
# # 5. Open project: land cover from satellite images
#
# **What is asked.** A project from the first look at the data to a model that can be given away. The data: 27,000
# tiles of 64x64 pixels from the satellite Sentinel-2, each showing one of ten kinds of land (EuroSAT). The questions:
# how well can land cover be told from such a tile, what is each step towards that worth, and *where does the answer
# stop being true*?
#
# **What to expect.** A very high accuracy on the usual split, and then the reasons to be careful with it: tiles next to
# each other end up in training and test, labels are wrong here and there, and haze or another region change the
# picture.
#
# **How to run this.** From top to bottom. Without a setting it uses generated tiles and small networks, and takes about
# three minutes. With `PROFILE=cpu` it is about EuroSAT: finished runs come from `results/`, and what is not there is
# trained, which takes hours. The data must be there (`.venv/bin/tfproject data prepare eurosat`).

# %%
from tfproject import notebook

setting = notebook.begin("task5")

# %%
import dataclasses
import functools
import json

import numpy as np

from tfproject import data, models, training
from tfproject.report import exploration_figures, report_parts
from tfproject.tasks import task5_eurosat as task5
from tfproject.tasks import task5_page

# %% [markdown]
# The project has parts. Each is asked for by its name, done if it is missing, and leaves numbers, tables and figures.

# %%
def do(part):
    page = task5.run_task(
        setting.data, setting.profile, setting.directory, only=[part], reuse=setting.repository, progress=False
    )
    return json.loads((page.parent / "metrics.json").read_text())["parts"][part]


def show(found, *names):
    for name in names:
        for file, caption in [figure for figure in found["figures"] if name in figure[0]][:1]:
            notebook.say(caption)
            notebook.show(setting.directory / file)


# %% [markdown]
# ## Look first
#
# Before any network: are files broken, tiles doubled, classes rare? Then the tiles themselves. **Look at** highways and
# rivers. At ten metres a pixel both are a line two or three pixels wide.

# %%
exploration = do("exploration")
print(exploration["audit_text"])
show(exploration, "samples", "counts")

# %% [markdown]
# How far does one get with nothing but the colours of a tile, all places forgotten? A linear model on a few colour
# statistics sets the floor. A network that is not clearly above it has learnt the colour of a season.

# %%
floor = exploration["colour_floor"]
low, high = floor["accuracy_interval"]
print(f"{floor['accuracy']:.2%} of {floor['count']:,} validation tiles (95 % interval {low:.2%} to {high:.2%})")
notebook.table(floor["per_class"], {"class": "", "recall": ".1%", "precision": ".1%"})
show(exploration, "mean-images", "histograms", "spectra")

# %% [markdown]
# ## Decide by measuring
#
# How should pixels be scaled, how large should tiles be, which augmentation suits? Each decision is a small experiment
# on *validation* tiles. A tile has no "up": it may be turned and mirrored in eight ways and stays a tile; a photograph
# of a horse can only be mirrored left to right.

# %%
COLUMNS = {"variation": "", "val_accuracy": ".2%", "val_accuracy_low": ".2%", "val_accuracy_high": ".2%",
           "difference": "+.2p", "p_corrected": ".2g"}  # fmt: skip
preparation = do("preparation")
for name, found in preparation["experiments"].items():
    notebook.say(found["question"], *found["reading"])
    notebook.table(found["rows"], COLUMNS)

# %% [markdown]
# Settings such as the learning rate are searched for: a sampler proposes, a small training answers, and what is worse
# than the median is stopped early. The winner of a search is a *single lucky run* until it is trained again with other
# seeds, so the search informs and does not decide.

# %%
search = do("search")
columns = {"score": ".2%", "state": ""} | dict.fromkeys(task5.SEARCHED, ".3g")
notebook.table(search["rows"], columns)

# %% [markdown]
# ## Improve in steps
#
# From a plain CNN to the final one, a step at a time, each with all that came before it. **Look at** the intervals of
# the gains: which steps would you keep if each cost you an hour a day?

# %%
steps = do("steps")
notebook.table(steps["gains"], {"step": "", "accuracy": ".2%", "gain": "+.2p", "gain_low": "+.2p", "gain_high": "+.2p"})

# %% [markdown]
# ## The final network, on the split that everybody uses
#
# Trained from each seed of the profile, tested once. How many views of a tile are averaged was decided on validation.
# How many of the test tiles are right is told in the next section, beside the same of the other split.

# %%
final = do("random")
run = training.Run(setting.directory / "runs" / final["runs"][0])
run.model.summary()

# %%
show(final, "curves", "confusion-rates", "per-class", "top-losses")

# %% [markdown]
# ## The same, on a region that it has never seen
#
# In the random split a test tile has its neighbours in training: the same field, the same day, the same haze. The
# spatial split holds back whole regions. The difference between the two numbers is the most important one on this
# page, because it says what to expect when the model is *used*. (Generated tiles have no places: in the quick profile
# this is just another random split.)

# %%
spatial = do("spatial")
notebook.say(*task5_page.reading({"random": final, "spatial": spatial}))
show(spatial, "confusion-rates")

# %% [markdown]
# ## Is a large pretrained network better?
#
# VGG16 with its last two blocks fine-tuned, on the same tiles and splits. Its new layers are trained first, then both
# together: *epochs* has the two stages. The first sentences below are not to be held against each other: they tell how
# many seeds and views stand behind each number. The ones that follow compare one run and one view of each, tile by
# tile. Mind the parameters and the minutes beside the accuracy: those of VGG16 are without the passes through its
# frozen layers, whose outcome is kept.

# %%
vgg16, analysis = do("vgg16"), do("analysis")
parts = {"random": final, "spatial": spatial, "vgg16": vgg16, "analysis": analysis}
notebook.say(*task5_page.reading(parts), *task5_page.vgg16_words(parts))
rows = [
    {"network": name, "parameters": found["parameters"], "epochs": report_parts.epochs_of_stages(found),
     "minutes": max(found["seconds"]) / 60}
    for name, found in (("ours", final), ("VGG16", vgg16["random"]))
]  # fmt: skip
notebook.table(rows, {"network": "", "parameters": ",.0f", "epochs": "", "minutes": ",.0f"})

# %% [markdown]
# ## Where it stops being true
#
# - **Another region:** which classes lose most from the random to the spatial split?
# - **Calibration:** when it says 90 %, is it right nine times in ten? And may it abstain when it is unsure?
# - **Confusions:** which classes, and by what in the tile could they be told apart?
# - **Labels:** the tiles it is surest about and "wrong" on. Judge for yourself who is wrong.
# - **Bias:** is it worse for dark tiles, for rare classes?
# - **Robustness:** how much haze, blur or rotation does it bear?

# %%
show(analysis, "random-to-spatial", "reliability", "coverage")

# %%
show(analysis, "hardest", "pairs", "pair1", "distinguishing", "attribution-errors")

# %%
show(analysis, "label-noise", "groups")

# %%
show(analysis, "robustness", "corruptions")

# %% [markdown]
# ## Use it
#
# A saved model takes RGB values 0..255 and gives probabilities; all that it needs is inside. Here are ten test tiles
# that it has not seen in training. Change the seed for others.

# %%
tiles = data.load(task5.SETS[setting.data], split_files="eurosat-random" if setting.data == "real" else None)
chosen = tiles.test.take(np.random.default_rng(seed=1).permutation(len(tiles.test))[:10])
probabilities = run.model.predict(chosen.images.astype("float32"), verbose=0)
captions = [
    (tiles.class_names[true], f"said {tiles.class_names[own.argmax()]}\n{own.max():.0%}")
    for true, own in zip(chosen.labels, probabilities)
]
notebook.show(exploration_figures.captioned_sheet(chosen.images, range(10), captions, columns=5))

# %% [markdown]
# ## Change something and run again
#
# Every number of the recipe is a field that can be replaced. A short training on a thousand tiles shows the
# direction, though not the height. Change it, give it a folder of its own, run the cell.

# %%
def drawn(split, count):  # not the first ones, as tiles are sorted by class
    return split.take(np.random.default_rng(seed=0).permutation(len(split))[:count])


few = dataclasses.replace(tiles, splits={"train": drawn(tiles.train, 1_000), "val": drawn(tiles.val, 500)})
mine = dataclasses.replace(
    task5.LAND_COVER, epochs=3, batch_size=32, augment=("symmetries",), precision="float32", jit_compile=False
)
small = functools.partial(models.land_cover_cnn, widths=(16, 16, 32, 32))
run = training.fit(small, few, mine, setting.directory / "mine" / "symmetries", progress=False)
print(f"validation: {run.history['val_accuracy'][-1]:.1%} after {mine.epochs} epochs on {len(few.train)} tiles")

# %% [markdown]
# ## Exercises
#
# 1. Cut a square out of an aerial photograph of where you live, scale it so that a pixel is ten metres, and run
#    `.venv/bin/tfproject predict saved_models/eurosat_best.keras my_tiles/`. Is it right? Is it *sure* when it is
#    wrong?
# 2. At which confidence should the model abstain if a wrong answer costs ten times as much as none? Use the curve of
#    risk against coverage.
# 3. Write the paragraph "limits" of the model card before you read `saved_models/eurosat_best.md`, and compare.

# %%
print(setting.directory / "report.html")
