# %% [markdown]
# # 4. Transfer learning: few photographs, borrowed knowledge
#
# **What is asked.** Tell twelve buildings of the city of Terrassa apart, and photographs that show none of them, from
# about 1,200 training photographs. That is little for a network that starts from nothing. How much does it help to
# start from what another training has learnt: from our own CNN, or from VGG16? Which layers should be frozen?
#
# **What to expect.** Borrowing from a network that has seen a million photographs is another matter than from one that
# has seen thumbnails, and weights that may still move are another matter than frozen ones: not everything borrowed
# beats starting from nothing. And how one trains the borrowed layers matters, too.
#
# **How to run this.** From top to bottom. Without a setting it uses drawings of buildings and a small stand-in for
# VGG16 with *random* weights, and takes two or three minutes: the methods are the real ones, but there is no knowledge
# to borrow. With `PROFILE=cpu` it shows the study on the photographs, from `results/` where that is published; they are
# not for download, and belong in `~/tfproject-data/terrassa` and `~/tfproject-data/paris`.

# %%
from tfproject import notebook

setting = notebook.begin("task4")

# %%
import json

from tfproject import data
from tfproject.models import backbones, freezing
from tfproject.report import figures
from tfproject.tasks import task4_reading
from tfproject.tasks import task4_transfer as task4

# %% [markdown]
# ## The photographs
#
# **Look at** the class `desconegut` (unknown), which is not a building but all the others. It is the largest, and
# has no look of its own. What share would a network get right that always said "unknown"? Keep that number in mind.

# %%
buildings = data.load(task4.SETS[setting.data][0])
print(buildings.origin.description)
for name, split in buildings.splits.items():
    print(f"{name}: {len(split)} photographs")
notebook.show(figures.sample_sheet(buildings.train.images, buildings.train.labels, buildings.class_names, per_class=6))

# %% [markdown]
# ## Train what is missing
#
# The parts of the task, and around them the experiments that explain them. Each trial is trained from several seeds.

# %%
directory = setting.published(task4.RESULTS)
if directory is None:
    task4.run_task(setting.data, setting.profile, setting.directory)
    directory = setting.directory
metrics = json.loads((directory / "metrics.json").read_text())
print(f"{len(metrics['experiments'])} experiments")

# %% [markdown]
# ## The data, once more, before any result
#
# Photographs of one building were often taken in a row. If one of such a pair is in training and the other in test, the
# network need only remember. So test results are given on all test photographs, and on those *without a duplicate or
# near duplicate in training*. Comparisons between variations, further below, are made on validation photographs, but
# for balance and learning curves, which need the test's.

# %%
photos = metrics["data"]
largest = f"Always saying the most frequent class would be right for {photos['most_frequent']:.1%}."
left_out = f"{len(photos['left_out_of_test'])} test photographs have a duplicate in training."
notebook.say(f"Split: {photos['split']}", largest, left_out, f"{len(photos['bad_images'])} files cannot be read.")
notebook.show(directory / "figures" / "photos.png")

# %% [markdown]
# ## The parts
#
# 1. **Our own CNN**: from scratch, and from its weights for CIFAR-10 with a higher learning rate.
# 2. **Its features alone**: all layers frozen; a new output layer, or a linear SVM in its place.
# 3. **VGG16**: its frozen features with an SVM as the floor; then fine-tuned, the new layers first and the last block
#    after them.
# 4. **The same with another city**: photographs of Paris, with classes of their own, in training as well.
#
# **Look at** 1 against 2. If frozen features do badly, they do not suit; if continuing from the same weights does well,
# they were a good place to *start* from. These are two different questions. And before you credit ImageNet with all of
# VGG16's lead: it is also shown larger photographs than our CNN. Look for the sentence that gives it smaller ones.

# %%
notebook.say(task4_reading.sizes(metrics), *task4_reading.reading(metrics))
notebook.show(directory / "figures" / "parts.png")

# %%
columns = {"variation": "", "train_images": ",.0f", "distinct": ".2%", "distinct_low": ".2%", "distinct_high": ".2%",
           "balanced_accuracy": ".2%", "known_accuracy": ".2%", "auroc_least_sure": ".3f"}  # fmt: skip
notebook.table(directory / "parts-test.csv", columns)
notebook.say(*task4_reading.explanation(metrics))

# %% [markdown]
# *distinct* is accuracy without duplicates, *balanced accuracy* the mean over the classes, which the large class
# `unknown` cannot lift. *known accuracy* is of photographs that show one of the twelve, and the *AUROC* says how well
# unknown photographs can be told by the network being unsure: 0.5 is a coin.
#
# ## What is frozen, exactly?
#
# `trainable = False` is easily set and easily undone. The table says what will be trained. That the frozen weights did
# not move was checked bit by bit in every run. (VGG16 is built here with random weights: the table is the same.)

