"""Peak memory of the activations, by liveness over the graph.

What it does   walks the operations in the order in which they run, and adds up the tensors that are alive at each:
               made already, and still to be read. The largest sum is the peak
Widths         a tensor is kept in the width that its readers take: 8 bits where all of them run as INT8, 32 where any
               of them wants FP32. ReLU, pooling, addition, concatenation and the like take and give whatever their own
               readers want, as in a graph whose quantizers were fused; everything else (softmax, norms, products of
               attention) takes FP32
Views          a reshape, transposition or slice is the same memory as what it looks at
In place       an elementwise operation writes over an operand that nobody reads afterwards, as runtimes do;
               `in_place=False` counts as eager PyTorch allocates
We differ      from the planners of runtimes: no fragmentation, no alignment, no workspace (im2col, Winograd). So it is
               a floor, and a good one where buffers are few
Cost           a few microseconds a node, and no forward pass
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import InputError

FLOAT_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Buffer that one operation writes.

    elements  for one sample
    bits      of an element that is no floating-point number (indices, masks); 0: floating point, as wide as its readers
              want
    """

    name: str
    elements: int
    bits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation, in the order in which they run.

    reads, writes  places in `ActivationGraph.buffers`
    layer          fqn of the compressible layer that it belongs to
    follows        whether it takes and returns the width that its readers want
    elementwise    whether it may write over an operand of the same size
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    layer: str | None = None
    follows: bool = False
    elementwise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationGraph:
    """Graph of activations, the input of the liveness analysis.

    inputs, outputs  places in `buffers`; the inputs exist from the start, the outputs until the end
    """

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActivationGraph:
        """Inverse of `to_dict`, from JSON. Raises `InputError` for data that another version wrote."""
        try:
            return cls(
                buffers=tuple(Buffer(**buffer) for buffer in data["buffers"]),
                steps=tuple(
                    Step(**{**step, "reads": tuple(step["reads"]), "writes": tuple(step["writes"])})
                    for step in data["steps"]
                ),
                inputs=tuple(data["inputs"]),
                outputs=tuple(data["outputs"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"a stored activation graph cannot be read: {error}; trace the model again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak of memory. bytes: at the peak; step: the operation that runs then; alive: names of the buffers -> bytes."""

    bytes: int
    step: str
    alive: Mapping[str, int]


def peak_activations(
    graph: ActivationGraph,
    activation_bits: Callable[[str], int] | None = None,
    *,
    batch: int = 1,
    in_place: bool = True,
) -> Peak:
    """Largest sum of live buffers for a batch.

    activation_bits  fqn -> width of the layer's input *as it runs* (see `lowered_as`); None: FP32
    """
    widths = _widths(graph, activation_bits or (lambda fqn: FLOAT_BITS))
    sizes = [-(-buffer.elements * batch * width // 8) for buffer, width in zip(graph.buffers, widths, strict=True)]
    last = _last_reads(graph)
    alive = {index: sizes[index] for index in graph.inputs}
    best = Peak(bytes=sum(alive.values()), step="inputs", alive=_named(graph, alive))
    for number, step in enumerate(graph.steps):
        given_up = _overwritten(step, sizes, last, number) if in_place else None
        if given_up is not None:
            alive.pop(given_up, None)
        alive |= {index: sizes[index] for index in step.writes}
        total = sum(alive.values())
        if total > best.bytes:
            best = Peak(bytes=total, step=step.name, alive=_named(graph, alive))
        for index in [index for index in alive if last.get(index, -1) <= number]:
            del alive[index]
    return best


def _named(graph: ActivationGraph, alive: Mapping[int, int]) -> dict[str, int]:
    return {graph.buffers[index].name: size for index, size in alive.items()}


def _last_reads(graph: ActivationGraph) -> dict[int, int]:
    """Place of a buffer -> number of the last step that reads it; an output is read after the last step."""
    last = {index: number for number, step in enumerate(graph.steps) for index in step.reads}
    return last | dict.fromkeys(graph.outputs, len(graph.steps))


def _overwritten(step: Step, sizes: Sequence[int], last: Mapping[int, int], number: int) -> int | None:
    """Operand whose memory the result reuses."""
    if not step.elementwise or len(step.writes) != 1:
        return None
    free = [i for i in step.reads if last[i] == number and sizes[i] >= sizes[step.writes[0]] and i not in step.writes]
    return free[0] if free else None


def _widths(graph: ActivationGraph, activation_bits: Callable[[str], int]) -> list[int]:
    """Width of each buffer in bits, computed backwards: a buffer is as wide as its most demanding reader."""
    widths = [buffer.bits or 0 for buffer in graph.buffers]
    fixed = [buffer.bits > 0 for buffer in graph.buffers]
    for index in graph.outputs:
        widths[index] = widths[index] if fixed[index] else FLOAT_BITS
    for step in reversed(graph.steps):
        wanted = [widths[index] for index in step.writes if not fixed[index]]
        if step.layer is not None:
            demand = activation_bits(step.layer)
        elif step.follows:  # in place, it has no result of its own, and asks for nothing
            demand = max(wanted, default=0)
        else:
            demand = FLOAT_BITS
        for index in step.reads:
            if not fixed[index]:
                widths[index] = max(widths[index], demand)
    return [width or FLOAT_BITS for width in widths]
