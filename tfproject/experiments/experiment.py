"""An experiment is data: a question, and variations of a recipe that answer it."""

import dataclasses
import functools
import hashlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping

import numpy as np

from tfproject.errors import UserError
from tfproject.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Variation:
    """One way to train. `dataclasses.replace` makes another of it.

    Attributes:
        name: unique within its experiment.
        recipe: its seed is replaced by the experiment's seeds. Precision and compiler are to be named, as "auto" may be
            decided differently by two machines that share a study.
        network: where the function (image_shape, class_count, **options) to a keras.Model is, as "module:function".
        options: the function's further arguments by name.
        train_images: how many training images, a stratified draw by the seed; a larger draw of the same seed holds the
            smaller one. None for all.
        val_images: how many validation images, a stratified draw that is the same for every seed. None for all.
        group: variations of one group are joined by a line where a figure has lines.
    """

    name: str
    recipe: Recipe
    network: str = "tfproject.models:custom_cnn"
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    train_images: int | None = None
    val_images: int | None = None
    group: str = ""

    @property
    def has_test(self):
        """Whether what its runs recorded as "test" is of test images."""
        return True

    def changes(self, base):
        """In what this differs from another variation: a dict from a field's name to this one's value."""
        mine, other = self.settings(), base.settings()
        return {name: value for name, value in mine.items() if value != other.get(name)}

    def combined_with(self, others, name):
        """This variation with everything in which the others differ from it; of two that disagree the later counts."""
        recipe, options, rest = {}, {}, {}
        for other in others:
            recipe |= {k: v for k, v in vars(other.recipe).items() if v != getattr(self.recipe, k)}
            options |= {k: v for k, v in other.options.items() if v != self.options.get(k)}
            rest |= {k: getattr(other, k) for k in ("network", "train_images") if getattr(other, k) != getattr(self, k)}
        recipe = dataclasses.replace(self.recipe, **recipe)
        return dataclasses.replace(self, name=name, recipe=recipe, options={**self.options, **options}, **rest)

    def settings(self):
        """Everything that tells it from others but the seed: a dict from a field's or option's name to its value."""
        settings = self.recipe.to_json()
        del settings["seed"]
        return settings | self.all_options | {
            "network": self.network, "train_images": self.train_images, "val_images": self.val_images,
        }  # fmt: skip

    @functools.cached_property
    def all_options(self):
        """The network's options with its defaults for those not given."""
        build = pkgutil.resolve_name(self.network)
        known = [p for p in inspect.signature(build).parameters.values()][2:]
        unknown = set(self.options) - {p.name for p in known}
        if unknown:
            raise UserError(
                f"{self.network} has no option '{min(unknown)}'; it has: {', '.join(p.name for p in known)}."
            )
        return {p.name: self.options.get(p.name, p.default) for p in known}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question and the variations that answer it.

    Attributes:
        name: for files and tables; no spaces.
        question: one sentence.
        variations: each is trained once for every seed.
        baseline: the name of the variation that the others are compared with.
        contrasts: pairs of names, (variation, the one it is compared with), that differ in one thing only where the
            variation and the baseline differ in more.
        seeds: the same for all variations, so that the comparison is paired.
        follow_up: function from the list of (Variation, accuracies on validation, one per seed) to one more Variation,
            known only when the others are finished; or None.
        published: what others reached, by variation: their accuracy on test.
        figures: which figures show it: names from `tfproject.experiments.page.FIGURES`.
        noise_scale: the gradient noise scale of every trained network is measured with big batches of so many images, a
            multiple of 64; 0: not measured.
        remark: function from the analysis (see `tfproject.experiments.analysis`) to a paragraph, or None.
    """

    name: str
    question: str
    variations: tuple[Variation, ...]
    baseline: str
    seeds: tuple[int, ...] = (0, 1, 2)
    follow_up: Callable | None = None
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    figures: tuple[str, ...] = ("accuracy", "curves")
    noise_scale: int = 0
    remark: Callable | None = None
    contrasts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        names = [variation.name for variation in self.variations]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise UserError(f"The experiment {self.name} has two variations '{min(twice)}'; name them differently.")
        if self.baseline not in names:
            raise UserError(
                f"The baseline of the experiment {self.name} is '{self.baseline}'; it must be one of its variations: "
                f"{', '.join(names)}."
            )
        unknown = {name for pair in self.contrasts for name in pair if name not in names}
        if unknown:
            raise UserError(
                f"The experiment {self.name} contrasts '{min(unknown)}'; it must be one of its variations: "
                f"{', '.join(names)}."
            )
        if len(set(self.seeds)) < 2:
            raise UserError(f"The experiment {self.name} has the seeds {self.seeds}; a spread needs at least two.")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A variation with a seed: what one run trains."""

    variation: Variation
    seed: int

    @property
    def recipe(self):
        return dataclasses.replace(self.variation.recipe, seed=self.seed)

    def build_model(self, image_shape, class_count):
        """The network, untrained."""
        build = pkgutil.resolve_name(self.variation.network)
        return build(image_shape, class_count, **self.variation.options)

    def images(self, image_set):
        """The image set with the training and validation images of this trial; test is left as it is."""
        splits = dict(image_set.splits)
        splits["train"] = _draw(image_set.train, self.variation.train_images, self.seed)
        splits["val"] = _draw(image_set.val, self.variation.val_images, 0)
        taken = f"{len(splits['train']):,} of {len(image_set.train):,} for training (seed {self.seed})"
        taken += f" and {len(splits['val']):,} of {len(image_set.val):,} for validation"
        return dataclasses.replace(image_set, splits=splits, split_method=f"{image_set.split_method}; {taken}")

    def key(self, image_set):
        """A name for the run's directory: the same exactly for trials of the same content."""
        content = {
            "recipe": self.recipe.to_json(),
            "network": self.variation.network,
            "options": self.variation.all_options,
            "train_images": self.variation.train_images or len(image_set.train),
            "val_images": self.variation.val_images or len(image_set.val),
            "data": image_set.fingerprint,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{digest[:12]}-seed{self.seed}"

    def training_images(self, image_set):
        """How many images the whole training sees, for the progress display: a rough measure of its time."""
        return self.recipe.epochs * (self.variation.train_images or len(image_set.train))


def _draw(split, count, seed):
    """A stratified draw of so many images, in the split's order; draws of one seed are nested."""
    if count is None or count == len(split):
        return split
    if count > len(split):
        raise UserError(f"{count:,} images were asked for and there are {len(split):,}; ask for fewer.")
    shuffled = np.random.default_rng(seed).permutation(len(split))
    position = np.empty(len(split))  # of each image within its class in shuffled order, from 0 to 1
    for label in np.unique(split.labels):
        of_class = shuffled[split.labels[shuffled] == label]
        position[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    by_position = shuffled[np.argsort(position[shuffled], kind="stable")]
    return split.take(np.sort(by_position[:count]))
