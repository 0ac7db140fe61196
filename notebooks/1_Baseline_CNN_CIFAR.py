# %% [markdown]
# # 1. A baseline: custom CNNs on CIFAR-10
#
# **What is asked.** CIFAR-10 has 60,000 photographs of 32x32 pixels, each of one of ten things. Train a small
# convolutional network of our own on it, test it once, and then say what each of its layers costs in parameters,
# memory and arithmetic, and why.
#
# **What to expect.** A guess is right one time in ten. A network of half a million parameters gets most of the images
# right; beside it stands one made for speed, to show how much design can add. And the layers that hold the parameters
# will turn out not to be the layers that do the work.
#
# **How to run this.** From top to bottom, with nothing to set. It then uses generated images and takes about two
# minutes. To see the real data, start Jupyter with `PROFILE=cpu`: finished runs are taken from `results/`, and what is
# missing there is trained, which can take hours. Run it again and it goes on where it stopped.

# %%
from tfproject import notebook

setting = notebook.begin("task1")

# %%
import dataclasses
import json

import numpy as np

from tfproject import data, evaluation, models, training
from tfproject.report import figures
from tfproject.tasks import task1_custom_cnn as task1

# %% [markdown]
# ## The images
#
# Look at the data before anything else. A row is a class. Ask yourself what *you* would go by: shape, colour, or the
# background? A network is free to use whichever is easiest.

# %%
images = data.load(task1.SETS[setting.data])
print(images.origin.description)
for name, split in images.splits.items():
    print(f"{name}: {len(split):,} images of {split.image_shape}")
notebook.show(figures.sample_sheet(images.train.images, images.train.labels, images.class_names))

# %% [markdown]
# The three splits have three uses. Weights are fitted to `train`. Everything that a person chooses (how long, how fast,
# which network) is chosen by `val`. `test` is looked at once, at the end: a choice made by it would make its number
# too good.
#
# ## The network
#
# Three blocks of two 3x3 convolutions and a pooling. Each convolution is followed by BatchNorm and LeakyReLU. Each
# pooling halves height and width, and the next block has twice the filters. At the end a dense layer of 128 units, and
# one output per class. Read the table from top to bottom and watch the shape: the picture gets smaller and deeper.

# %%
model = models.custom_cnn(images.image_shape, len(images.class_names))
model.summary()

# %% [markdown]
# Do not take a parameter count on trust. A filter of the first convolution sees 3x3 pixels in three colours and has one
# bias, and there are 32 filters. The next one sees the 32 maps of the first.

# %%
first, second = (3 * 3 * 3 + 1) * 32, (3 * 3 * 32 + 1) * 32
counted = [model.get_layer(f"block1_conv{n}").count_params() for n in (1, 2)]
print(f"by hand: {first:,} and {second:,}; Keras: {counted[0]:,} and {counted[1]:,}")

# %% [markdown]
# ## The recipe
#
# Every number that training depends on stands in one value, the recipe. The same recipe and seed give the same weights
# again. *One-cycle* is a learning rate that rises for the first fifth of the steps and then falls to zero; *flip* and
# *shift* show each image a little differently every time.

# %%
recipe = task1.CUSTOM.to_json()
notebook.table([{"field": name, "value": value} for name, value in recipe.items()], {"field": "", "value": ""})

# %% [markdown]
# ## Train, and test once
#
# One call trains what is missing of two networks, tests them and studies their costs: `custom_cnn`, which you saw, and
# `whitened_cnn`, a strong one whose first layer is computed from the images instead of learnt. (The quick profile
# shortens both: few epochs, and few filters in the second.) Both train on training and validation images together,
# because all choices were made before; so their curves below have no validation line.

# %%
page = task1.run_task(setting.data, setting.profile, setting.directory, reuse=setting.repository)
metrics = json.loads((page.parent / "metrics.json").read_text())
notebook.say(*(task1.reading(name, found) for name, found in metrics["networks"].items()))

# %% [markdown]
# From one training, the interval is about the test images: the accuracy over endlessly many such images plausibly lies
# within it, and it says *nothing* about how another training would end. From several seeds it is about the trainings:
# the mean over endlessly many of them plausibly lies within it. The table has each run's interval over test images.

# %%
rows = []
for name, found in metrics["networks"].items():
    for run, accuracy, (low, high) in zip(found["runs"], found["test_accuracies"], found["test_intervals"]):
        rows.append({"run": run, "parameters": found["parameters"], "views": found["views"], "accuracy": accuracy,
                     "low": low, "high": high})  # fmt: skip
