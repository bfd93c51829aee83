"""Explanation of an integer export that does not give PyTorch's answers: its kernels, and PyTorch's own rounding.

On the border of two codes the last bit of a sum decides between them, and each such code moves others behind it.
PyTorch alone shows how much that comes to: the same model is run with sums in double precision.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ..space import SAFE, WIDE
from ._parity import Parity

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy
    from ...compressors.anatomy import Outputs
    from ...evaluators import OutputDistance, ReferenceOutputs, Split

_SHOWN = 2
"""Number of layers named for each kernel."""


def explain_mismatch(
    kernels: Mapping[str, str],
    anatomy: Anatomy,
    assignment: Mapping[str, LayerSpec],
    reference: str,
    *,
    saturates: bool = False,
) -> str:
    """Clauses on the integer layers' kernels and their rounding, on layers that ran in another kernel than the export
    asked for, and on PyTorch's own rounding.

    kernels    fqn -> kernel, as `kernels_by_layer` finds them
    reference  text of `describe_float64_difference`
    saturates  whether integer kernels overflow with weights of 8 bits on this machine
    """
    from ...evaluators.prediction import forms_of
    from ...evaluators.runtimes import is_integer, ran_otherwise, where_rounded

    integer = {fqn: kernel for fqn, kernel in kernels.items() if is_integer(kernel)}
    forms = {fqn: form.integer for fqn, form in forms_of(anatomy, assignment).items()}
    clauses = []
    if integer:
        clauses.append(f"ran in integers: {_counted(integer)}; {where_rounded(integer.values())}")
    if otherwise := ran_otherwise(kernels, forms):
        clauses.append("; ".join(f"{fqn} {change}" for fqn, change in list(otherwise.items())[:_SHOWN]))
    if wide := [fqn for fqn in integer if assignment[fqn].weight_bits == WIDE] if saturates else []:
        names = f"{', '.join(wide[:_SHOWN])}{', …' if len(wide) > _SHOWN else ''}"
        clauses.append(
            f"this CPU has no VNNI, and its integer kernels overflow with weights of {WIDE} bits ({names}): with "
            f"{SAFE} they do not"
        )
    return "; ".join([*clauses, reference])


def describe_float64_difference(model: nn.Module, split: Split, batch_size: int, distance: OutputDistance) -> str:
    """Clause on the difference between PyTorch's outputs and those of the same weights and quantizers with sums in
    double precision.

    model     the compressed model with its hooks; a copy of it is run in double precision
    distance  as in `Parity.of_outputs`
    """
    from ...compressors.anatomy import in_double
    from ...evaluators import ReferenceOutputs, Split, run_split

    precise = copy.deepcopy(model).double()

    def pairs() -> Iterator[tuple[Outputs, ReferenceOutputs]]:
        for start in range(0, len(split), batch_size):
            rows = split.between(start, start + batch_size)
            expected = ReferenceOutputs.compute(model, rows, batch_size)
            in_precision = run_split(precise, Split(rows.name, in_double(rows.inputs), None, rows.mask), batch_size)
            yield expected.outputs, ReferenceOutputs.of(in_precision, expected.real)

    try:
        own = Parity.of_pairs(pairs(), distance)
    except RuntimeError as error:  # a forward that makes FP32 tensors of its own
        return f"PyTorch in double precision does not run this model ({str(error).splitlines()[0]})"
    same = "" if own.same_answer is None else f", the same answer on {100 * own.same_answer:.2f} %"
    return f"PyTorch's own outputs are within {own.max_difference:.1e} of those with sums in double precision{same}"


def _counted(kernels: Mapping[str, str]) -> str:
    """Count and first layers of each kernel: `19 QLinearConv (conv1, layer1.0.conv1, …), 1 QGemm (linear)`."""
    parts = []
    for kernel, n in Counter(kernels.values()).most_common():
        names = [fqn for fqn, ran in kernels.items() if ran == kernel]
        parts.append(f"{n} {kernel} ({', '.join(names[:_SHOWN])}{', …' if n > _SHOWN else ''})")
    return ", ".join(parts)
