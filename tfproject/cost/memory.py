"""The peak memory of a training step: predicted from the layers, and measured.

Predicted, it is that of the moment when most is alive, going through the step layer by layer, forward and backward:
the parameters, the optimiser's state, the batch, what is kept for the backward pass (`kinds`), the gradients of
activations that are alive at the same time, those of parameters so far, and what a layer needs for the moment. All
activations of the forward pass are freed as soon as nothing needs them. To activations and their gradients comes what
the allocator gives beyond what is asked for, `ROUNDING`, which was fitted to the course's CNN. BatchNorm is Keras' own.

Measured, it is the peak of TensorFlow's own allocator. On CPUs it keeps statistics where oneDNN is on (TensorFlow's
default on x86): `tf.config.experimental.get_memory_info("CPU:0")`. They are of all blocks of 4 KiB and more, as large
as given out: the allocator gives a free block that is larger than asked for, up to twice, rather than split it, so that
the same step takes some percent more or less from one time to the next. What they leave out is the process itself
(TensorFlow's code, some 500 MB) and the memory that the allocator holds in reserve, both of which the peak of the
process's resident set (VmHWM) would add and neither of which belongs to the model. The step is a plain one: no XLA,
which plans memory in its own way, and no metrics.
"""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

from tfproject.cost import optimizers
from tfproject.errors import UserError

# The allocator's blocks against what was asked for. The first step of a process, when blocks are cut to measure, nearly
# meets the prediction without it; later steps take more. Fitted to those of the course's CNN, which scatter among
# themselves (benchmarks/results/training_memory.json), so for this network the prediction is partly a calibration.
ROUNDING = 0.08
STEPPING = "optimiser's step"


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """The peak memory of a training step, in bytes.

    Attributes:
        parameters: of all parameters, trained or not.
        optimizer: of the optimiser's state.
        batch: of the model's inputs.
        kept: of activations alive at the peak.
        gradients: of the parameters' gradients alive at the peak.
        transient: of gradients of activations and what else is there for the moment of the peak.
        rounding: by how much the allocator's blocks are larger than what they hold.
        moment: when that is.
        threads: of the processor; so many parameters at a time the optimiser is taken to step.
        at_least: whether a layer of unknown type may need more.
    """

    parameters: int
    optimizer: int
    batch: int
    kept: int
    gradients: int
    transient: int
    rounding: int
    moment: str
    threads: int
    at_least: bool

    @property
    def total(self):
        """Their sum."""
        fixed = self.parameters + self.optimizer + self.batch
        return fixed + self.kept + self.gradients + self.transient + self.rounding

    @property
    def when(self):
        """The moment, with the number of threads where the prediction depends on it."""
        return f"{self.moment} with {self.threads} threads" if self.moment == STEPPING else self.moment

    def to_json(self):
        """A plain dict."""
        return dataclasses.asdict(self) | {"total": self.total}


def peak_training_memory(model, batch_size, optimizer="adam", input_shape=None):
    """Predict the peak memory of a training step.

    Args:
        model: a keras.Model.
        batch_size: images a step.
        optimizer: a name of `optimizers.NAMES` or a Keras optimiser.
        input_shape: see `study`.

    Returns:
        TrainingMemory; `.total` in bytes.
    """
    from tfproject.cost.layer_costs import study

    return study(model, batch_size, input_shape, optimizer).training_memory


def predict(trace, retention, model, optimizer):
    """The TrainingMemory of a traced model.

    Args:
        trace: a tracing.Trace in training.
        retention: its Retention.
        model: the keras.Model.
        optimizer: an optimizers.Optimizer.
    """
    trainable = [(variable_bytes(v), v) for v in model.trainable_weights]
    fixed = {
        "parameters": sum(variable_bytes(v) for v in model.weights),
        "optimizer": sum(size * optimizer.states(v) for size, v in trainable),
        "batch": sum(tensor.bytes for _, tensor in trace.inputs),
        "threads": os.cpu_count() or 1,
        "at_least": any(work is None for work in retention.works),
    }
    moments = [*_forward(trace, retention), *_backward(trace, retention)]
    # Stepping: TensorFlow takes as many variables at a time as it has threads.
    largest = sorted((size for size, _ in trainable), reverse=True)[: fixed["threads"]]
    moments.append((STEPPING, 0, sum(size for size, _ in trainable), optimizer.temporaries * sum(largest)))
    moment, kept, gradients, transient = max(moments, key=lambda m: m[1] + m[2] + m[3])
    rounding = 0 if moment == STEPPING else round(ROUNDING * (kept + transient))
    return TrainingMemory(
        **fixed, kept=kept, gradients=gradients, transient=transient, rounding=rounding, moment=moment
    )


def _forward(trace, retention):
    """(moment, activations alive, 0, scratch) for each call."""
    last_use = {}
    for number, call in enumerate(trace.calls):
        last_use.update(dict.fromkeys((x.storage for x in (*call.inputs, *call.outputs)), number))
    last_use.update(dict.fromkeys((y.storage for y in trace.outputs), len(trace.calls)))
    batch = {tensor.storage for _, tensor in trace.inputs}
    alive = {}
    for number, call in enumerate(trace.calls):
        for tensor in (*call.inputs, *call.outputs):
            if tensor.storage not in batch:
                alive[tensor.storage] = retention.sizes[tensor.storage]
        alive[number] = sum(retention.inner[number].values())
        work = retention.works[number]
        yield f"forward through {call.name}", sum(alive.values()), 0, work.scratch[0] if work else 0
        alive = {
            key: size for key, size in alive.items()
            if isinstance(key, int) or key in retention.keepers or last_use[key] > number
        }  # fmt: skip