# %%
vgg16 = backbones.pretrained_cnn((160, 160, 3), len(photos["class_names"]), weights=None, **task4.HEAD)
freezing.freeze_until(vgg16, "block4_pool")
print(freezing.to_text(freezing.table(vgg16)))

# %% [markdown]
# A frozen layer gives the same output for the same photograph in every epoch. So it is run *once*, and its output kept;
# only the rest is trained, epoch after epoch. That is the difference between hours and minutes on a small machine.
#
# ## Where to cut
#
# Early layers know edges, late ones know ImageNet's classes. Freeze too much, and the features do not suit; freeze too
# little, and a thousand photographs may spoil what a million have taught. Every cut starts from the same trained
# head. **Look at** which of the two dangers shows, on photographs as small as these comparisons use.

# %%
COLUMNS = {"variation": "", "val_accuracy": ".2%", "val_accuracy_low": ".2%", "val_accuracy_high": ".2%",
           "difference": "+.2p", "p_corrected": ".2g", "train_accuracy": ".2%"}  # fmt: skip


def show(name):
    found = metrics["experiments"][name]
    notebook.say(found["question"], *found["reading"], *filter(None, [found["remark"]]))
    notebook.table(directory / f"{name}.csv", COLUMNS)
    notebook.show(directory / "figures" / f"{name}-accuracy.png")


show("cuts")

# %% [markdown]
# ## How to train what is not frozen
#
# The new layers are random at first, and so are the errors that they send back. *New layers first* lets them settle
# before anything else may move; *gradual unfreezing* goes on from there, block by block; *slower near the image* lets
# all move at once, but the general layers least. *All at once* has one rate for all: small enough for what is already
# good, and so too small for what is new. **Look at** how far apart that leaves them, and at the last sentences: the
# ways that begin with the new layers differ in more than the order. What would you have to run to tell rate, epochs,
# augmentation and order apart?

# %%
show("recipes")

# %% [markdown]
# ## A class that is too large
#
# Showing the rare classes more often is the first thing that everybody tries. Each way is compared with itself without
# that, on test. **Look at** the balanced accuracy beside the plain one: what is won for the small classes may be lost
# for the large one.

# %%
show("balance")
notebook.table(directory / "balance-test.csv", columns)

# %% [markdown]
# ## How many photographs does each way need?
#
# This is the figure to take home. For each point a network was trained on so many photographs of each class; only the
# last is of the classes as they are. So it is the *balanced* accuracy that is drawn: the plain one would rise with that
# mix alone, which the test has too. Do the lines meet? Which borrowed knowledge helps at every number of photographs,
# and which at none?

# %%
notebook.say(*metrics["experiments"]["learning-curves"]["reading"])
notebook.show(directory / "figures" / "learning-curves.png")

# %% [markdown]
# ## Does it look at the building?
#
# Grad-CAM on test photographs of several classes. A second line in a title is the class that was said instead. **Look
# for** maps on the sky, on trees or on a parked car: right for the wrong reason is an error that no accuracy shows.
# But a map is coarse, a few cells a side, and each goes from its own least to its own most: how bright two of them are
# is not to be compared. (Notebook 3 says how far such maps can be believed.)

# %%
notebook.show(directory / "figures" / "gradcam.png")

# %% [markdown]
# ## Change something and run again
#
# What is trained is a list of values in `tfproject/tasks/task4_transfer.py`; each way is a few lines there, and
# `cuts` or `seeds` of a profile can be replaced. Only what is new is trained. Before you train, ask what a change does:
# freeze up to another layer, and read off how many parameters are left to learn from so few photographs.

# %%
vgg16 = backbones.pretrained_cnn((160, 160, 3), len(photos["class_names"]), weights=None, **task4.HEAD)
for cut in task4.BLOCKS:
    rows = freezing.table(freezing.freeze_until(vgg16, cut))
    trained = sum(row.parameters for row in rows if not row.frozen)
    print(f"frozen to {cut}: {trained:12,} parameters trained, {trained / len(buildings.train):10,.0f} a photograph")

# %% [markdown]
# ## Exercises
#
# 1. The plain rule says never to have more parameters than examples. Every row of the last output breaks it by far.
#    Why does fine-tuning work nevertheless? Name two things in the recipe that keep weights near where they started.
# 2. Predict the order of the parts *for five photographs a class* before you look at the learning curves again.
# 3. Put 30 photographs of three buildings near you into a folder a class and run
#    `.venv/bin/tfproject task4 --data my_folder --run-dir runs/my-buildings`. Take a fifth of them on another day, put
#    those into `test/` and the others into `train/`, each with its folder a class. What does that do to your accuracy?

# %%
print(directory / "report.html")