shown = {"run": "", "parameters": ",.0f", "views": ".0f", "accuracy": ".2%", "low": ".2%", "high": ".2%"}
notebook.table(rows, shown)

# %% [markdown]
# **Look at** the curve of the loss. Does it still fall at the end? And at the learning rate in `history.csv`: the last
# points come only as it falls to zero.

# %%
run = training.Run(page.parent / "custom_cnn-seed0")
notebook.show(figures.training_curves(run.history))

# %% [markdown]
# ## Where it is wrong
#
# One number hides a lot. In the confusion matrix a row is the true class and a column what the network said. **Look
# for** pairs that are confused in both directions: there the classes really look alike. A column that is full from top
# to bottom is a class that is said too readily.

# %%
scores = evaluation.Scores.from_json(run.metrics["test"])
print(evaluation.summary_text(scores))
notebook.show(figures.confusion_matrix(scores.confusion, images.class_names))

# %% [markdown]
# These are the test images that it was most wrong about: the true class above, what was said below, and how sure it
# was. Some are hard for you as well; with some even the label is open to doubt.

# %%
notebook.show(figures.top_losses(images.test.images, scores.top_losses))

# %% [markdown]
# ## What each layer costs
#
# Three costs, three different answers:
#
# - **parameters** are what is stored and learnt;
# - **activations** are what training must keep of every image until the backward pass, so they grow with the batch;
# - **FLOPs** are the arithmetic.
#
# A convolution uses each weight at every place of its map, a dense layer uses each weight once. **Before you look**,
# guess: which layer has the most parameters, and which one does the most work? (The first number of each shape is the
# batch; `kept_bytes` and `step_flops` are for all of it.)

# %%
columns = {"name": "", "output_shape": "", "parameters": ",.0f", "kept_bytes": ",.0f", "step_flops": ",.0f"}
notebook.table(page.parent / "cost" / "custom_cnn.csv", columns)
notebook.show(page.parent / "cost" / "custom_cnn-shares.png")

# %%
notebook.say(*metrics["costs"]["custom_cnn"]["reasons"])

# %% [markdown]
# VGG16 shows the same in the extreme: of its 138 million parameters most sit in one dense layer, while nearly all the
# arithmetic is in the convolutions. That is why later networks took the mean of the last map in place of that layer.

# %%
notebook.say(*metrics["costs"]["vgg16"]["reasons"])
notebook.show(page.parent / "cost" / "vgg16-shares.png")

# %% [markdown]
# And how does the cost grow? Some things follow from counting (twice the batch, twice the activations), and some have
# to be measured, because a machine is not used equally well at every size. Watch the *time* columns for that. Under
# each axis stands how the column grows: `^2.00` as a power of the axis, `each` by so much for one more of it, and a
# dash where three points or more do not show either.

# %%
print((page.parent / "cost" / "growth.txt").read_text())

# %% [markdown]
# ## Change something and run again
#
# A variation is a copy of the recipe with some fields changed, and each has a directory of its own: `fit` goes on with
# the run that it finds there, and refuses a directory that holds another recipe. This one is small enough to play with
# on either data: a few hundred images and three epochs. Change the learning rate *and* the name, and run the cell.

# %%
few = {name: split.take(np.arange(min(256, len(split)))) for name, split in images.splits.items()}
few = dataclasses.replace(images, splits=few)
mine = dataclasses.replace(
    task1.CUSTOM, epochs=3, batch_size=32, learning_rate=0.05, precision="float32", jit_compile=False
)
run = training.fit(models.custom_cnn, few, mine, setting.directory / "mine" / "rate-0.05", progress=False)
columns = ("loss", "accuracy", "val_loss", "val_accuracy")
history = [dict(zip(columns, row)) for row in zip(*(run.history[column] for column in columns))]
notebook.table(history, {column: ".3f" for column in columns})

# %% [markdown]
# ## Exercises
#
# 1. Train it with a learning rate of 0.5 and of 0.001. What does each failure look like in the table: too fast, and too
#    slow?
# 2. Replace `models.custom_cnn` with `functools.partial(models.custom_cnn, width=0.5)`. Half the filters: what happens
#    to the parameters, and why not half of them? Check with `run.model.count_params()`.
# 3. Work out by hand how many parameters the layer `dense` has, and how many it would have for images of 64x64. Then
#    build that network with `models.custom_cnn((64, 64, 3), 10)` and see.
# 4. For a weekend: put global average pooling in the place of `flatten` (`tfproject/models/custom.py`). Which of the
#    three costs goes down, and what happens to the accuracy?
#
# The whole report of this task, with all tables, is the file `report.html` in the folder that the last line names.

# %%
print(page)
