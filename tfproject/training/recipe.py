"""The recipe: every number that a training depends on."""

import dataclasses
import typing

from tfproject.errors import UserError

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("constant", "one-cycle", "cosine")
KEPT_EPOCHS = ("last", "best")
TRANSFER = {"frozen_until": "", "views": 1, "layer_rates": []}  # fields of transfer learning and their defaults
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train. A value: it goes to JSON and back, and a variation is `dataclasses.replace(recipe, epochs=5)`.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all devices together.
        optimizer: "sgd" (Nesterov momentum), "adam", "adamw" or "muon" (convolutions by Muon, the rest by Adam).
        learning_rate: the schedule's highest.
        momentum: of "sgd" and "muon".
        weight_decay: decoupled, times the learning rate; not on biases nor BatchNorm, and of "muon" on convolutions
            alone.
        schedule: "constant", "one-cycle" (linear up, linear down to 0) or "cosine" (linear up, half a cosine down).
        warmup: share of the steps on which the learning rate rises ("one-cycle", "cosine").
        label_smoothing: share of each label spread evenly over the classes (Szegedy et al. 2016).
        keep_epoch: the epoch whose weights the run ends with: "last", or "best", the first with the highest accuracy
            on validation.
        early_stopping: training ends after so many epochs in a row without a higher accuracy on validation; 0: never.
        augment: names of augmentations, in order (`tfproject.data.augmentation.BY_NAME`).
        seed: of the initial weights, the order of the images, augmentation and dropout; with frozen layers all seeds
            augment alike, as their views are run once for all.
        precision: "float32", "mixed_bfloat16", "mixed_float16", or "auto": the fastest here, measured once a machine.
        jit_compile: True, False or "auto": whether XLA compiles the training step.
        frozen_until: the name of the last layer that is not trained, nor any before it; they run once for each image.
            "": the network is trained as it is built.
        views: how many fixed views of each image augmentation makes where frozen layers run once; epoch e shows view e
            modulo this number.
        layer_rates: pairs of a layer's name, in which `*` stands for anything, and what its learning rate is multiplied
            with; the first that fits counts.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    keep_epoch: str = "last"
    early_stopping: int = 0
    augment: tuple[str, ...] = ()
    seed: int = 0
    precision: str = "auto"
    jit_compile: bool | str = "auto"
    frozen_until: str = ""
    views: int = 1
    layer_rates: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        if not isinstance(self.augment, (tuple, list)) or not all(isinstance(name, str) for name in self.augment):
            raise UserError(f"The recipe's augment is {self.augment!r}; it must be a list of names.")
        object.__setattr__(self, "augment", tuple(self.augment))
        try:
            rates = tuple((str(name), float(factor)) for name, factor in self.layer_rates)
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"The recipe's layer_rates are {self.layer_rates!r}; they must be pairs of a layer's name and a factor."
            ) from None
        object.__setattr__(self, "layer_rates", rates)
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            number = {float: (int, float), int: (int,)}.get(kind)
            if number and (isinstance(value, bool) or not isinstance(value, number)):
                raise UserError(f"The recipe's {name} is {value!r}; it must be of type {kind.__name__}.")
        self._require("epochs", self.epochs >= 1, "at least 1")
        self._require("batch_size", self.batch_size >= 1, "at least 1")
        self._require("learning_rate", 0 < self.learning_rate < float("inf"), "a finite number greater than 0")
        self._require("momentum", 0 <= self.momentum < 1, "from 0 to below 1")
        self._require("weight_decay", 0 <= self.weight_decay < float("inf"), "at least 0")
        self._require("warmup", 0 <= self.warmup < 1, "from 0 to below 1")
        self._require("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1")
        self._require("early_stopping", self.early_stopping >= 0, "at least 0")
        self._require("keep_epoch", self.keep_epoch in KEPT_EPOCHS, f"one of {', '.join(KEPT_EPOCHS)}")
        self._require("seed", 0 <= self.seed < 2**31, "from 0 to 2**31 - 1")
        self._require("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        self._require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self._require("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._require("views", self.views >= 1, "at least 1")
        positive = all(0 <= factor < float("inf") for _, factor in self.layer_rates)
        self._require("layer_rates", positive, "pairs of a name and a factor of at least 0")
        self._require("frozen_until", isinstance(self.frozen_until, str), "a layer's name")
        self._require("jit_compile", self.jit_compile in (True, False, "auto"), "True, False or 'auto'")

    def _require(self, name, holds, wanted):
        if not holds:
            raise UserError(f"The recipe's {name} is {getattr(self, name)!r}; it must be {wanted}.")

    def to_json(self):
        """A dict of plain numbers, strings and lists."""
        fields = dataclasses.asdict(self)
        fields |= {"augment": list(self.augment), "layer_rates": [list(pair) for pair in self.layer_rates]}
        # Left out where nothing is frozen, so that trials of a study from before these fields keep their names.
        return {name: value for name, value in fields.items() if name not in TRANSFER or value != TRANSFER[name]}

    @classmethod
    def from_json(cls, fields):
        """The recipe that `to_json` wrote. Raises UserError for a field that does not exist or is of the wrong kind."""
        if not isinstance(fields, dict):
            raise UserError(f"A recipe is a dict of {', '.join(cls.__annotations__)}, not {str(fields)[:60]!r}.")
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"A recipe has no '{sorted(unknown)[0]}'; it has: {', '.join(cls.__annotations__)}.")
        return cls(**fields)
