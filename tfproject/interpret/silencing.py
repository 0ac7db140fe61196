"""What a unit is worth: the accuracy that is lost when it is silenced, alone or with others."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy import stats

from tfproject.errors import UserError
from tfproject.interpret.attribution import default_batch_size
from tfproject.interpret.network import consumers_of
from tfproject.statistics import paired_difference, summarise


@dataclasses.dataclass(frozen=True, eq=False)
class Silencing:
    """Which images a network classifies correctly while units are silenced, one at a time.

    Attributes:
        layer: the layer's name.
        units: int, shape (m,), the units' numbers.
        labels: int, shape (n,), of the images.
        before: bool, shape (n,), whether each image is classified correctly with all units.
        after: bool, shape (m, n), the same with the unit silenced.
    """

    layer: str
    units: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def drop(self):
        """float64, shape (m,), the accuracy lost by silencing each unit, in 0..1; negative where it is gained."""
        return self.before.mean() - self.after.mean(axis=1)

    def class_drop(self, label):
        """The same of the images of one class; NaN without any."""
        own = self.labels == label
        if not own.any():
            return np.full(len(self.units), np.nan)
        return self.before[own].mean() - self.after[:, own].mean(axis=1)

    def rows(self, class_names, preferred=None):
        """Each unit's loss in numbers.

        Args:
            class_names: names of the classes, by label.
            preferred: a dict from a unit's number to the name of the class that it prefers, which may be None; None for
                no such columns.

        Returns:
            A list of dicts, one for each unit: layer, unit, images, accuracy (with all units); drop with its
            paired 95 % interval (drop_low, drop_high), p (McNemar's exact test) and p_corrected for the number of these
            units (Benjamini & Hochberg); worst_class, that loses most, and worst_class_drop; and where there are
            preferred classes preferred, class_images, class_drop, class_drop_low, class_drop_high; None for no class.
        """
        lost = _lost(self.before, self.after)
        corrected = stats.false_discovery_control(lost["p"])
        present = np.unique(self.labels)
        drops = np.stack([self.class_drop(label) for label in present])
        worst = drops.argmax(axis=0)
        rows = []
        for i, unit in enumerate(self.units):
            row = {
                "layer": self.layer, "unit": int(unit), "images": len(self.labels),
                "accuracy": float(self.before.mean()), "drop": float(self.drop[i]), "drop_low": float(lost["low"][i]),
                "drop_high": float(lost["high"][i]), "p": float(lost["p"][i]), "p_corrected": float(corrected[i]),
                "worst_class": class_names[present[worst[i]]], "worst_class_drop": float(drops[worst[i], i]),
            }  # fmt: skip
            if preferred is not None:
                row |= self._of_class(i, preferred.get(int(unit)), class_names)
            rows.append(row)
        return rows

    def _of_class(self, i, name, class_names):
        columns = ("preferred", "class_images", "class_drop", "class_drop_low", "class_drop_high")
        own = self.labels == (-1 if name is None else list(class_names).index(name))
        if not own.any():
            return dict.fromkeys(columns)
        before, after = self.before[own], self.after[i : i + 1, own]
        lost = _lost(before, after)
        values = name, int(own.sum()), *(float(lost[part][0]) for part in ("difference", "low", "high"))
        return dict(zip(columns, values))


@dataclasses.dataclass(frozen=True, eq=False)
class SilencedSet:
    """Which images are classified correctly while a set of units is silenced, or as many drawn at random.

    Attributes:
        layer: the layer's name.
        name: the set's.
        units: int, shape (m,), the units' numbers.
        labels: int, shape (n,), of the images.
        before: bool, shape (n,), whether each image is classified correctly with all units.
        after: bool, shape (n,), the same with the set silenced.
        control: bool, shape (draws, n), the same with random sets.
    """

    layer: str
    name: str
    units: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    control: np.ndarray

    def row(self, class_names):
        """The set's loss in numbers.

        Args:
            class_names: names of the classes, by label.

        Returns:
            A dict: layer, set, units (how many), images, accuracy (with all units); drop with its paired 95 %
            interval (drop_low, drop_high); control_drop, the mean of the random sets', with the lowest and highest of
            them (control_low, control_high), draws; excess, how much more the set loses than the random sets on the
            mean, with its 95 % t-interval over images (excess_low, excess_high); p, the share of the sets, this
            one counted, that lose as much. The same numbers for the images of the class that the set is named after,
            as class_drop and so on; None where it is named after none.
        """
        row = {
            "layer": self.layer, "set": self.name, "units": len(self.units), "images": len(self.labels),
            "accuracy": float(self.before.mean()), "draws": len(self.control),
        }  # fmt: skip
        own = self.labels == list(class_names).index(self.name) if self.name in class_names else None
        row |= self._numbers(np.full(len(self.labels), True))
        of_class = dict.fromkeys(row) if own is None or not own.any() else self._numbers(own)
        names = ("drop", "drop_low", "drop_high", "control_drop", "control_low", "control_high", "excess",
                 "excess_low", "excess_high", "p")  # fmt: skip
        return row | {f"class_{name}": of_class[name] for name in names}

    def _numbers(self, among):
        before, after, control = self.before[among], self.after[among], self.control[:, among]
        lost = _lost(before, after[None])
        drop, drops = before.mean() - after.mean(), before.mean() - control.mean(axis=1)
        excess = summarise(control.mean(axis=0) - after)
        return {
            "drop": float(drop), "drop_low": float(lost["low"][0]), "drop_high": float(lost["high"][0]),
            "control_drop": float(drops.mean()), "control_low": float(drops.min()), "control_high": float(drops.max()),
            "excess": excess.mean, "excess_low": excess.low, "excess_high": excess.high,
            "p": float((1 + np.count_nonzero(drops >= drop)) / (1 + len(drops))),
        }  # fmt: skip


def silence_units(network, split, units=None, *, batch_size=None):
    """Silence units one at a time and see which images are still classified correctly.

    What a unit says (its `output`, at every place of the image) is set to zero, which is its silence behind a ReLU.
    What comes before the layer is computed once for each batch, what comes behind it once for each unit, unless all
    that the unit says of the batch is zero already.

    Args:
        network: a `tfproject.interpret.Network`.
        split: a Split with images of the network's size; 500 to 1,000 of the validation images will do.
        units: a dict from a layer's name to numbers of units, or None for all of its units; None for all units of all
            layers but the one that gives the classes.
        batch_size: images a step; if None about half a million pixels a step. Memory depends on this and on a truth
            value for each unit and image.

    Returns:
        A dict from layer name to Silencing.

    Raises:
        UserError: if there is no image or no such layer or unit, the layer gives the classes, or the images or labels
            are not the network's.

    Reference:
        Morcos et al. 2018, On the importance of single directions for generalization
        (https://arxiv.org/abs/1803.06959).
    """
    if units is None:
        units = {layer.name: None for layer in network.unit_layers if layer.output is not network.logits}
    numbers = {name: _checked_units(network, name, chosen) for name, chosen in units.items()}
    _check(network, split)
    found = {}
    for name, chosen in numbers.items():
        masks = np.zeros((len(chosen), network[name].units), bool)
        masks[np.arange(len(chosen)), chosen] = True
        before, after = _correct(network, network[name], masks, split, batch_size)
        found[name] = Silencing(name, chosen, np.asarray(split.labels), before, after)
    return found


def silence_sets(network, layer_name, sets, split, *, draws=1000, seed=0):
    """Silence whole sets of a layer's units, and as a control as many units drawn at random.

    The random units are drawn from those of the layer that do not say the same of every image: a set of units that
    speak would always be worth more than one with silent ones in it.

    Args:
        network: a `tfproject.interpret.Network`.
        layer_name: the layer's name.
        sets: a dict from a set's name to numbers of units. A set named after a class is for `SilencedSet.row` one that
            should be worth most to this class.
        split: a Split with images of the network's size.
        draws: random sets for each set.
        seed: of these.

    Returns:
        A list with a SilencedSet for each set; empty ones are left out.

    Raises:
        UserError: as `silence_units`.
    """
    unit_layer = network[layer_name]
    sets = {name: np.unique(_checked_units(network, layer_name, units)) for name, units in sets.items() if len(units)}
    _check(network, split)
    if not sets:
        return []
    speaking = _speaking(network, unit_layer, split.images)
    random = np.random.default_rng(seed)
    chosen = []
    for own in sets.values():
        # With more units in the set than there are speaking ones, the silent ones have to fill up.
        urn = speaking if len(speaking) >= len(own) else np.arange(unit_layer.units)
        chosen += [own, *(random.choice(urn, len(own), replace=False) for _ in range(draws))]
    masks = np.zeros((len(chosen), unit_layer.units), bool)
    for mask, own in zip(masks, chosen):
        mask[own] = True
    before, after = _correct(network, unit_layer, masks, split)
    after = after.reshape(len(sets), draws + 1, -1)
    return [
        SilencedSet(layer_name, name, own, np.asarray(split.labels), before, correct[0], correct[1:])
        for (name, own), correct in zip(sets.items(), after)
    ]


def set_rows(found, class_names):
    """The numbers of a layer's sets, their p-values corrected for how many sets there are.

    Args:
        found: SilencedSets of one layer.
        class_names: names of the classes, by label.

    Returns:
        A list of what `SilencedSet.row` gives, with p_corrected and class_p_corrected (Benjamini and Hochberg; None
        where there is no class_p).
    """
    rows = [one.row(class_names) for one in found]
    for name in ("p", "class_p"):
        known = [row for row in rows if row[name] is not None]
        corrected = stats.false_discovery_control([row[name] for row in known]) if known else ()
        for row in rows:
            row[f"{name}_corrected"] = None
        for row, p in zip(known, corrected):
            row[f"{name}_corrected"] = float(p)
    return rows


def _lost(before, after):
    """`paired_difference` of the accuracy before, bool (n,), and each row of `after`, bool (m, n)."""
    lost, won = (before & ~after).sum(axis=1), (~before & after).sum(axis=1)
    return paired_difference(lost, won, len(before))


def _checked_units(network, name, units):
    unit_layer = network[name]
    if unit_layer.output is network.logits:
        raise UserError(f"The layer {name} gives the classes themselves; silence units of a layer before it.")
    units = np.arange(unit_layer.units) if units is None else np.asarray(units, np.int64)
    if units.ndim != 1 or len(units) and not 0 <= units.min() <= units.max() < unit_layer.units:
        raise UserError(f"{units.tolist()} are not units of {name}; give numbers from 0 to {unit_layer.units - 1}.")
    return units


def _check(network, split):
    if not len(split):
        raise UserError("There is no image to classify; give at least one.")
    network.check_images(split.images)
    labels, classes = np.asarray(split.labels), max(2, network.class_count)
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"The labels run from {labels.min()} to {labels.max()} and the network has {classes} classes; give images "
            "of the network's own classes."
        )


def _correct(network, unit_layer, masks, split, batch_size=None):
    """Whether each image is classified correctly: bool (n,) with all units, (m, n) with those of each mask silenced."""
    batch_size = min(batch_size or default_batch_size(network.image_shape), len(split))
    before = np.empty(len(split), bool)
    after = np.empty((len(masks), len(split)), bool)
    cut = _cut(network, unit_layer.output)
    head = network.function(cut, batch_size)
    tail = _tail(network, cut)
    everywhere = tuple(range(len(unit_layer.output.shape) - 1))
    labels = np.asarray(split.labels)
    for start in range(0, len(split), batch_size):
        batch = slice(start, start + batch_size)
        values = head(split.images[batch])
        says = np.any(values[0] != 0, axis=everywhere)
        values = [tf.constant(tensor) for tensor in values]
        before[batch] = tail(values, np.zeros(unit_layer.units, bool)) == labels[batch]
        for correct, mask in zip(after, masks):
            changes = says[mask].any()
            correct[batch] = tail(values, mask) == labels[batch] if changes else before[batch]
    return before, after


def _cut(network, tensor):
    """The tensors that the logits can be computed from: this one, and those that go past it.

    With skip connections a layer's output is not all that the layers behind it read.
    """
    consumers = consumers_of(network.model)
    behind, waiting = {}, [tensor]
    while waiting:
        for node in consumers[id(waiting.pop())]:
            if id(node) not in behind:
                behind[id(node)] = node
                waiting += node.outputs
    made = {id(x) for node in behind.values() for x in node.outputs}
    past = {id(x): x for node in behind.values() for x in node.input_tensors if id(x) not in made and x is not tensor}
    return [tensor, *past.values()]


def _tail(network, cut):
    """A function: the values of the cut's tensors and bool (units,) to the predicted classes, int64 (n,)."""
    part = keras.Model(cut, network.logits)

    def classes(values, mask):
        silenced = tf.where(mask, 0.0, values[0])
        logits = part([silenced, *values[1:]], training=False)
        return tf.argmax(logits, axis=1) if network.class_count > 1 else tf.cast(logits[:, 0] > 0, tf.int64)

    signature = [
        [tf.TensorSpec((None, *x.shape[1:]), tf.float32) for x in cut], tf.TensorSpec(cut[0].shape[-1:], tf.bool),
    ]  # fmt: skip
    traced = tf.function(classes, input_signature=signature, autograph=False).get_concrete_function()
    return lambda values, mask: traced(*values, tf.constant(mask)).numpy()


def _speaking(network, unit_layer, images):
    """The numbers of the units that do not say the same of every image and place."""
    places = tuple(range(1, len(unit_layer.output.shape) - 1))
    says = unit_layer.output
    extremes = [reduce(says, axis=places) if places else says for reduce in (ops.min, ops.max)]
    least, greatest = network.values(extremes, images, default_batch_size(network.image_shape))
    return np.flatnonzero(greatest.max(axis=0) > least.min(axis=0))
