"""GPTQ as its paper has it, in the plainest way, to hold ours against: Frantar et al. 2023, "GPTQ", algorithm 1.

Columns in their own order, a min-max grid with an integer zero point for each group, found when the group begins and
from the weights as they are by then, damping of 0.01 of the mean of the diagonal. One column at a time, float64, no
blocks. What is stored is what `int_asym` stores in groups with FP16 scales, so its bytes are those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paredown.compressors import LayerSpec

from .settings import ALWAYS

if TYPE_CHECKING:
    from .bench import Bench

DAMPING = 0.01


def reference_gptq(bench: Bench, *, bits: int, group: int) -> tuple[dict[str, Tensor], int]:
    """(name of the weight -> its values, bytes of the stored model). Embeddings are rounded: inputs are one-hot."""
    moments = bench.calibration.moments
    values: dict[str, Tensor] = {}
    for layer in bench.anatomy.layers:
        weight = bench.resident.weight(layer.fqn)
        seen = None if moments is None else moments.get(layer.fqn)
        rows = weight.reshape(layer.groups, -1, layer.matrix_shape[1]).double()
        parts = []
        for i, part in enumerate(rows):
            hessian = torch.eye(part.shape[1], dtype=torch.float64) if seen is None else seen.second[i].double()
            parts.append(quantized(part, hessian, bits, min(group, part.shape[1])))
        values[f"{layer.fqn}.weight"] = torch.cat(parts).reshape(weight.shape).float()
    spec = LayerSpec(weight_bits=bits, group_size=group, **ALWAYS["int_asym gptq"])
    assignment, variants, _ = bench.compressed(spec)
    return values, bench.bytes_of(assignment, variants)


def quantized(weight: Tensor, hessian: Tensor, bits: int, group: int) -> Tensor:
    """weight (rows, n), hessian (n, n)."""
    w, h = weight.clone(), hessian.clone()
    dead = h.diagonal() == 0
    h[dead, dead] = 1.0
    w[:, dead] = 0.0
    h += torch.eye(len(h), dtype=h.dtype) * (DAMPING * h.diagonal().mean())
    factor = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    found = torch.empty_like(w)
    top = 2.0**bits - 1.0
    scale = zero = torch.empty(0)
    for j in range(w.shape[1]):
        if j % group == 0:
            part = w[:, j : j + group]
            low, high = part.amin(dim=1).clamp(max=0.0), part.amax(dim=1).clamp(min=0.0)
            scale = ((high - low) / top).clamp(min=2.0**-24).half().double()
            zero = (-low / scale).round().clamp(0.0, top)
        code = ((w[:, j] / scale).round() + zero).clamp(0.0, top)
        found[:, j] = (code - zero) * scale
        error = (w[:, j] - found[:, j]) / factor[j, j]
        w[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    return found
