"""Why an integer export does not give PyTorch's answers: which kernels ran, and how sure PyTorch itself is of them.

A value that lies on the border of two codes falls on the side that the last bit of a sum decides, and each such code
moves others behind it. How much that comes to is seen in PyTorch alone: the same model with sums in double precision.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ..space import SAFE, WIDE
from ..task import saturates_here
from ._parity import Agreement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy
    from ...evaluators import Split

_SHOWN = 2
"""Names of layers that are given for each kernel."""


def explain_mismatch(
    main: Path, runtime: str, anatomy: Anatomy, assignment: Mapping[str, LayerSpec], split: Split, doubt: str
) -> str:
    """Clauses: the kernels of the integer layers and where these round, layers that did not run as they were to, and
    `doubt` (`doubt_of`)."""
    from ...evaluators.prediction import forms_of
    from ...evaluators.runtimes import is_integer, kernels_by_layer, ran_otherwise, where_rounded

    kernels = kernels_by_layer(main, runtime, anatomy.fqns, split.take(1).inputs)
    integer = {fqn: kernel for fqn, kernel in kernels.items() if is_integer(kernel)}
    forms = {fqn: form.integer for fqn, form in forms_of(anatomy, assignment).items()}
    clauses = []
    if integer:
        clauses.append(f"ran in integers: {_counted(integer)}; {where_rounded(integer.values())}")
    if otherwise := ran_otherwise(kernels, forms):
        clauses.append("; ".join(f"{fqn} {what}" for fqn, what in list(otherwise.items())[:_SHOWN]))
    if wide := [fqn for fqn in integer if assignment[fqn].weight_bits == WIDE] if saturates_here(runtime) else []:
        names = f"{', '.join(wide[:_SHOWN])}{', …' if len(wide) > _SHOWN else ''}"
        clauses.append(
            f"this CPU has no VNNI, and its integer kernels overflow with weights of {WIDE} bits ({names}): with "
            f"{SAFE} they do not"
        )
    return "; ".join([*clauses, doubt])


def doubt_of(model: nn.Module, split: Split, batch_size: int, expected: Tensor) -> str:
    """How far PyTorch's own outputs (`expected`) are from those with the same weights and quantizers and sums in double
    precision. `model` as it is now, with its hooks; a copy is used."""
    from ...compressors.anatomy import in_double
    from ...evaluators import ReferenceOutputs, Split

    double = Split(split.name, in_double(split.inputs), split.targets)
    try:
        sure = ReferenceOutputs.compute(copy.deepcopy(model).double(), double, batch_size).outputs
    except RuntimeError as error:  # a forward that makes FP32 tensors of its own
        return f"PyTorch in double precision does not run this model ({str(error).splitlines()[0]})"
    own = Agreement.of(expected, sure)
    same = "" if own.same_answer is None else f", the same answer on {100 * own.same_answer:.2f} %"
    return f"PyTorch's own outputs are within {own.apart:.1e} of those with sums in double precision{same}"


def _counted(kernels: Mapping[str, str]) -> str:
    """`19 QLinearConv (conv1, layer1.0.conv1, …), 1 QGemm (linear)`."""
    said = []
    for kernel, n in Counter(kernels.values()).most_common():
        names = [fqn for fqn, ran in kernels.items() if ran == kernel]
        said.append(f"{n} {kernel} ({', '.join(names[:_SHOWN])}{', …' if n > _SHOWN else ''})")
    return ", ".join(said)
