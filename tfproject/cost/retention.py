"""Which tensors of the forward pass stay in memory until the backward pass has used them."""

import collections
import dataclasses

from tfproject.cost import kinds


@dataclasses.dataclass(frozen=True, eq=False)
class Retention:
    """What training keeps of a forward pass.

    Attributes:
        works: of each call its kinds.Work, or None.
        backwards: of each call the parts (kinds.Backward) of its backward pass that there are.
        sizes: bytes of each storage that a call or the model's input makes.
        makers: of each storage the number of the call that makes it, or -1 for an input of the model or a tensor that
            is made between the layers.
        keepers: of each kept storage the numbers of the calls that keep it, in order.
        inner: of each call the bytes of what it keeps inside, by name.
        needs: of each call the bytes of all that its backward pass reads, made by whichever call.
        trained: the origins of tensors that depend on something trained, so that there are gradients for them.
    """

    works: tuple
    backwards: tuple
    sizes: dict[str, int]
    makers: dict[str, int]
    keepers: dict[str, list[int]]
    inner: tuple
    needs: tuple
    trained: frozenset[str]


def retention(trace):
    """Follow the tensors of a tracing.Trace from the inputs on and find what the gradients need."""
    works = tuple(kinds.work(call) for call in trace.calls)
    sizes = {tensor.storage: tensor.bytes for _, tensor in trace.inputs}
    makers = dict.fromkeys(sizes, -1)
    keepers = collections.defaultdict(list)
    trained, backwards, inner, needs = set(), [], [], []
    for number, (call, work) in enumerate(zip(trace.calls, works, strict=True)):
        for tensor in call.inputs:
            if tensor.storage not in sizes:  # cast on the way to the layer, or made by an unknown one
                sizes[tensor.storage], makers[tensor.storage] = tensor.bytes, -1
                if tensor.origin not in sizes and trained:
                    trained.add(tensor.origin)
        for tensor in call.outputs:
            if tensor.storage not in sizes:
                sizes[tensor.storage], makers[tensor.storage] = tensor.bytes, number
        before = any(tensor.origin in trained for tensor in call.inputs)
        own = bool(getattr(call.operation, "trainable_weights", ()))
        if before or own:
            trained.update(tensor.origin for tensor in call.outputs)
        parts = ()
        if work is not None and (before or own):
            parts = (work.activation, *((work.to_inputs,) if before else ()), *((work.to_weights,) if own else ()))
        backwards.append(parts)
        reads = {tensor for part in parts for tensor in part.reads}
        read = {x.storage for x in (call.inputs if "input" in reads else ())}
        read |= {y.storage for y in (call.outputs if "output" in reads else ())}
        for storage in read:
            keepers[storage].append(number)
        inner.append({name: size for part in parts for name, size in part.inner.items()})
        needs.append(sum(sizes[storage] for storage in read) + sum(inner[-1].values()))
    return Retention(
        works, tuple(backwards), sizes, makers, dict(keepers), tuple(inner), tuple(needs), frozenset(trained)
    )  # fmt: skip