def _backward(trace, retention):
    """(moment, activations alive, gradients of parameters, gradients of activations and scratch) for each call."""
    batch = {tensor.storage for _, tensor in trace.inputs}
    kept = {storage: retention.sizes[storage] for storage in retention.keepers if storage not in batch}
    kept |= {number: sum(inner.values()) for number, inner in enumerate(retention.inner)}
    gradients = [(tensor.bytes, {tensor.origin}) for tensor in trace.outputs]  # size, and the tensors it is for
    seen, parameters = set(), 0
    for number in reversed(range(len(trace.calls))):
        call, work, parts = trace.calls[number], retention.works[number], retention.backwards[number]
        if parts:
            for variable in getattr(call.operation, "trainable_weights", ()):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    parameters += variable_bytes(variable)
            own = {y.origin for y in call.outputs}
            before = [x for x in call.inputs if x.origin in retention.trained and x.origin not in own]
            new = [] if work.shares_gradient else [(x.bytes, {x.origin}) for x in before]
            transient = sum(size for size, _ in gradients + new) + work.scratch[1]
            yield f"backward through {call.name}", sum(kept.values()), parameters, transient
            if not own & {x.origin for x in call.inputs}:  # else a view: the gradient is its input's as well
                passed_on = {x.origin for x in before} if work.shares_gradient else set()
                gradients = [(size, (goal - own) | (passed_on if goal & own else set())) for size, goal in gradients]
                gradients = [(size, goal) for size, goal in gradients if goal] + new
        kept.pop(number, None)
        for storage in [s for s in kept if isinstance(s, str) and retention.keepers[s][0] == number]:
            del kept[storage]


def variable_bytes(variable):
    """Bytes of a Keras variable."""
    import tensorflow as tf

    return math.prod(variable.shape) * tf.as_dtype(variable.dtype).size


def measured_training_memory(model, batch_size, optimizer="adam", input_shape=None, steps=4):
    """Measure the peak memory of a training step by running a few in a new process.

    Args:
        model: a keras.Model of Keras' own layers.
        batch_size: images a step.
        optimizer: a name of `optimizers.NAMES`.
        input_shape: see `study`.
        steps: how many; the peak of all but the first, which also sets TensorFlow up, is taken.

    Returns:
        A dict: `bytes`, the peak of memory in TensorFlow's allocator with the parameters, the optimiser's state and the
        batch in it; `steps`, that of each step; `process_bytes`, by how much the process's peak resident set grew over
        its size before the first step.

    Raises:
        UserError: if the model cannot be saved and loaded, memory is short, or TensorFlow keeps no statistics here.
    """
    from tfproject.cost.tracing import input_specs

    optimizers.find(optimizer)
    shapes = [tuple(spec.shape) for spec in input_specs(model, batch_size, input_shape)]
    with tempfile.TemporaryDirectory() as folder:
        path, result = pathlib.Path(folder, "model.keras"), pathlib.Path(folder, "memory.json")
        model.save(path)
        question = {"model": str(path), "result": str(result), "shapes": shapes, "optimizer": optimizer, "steps": steps}
        environment = os.environ | {
            "TF_ENABLE_ONEDNN_OPTS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-m", "tfproject.cost.memory", json.dumps(question)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode or not result.exists():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"The training step of {model.name} at batch {batch_size} could not be measured: {reason}")
        return json.loads(result.read_text())


def training_step(model, optimizer):
    """A function from the model's inputs that does a training step, towards outputs of zero, without XLA."""
    import keras
    import tensorflow as tf

    from tfproject.cost.tracing import as_model_input

    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=False)
    def step(*batch):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(as_model_input(model, batch), training=True))
            loss = tf.add_n([tf.reduce_mean(tf.cast(output, tf.float32) ** 2) for output in outputs])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


def bytes_in_use():
    """Bytes in TensorFlow's allocator, or None where it keeps no statistics."""
    import tensorflow as tf

    x = tf.zeros(2**18)  # where there are statistics, there is something now
    in_use = tf.config.experimental.get_memory_info("CPU:0")["current"] - x.dtype.size * 2**18
    return in_use if in_use >= 0 else None


def peaks_of(function, times):
    """The peak of bytes in TensorFlow's allocator in each of several calls of a function."""
    import tensorflow as tf

    peaks = []
    for _ in range(times):
        tf.config.experimental.reset_memory_stats("CPU:0")
        function()
        peaks.append(tf.config.experimental.get_memory_info("CPU:0")["peak"])
    return peaks


def _measure(question):
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(question["model"], compile=False)
    optimizer = optimizers.make(question["optimizer"])
    inputs = [tf.cast(tf.random.uniform(s), x.dtype) for s, x in zip(question["shapes"], model.inputs, strict=True)]
    step = training_step(model, optimizer)

    if bytes_in_use() is None:
        raise SystemExit("TensorFlow keeps no memory statistics on this processor, only on x86 with oneDNN.")
    before = _resident("VmRSS")
    peaks = peaks_of(lambda: step(*inputs), question["steps"])
    result = {"bytes": max(peaks[1:] or peaks), "steps": peaks, "process_bytes": _resident("VmHWM") - before}
    pathlib.Path(question["result"]).write_text(json.dumps(result))


def _resident(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    _measure(json.loads(sys.argv[1]))
