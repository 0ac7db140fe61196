# %% [markdown]
# # 2. Experiments: what helps, and how we know
#
# **What is asked.** Take the network of notebook 1 and change one thing at a time: augmentation, batch size,
# BatchNorm. Then make it overfit on purpose, and cure it. For each change, say what it does *and how sure we are*.
#
# **What to expect.** Some changes cost many points, some seem to help, and most do nothing that can be shown with
# three trainings each. All are results. The last kind is the one that most reports get wrong: a single run that comes
# out a point better proves nothing.
#
# **How to run this.** From top to bottom. Without a setting it uses generated images and takes two or three minutes.
# With `PROFILE=cpu` it shows the study on CIFAR-10: finished runs are taken from `results/`, and what is not there is
# trained, which takes hours.

# %%
from tfproject import notebook

setting = notebook.begin("task2")

# %%
import dataclasses
import json

from scipy import stats

from tfproject.experiments import Experiment, Study, run_study
from tfproject.experiments.reading import read_contrasts
from tfproject.statistics import compare
from tfproject.tasks import task2_experiments as task2

# %% [markdown]
# ## An experiment is a question with variations
#
# Each experiment has one question, one baseline, and variations that differ from the baseline in as little as possible.
# All are trained from the same seeds. (The quick profile has a few variations of each; the others have all.)

# %%
experiments = task2.experiments(setting.profile)
rows = [
    {"experiment": e.name, "question": e.question, "variations": "; ".join(v.name for v in e.variations)}
    for e in experiments
]
notebook.table(rows, {"experiment": "", "question": "", "variations": ""})

# %% [markdown]
# In what exactly does a variation differ? Never believe a name; ask the code. Everything that is not in the right-hand
# column is the same.

# %%
augmentation = experiments[0]
base = next(v for v in augmentation.variations if v.name == augmentation.baseline)
rows = [{"variation": v.name, "differs in": v.changes(base)} for v in augmentation.variations]
notebook.table(rows, {"variation": "", "differs in": ""})

# %% [markdown]
# ## Run what is missing
#
# Every training is a run in a folder of its own. The call below trains those that are not finished, then writes a
# table and figures for each experiment. Interrupt it whenever you like.

# %%
task2.run_task(setting.data, setting.profile, setting.directory, reuse=setting.published(task2.RESULTS))
directory = setting.directory
results = json.loads((directory / "metrics.json").read_text())["experiments"]
print(f"{len(results)} experiments, {sum(len(found['trials']) for found in results.values())} results")

# %% [markdown]
# The tables all read alike. *val accuracy* is the mean over the seeds, with its 95 % interval; *difference* is to the
# baseline; *p corrected* is from a paired test, made stricter because several comparisons are made at once (Holm's
# method). *train accuracy* is on the training images as they are, and *gap* is that minus accuracy on validation
# images: how much was learnt by heart. *val loss* is the loss on validation, which sees what accuracy does not: an
# image that is taken for the wrong class with more and more certainty. *test accuracy* is there for the baseline and
# for what was chosen on validation alone, as test images are looked at once, at the end. A row without numbers diverged
# with one of its seeds. Where a variation differs from the baseline in two things, it is also compared with one from
# which it differs in one: that is the sentence on pairs.

# %%
COLUMNS = {
    "variation": "", "val_accuracy": ".2%", "val_accuracy_low": ".2%", "val_accuracy_high": ".2%",
    "difference": "+.2p", "p_corrected": ".2g", "train_accuracy": ".2%", "gap": ".2%", "val_loss": ".3f",
    "test_accuracy": ".2%",
}  # fmt: skip

# %%
def show(name):
    if name not in results:
        print(f"'{name}' is not finished here.")
        return
    found = results[name]
    pairs = read_contrasts(found["contrasts"]) if found["contrasts"] else None
    notebook.say(found["question"], *found["reading"], pairs, found["remark"])
    notebook.table(directory / f"{name}.csv", COLUMNS)
    notebook.show(*sorted(directory.glob(f"{name}-*.png")))


# %% [markdown]
# ## Augmentation
#
# A photograph of a horse, mirrored, is still a horse. Augmentation tells the network so by showing it. **Look at** the
# gap as well as at the accuracy: what is never seen twice alike is harder to learn by heart. With very few epochs
# augmentation can even cost accuracy, because the network does not yet get to the end of the easy lessons.

# %%
show("augmentation")

# %% [markdown]
# ## Why several seeds, and why paired
#
# The same seed gives all variations the same first weights and the same training images. As far as that luck is shared
# it cancels when we subtract seed by seed. Compare the two p-values: *unpaired* treats the runs as strangers, *paired*
# uses the subtraction. Pairing has a price: with three seeds the paired test has two degrees of freedom and the
# unpaired one four, so where seeds do little alike for both variations the paired p is the *larger* one, as the table
# may show. We pair all the same, because that was decided beforehand. Neither is a proof when the seeds are three.

# %%
accuracies = {}
for trial in results["augmentation"]["trials"]:
    accuracies.setdefault(trial["variation"], []).append(trial["val_accuracy"])
baseline = accuracies.pop(results["augmentation"]["baseline"])
rows = []
for name, values in accuracies.items():
    paired = compare(values, baseline)
    unpaired = stats.ttest_ind(values, baseline).pvalue
    rows.append({"variation": name, "difference": paired.mean, "low": paired.low, "high": paired.high,
                 "p paired": paired.p, "p unpaired": unpaired})  # fmt: skip
notebook.table(rows, {"variation": ""} | dict.fromkeys(("difference", "low", "high"), "+.2p")
               | dict.fromkeys(("p paired", "p unpaired"), ".2g"))  # fmt: skip

# %% [markdown]
# ## Batch size
#
# In one epoch a batch twice as large makes half as many steps. With the same learning rate each step is as long as
# before, so the network gets less far; scaling the rate with the batch is meant to make up for it, up to a point. That
# point has a name, the gradient noise scale: in batches much larger than it the noise is small beside the gradient
# already, and more images hardly make a better step. **Look at** the pairs of equal batch: is scaling the rate shown
# to help anywhere? Where does it begin to hurt, how high is the rate there, and how few are the steps?

# %%
show("batch-size")

# %% [markdown]
# ## BatchNorm
#
# **Look at** the pairs of equal learning rate, not at a single column. The claim worth testing is not that BatchNorm is
# better at the rate we happen to use, but that it allows rates at which the plain network fails.

# %%
show("batch-norm")

# %% [markdown]
# ## Overfit on purpose
#
# Everything that usually protects us is taken away: no augmentation, no weight decay, few images. How few until the
# network knows them by heart and little else? Larger sets are trained for as many *steps*, not epochs, so that the
# network has had as much practice in every row. **Look at** the curves: with few images the training line goes to the
# top, while the validation line stops on the way; with many, so few steps do not get that far.

# %%
show("overfit")

# %% [markdown]
# ## Cures
#
# Each cure alone against the same illness, then the best together. A cure can close the gap in two ways: by raising
# accuracy on validation, or merely by lowering accuracy on training. Only the first is of any use, so **read
# both columns**. Mind the row with more data: it has as many steps as the others and so has seen each image less often,
# and has not learnt its training images by heart yet.

# %%
show("cures")

# %% [markdown]
# ## Do the course project's runs come out again?
#
# A published number is a claim that can be tested: the same architecture, 10 epochs, five runs. Theirs were single
# runs, read off at the epoch that was best on test; ours are means over seeds, with the epoch chosen on validation.

# %%
show("reproduction")

# %% [markdown]
# ## Change something and run again
#
# An experiment of your own takes a dozen lines. This one asks whether more filters help when images are few. Change
# what the second variation changes, give the study another folder, and run the cell. Only what is missing is trained.

# %%
base = task2.experiments("quick")[0].variations[0]  # 384 images, a quarter of the filters
recipe = dataclasses.replace(base.recipe, batch_size=32, epochs=20)  # 240 steps: in a dozen nothing is learnt
base = dataclasses.replace(base, recipe=recipe)
wider = dataclasses.replace(base, name="twice the filters", options={"width": 0.5})
question = Experiment("width", "Do more filters help so few images?", (base, wider), baseline="none", seeds=(0, 1))
options = {"name": task2.SETS[setting.data]}
mine = run_study(Study(setting.directory / "mine", (question,), image_options=options), progress=False)
found = json.loads((mine.parent / "metrics.json").read_text())["experiments"]["width"]
notebook.say(*found["reading"])
notebook.table(found["rows"], COLUMNS)

# %% [markdown]
# ## Exercises
#
# 1. Two seeds were used in the last cell. Add three more (`seeds=(0, 1, 2, 3, 4)`) and run it again: how does the width
#    of the interval change, and why by more than the square root of 5/2?
# 2. Which of the differences on this page would you act on? Write down your rule *before* you look again.
# 3. Write an experiment that tests your own belief about dropout (`options={"dropout": 0.3}`). Decide beforehand what
#    result would change your mind.
# 4. TensorBoard shows the runs that were trained here: `make tensorboard`, then HParams, then *parallel coordinates*.
#    Colour the lines by accuracy on validation. Which axis sorts the colours?

# %% [markdown]
# The page with everything is `index.html` in this folder.

# %%
print(directory)
