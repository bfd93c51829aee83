"""Scales, zero points and tables of a grid: those of least squared error, or of least weighted squared error.

What it does   for each group a grid search over clipping ranges, then least squares and nearest codes in turn
Paper          Nagel et al. 2021, "A White Paper on Neural Network Quantization", 3.1; Lloyd 1982 for the polishing
We differ      the same for every table, and with a weight for each entry where the inputs say that some matter more;
               with an integer zero point scale and zero are fitted together (a straight line through code and weight)
Cost           50 to 100 passes over the weight, in blocks that fit the cache
Did not help   a finer grid: the polishing finds the rest
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._affine import affine
from ._grid import Grid, Params, to_groups
from ._palette import kmeans
from ._tables import fixed_table

_CLIPS = 48
_POLISH = 6
_BLOCK = 2**18
_SMALLEST = 1e-30
_ROUNDS = 3

RangeRule = Callable[[Tensor], Tensor]
"""Type of a range rule: (N, L) rows of |w| in [0, 1] -> (N,) clipping points in (0, 1]."""


def fit(grid: Grid, matrix: Tensor, weight: Tensor | None = None, *, bits: int | None = None) -> Params:
    """Fit parameters of least squared error to `matrix` (R, C) float32.

    `weight` (R, C) >= 0 gives the weight of each entry in the error (None: all equal).
    """
    shape = (matrix.shape[0], matrix.shape[1])
    rows = to_groups(matrix, grid)
    if weight is None or _is_constant(weight):
        # an integer zero point is fitted by a straight line, in which the zeros behind a short group must not count
        weight = torch.ones(shape) if grid.format == "int_asym" and rows.numel() != matrix.numel() else None
    weights = None if weight is None else to_groups(weight.expand(shape).contiguous(), grid)
    if grid.format == "palette":
        return _fit_palette(grid, rows, weights, shape)
    if grid.format == "int_asym":
        scale, zero = _in_blocks(rows, weights, lambda x, w: _fit_asymmetric(grid, x, w))
        zero = zero.reshape(grid.scale_shape(shape))
        return Params(scale=scale.reshape(grid.scale_shape(shape)), zero=zero)
    if grid.format == "int" and weights is None:
        scale = affine(rows, grid.bits)[1]
    else:
        (scale,) = _in_blocks(rows, weights, lambda x, w: (_fit_symmetric(grid, x, w),))
    return Params(scale=grid.stored_scale(scale.reshape(grid.scale_shape(shape))))


def fit_range(grid: Grid, matrix: Tensor, rule: RangeRule) -> Params:
    """Fit parameters by a rule for the range. The rule is called for each group, and for each side with an integer zero
    point.
    """
    shape = (matrix.shape[0], matrix.shape[1])
    rows = to_groups(matrix, grid)
    unit = _unit(rows)
    scaled = rows / unit[:, None]
    if grid.format != "int_asym":
        top = float(_top(grid))
        scale = torch.where(_is_zero(rows), torch.ones_like(unit), rule(scaled.abs()) * unit / top)
        return Params(scale=grid.stored_scale(scale.reshape(grid.scale_shape(shape))))
    low, high = -rule(scaled.neg().clamp_(min=0.0)), rule(scaled.clamp(min=0.0))
    low, high = torch.where(scaled.amin(dim=1) < 0, low, 0.0), torch.where(scaled.amax(dim=1) > 0, high, 0.0)
    step, zero = _line(low, high, grid)
    scale = torch.where(_is_zero(rows), torch.ones_like(unit), step * unit)
    target = grid.scale_shape(shape)
    return Params(scale=grid.stored_scale(scale.reshape(target)), zero=zero.reshape(target))


def _fit_symmetric(grid: Grid, x: Tensor, weight: Tensor | None) -> Tensor:
    unit, is_zero = _unit(x), _is_zero(x)
    scaled = x / unit[:, None]
    levels, top = _levels(grid), _top(grid)
    best = torch.full_like(unit, 1.0 / top)
    least = torch.full_like(best, torch.inf)
    for clip in torch.linspace(0.1, 1.0, _CLIPS).tolist():
        step = torch.full_like(best, clip / top)
        error = _error(levels(scaled / step[:, None]).mul_(step[:, None]), scaled, weight)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    for _ in range(_POLISH):
        level = levels(scaled / best[:, None])
        counted = level if weight is None else level * weight
        energy = (counted * level).sum(dim=1)
        fitted = (counted * scaled).sum(dim=1) / energy.clamp(min=1e-20)
        best = torch.where((fitted > 0) & (energy > 0), fitted, best)
    return torch.where(is_zero, torch.ones_like(unit), best * unit)


def _fit_asymmetric(grid: Grid, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    unit, is_zero = _unit(x), _is_zero(x)
    scaled = x / unit[:, None]
    low, high = scaled.amin(dim=1).clamp(max=0.0), scaled.amax(dim=1).clamp(min=0.0)
    best, zero = _line(low, high, grid)
    least = _error_of(scaled, best, zero, grid, weight)
    for clip in torch.linspace(0.3, 1.0, _CLIPS // 2).tolist():
        for low_clip, high_clip in ((clip, clip), (clip, 1.0), (1.0, clip)):
            best, zero, least = _better(
                scaled, grid, weight, best, zero, least, *_line(low * low_clip, high * high_clip, grid)
            )
    n_steps = 2.0**grid.bits - 1.0
    for _ in range(_POLISH):
        q = _asymmetric_levels(scaled / best[:, None], zero[:, None], grid) + zero[:, None]
        step, offset = _regressed(q, scaled, weight)
        usable = torch.isfinite(step) & (step > 0)
        step = torch.where(usable, step, best)
        moved = torch.where(usable, (-offset / step).round().clamp(0.0, n_steps), zero)
        best, zero, least = _better(scaled, grid, weight, best, zero, least, step, moved)
        q = _asymmetric_levels(scaled / best[:, None], zero[:, None], grid)
        counted = q if weight is None else q * weight
        step = (counted * scaled).sum(dim=1) / (counted * q).sum(dim=1).clamp(min=1e-20)
        best, zero, least = _better(scaled, grid, weight, best, zero, least, torch.where(step > 0, step, best), zero)
    scale = torch.where(is_zero, torch.ones_like(unit), best * unit)
    return grid.stored_scale(scale), zero


def _better(
    scaled: Tensor, grid: Grid, weight: Tensor | None, best: Tensor, zero: Tensor, least: Tensor, step: Tensor,
    moved: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    error = _error_of(scaled, step, moved, grid, weight)
    wins = error < least
    return torch.where(wins, step, best), torch.where(wins, moved, zero), torch.where(wins, error, least)


def _error_of(scaled: Tensor, step: Tensor, zero: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
    q = _asymmetric_levels(scaled / step[:, None], zero[:, None], grid)
    return _error(q.mul_(step[:, None]), scaled, weight)


def _asymmetric_levels(scaled: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    return torch.minimum(torch.maximum(scaled.round(), -zero), 2.0**grid.bits - 1.0 - zero)


def _line(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(step, zero point) of ranges low <= 0 <= high."""
    n_steps = 2.0**grid.bits - 1.0
    step = ((high - low) / n_steps).clamp(min=1e-20)
    return step, (-low / step).round().clamp(0.0, n_steps)


def _regressed(q: Tensor, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """(slope, offset) of the straight line x ~ slope * q + offset in each row."""
    total = float(q.shape[1]) if weight is None else weight.sum(dim=1).clamp(min=1e-20)
    w = torch.ones_like(q) if weight is None else weight
    mean_q, mean_x = (w * q).sum(dim=1) / total, (w * x).sum(dim=1) / total
    centred = q - mean_q[:, None]
    slope = (w * centred * x).sum(dim=1) / (w * centred.square()).sum(dim=1)
    return slope, mean_x - slope * mean_q


def _fit_palette(grid: Grid, rows: Tensor, weights: Tensor | None, shape: tuple[int, int]) -> Params:
    """One table for the matrix, and a scale for each group, in turn."""
    unit, is_zero = _unit(rows), _is_zero(rows)
    scale = torch.ones_like(unit) if grid.per_tensor else unit
    has_zeros = bool((rows == 0).any())
    table = None
    for _ in range(1 if grid.per_tensor else _ROUNDS):
        scaled = rows / scale[:, None]
        # a weight counts by the square of what it is multiplied with (huge and tiny rows: as shares of the largest)
        counts = (scale / scale.max()).square()[:, None].expand_as(rows)
        counts = counts if weights is None else counts * weights
        table = kmeans(scaled.reshape(-1), counts.reshape(-1), 2**grid.bits, start=table, with_zero=has_zeros)
        table = table.to(grid.dtype).float()
        if grid.per_tensor:
            break
        level = table[torch.bucketize(scaled.contiguous(), (table[1:] + table[:-1]) / 2)]
        counted = level if weights is None else level * weights
        energy = (counted * level).sum(dim=1)
        fitted = (counted * scaled).sum(dim=1) / energy.clamp(min=1e-20)
        scale = torch.where((energy > 0) & (fitted > 0), fitted * scale, scale)
        scale = grid.stored_scale(torch.where(is_zero, torch.ones_like(scale), scale))
    assert table is not None
    return Params(scale=scale.reshape(grid.scale_shape(shape)), table=table)


def _levels(grid: Grid) -> Callable[[Tensor], Tensor]:
    if not grid.has_table:
        low, high = grid.code_range
        return lambda scaled: scaled.round().clamp_(low, high)
    table = fixed_table(grid.format, grid.bits)
    middles = (table[1:].double() + table[:-1].double()).mul_(0.5).float()
    return lambda scaled: table[torch.bucketize(scaled.contiguous(), middles)]


def _top(grid: Grid) -> float:
    """Largest level that exists on both sides."""
    return 1.0 if grid.has_table else float(grid.code_range[1])


def _unit(rows: Tensor) -> Tensor:
    """Largest magnitude of each row; 1 for a row of zeros. Division by it keeps squares from overflowing."""
    largest = rows.abs().amax(dim=1)
    return torch.where(largest < _SMALLEST, torch.ones_like(largest), largest)


def _is_zero(rows: Tensor) -> Tensor:
    return rows.abs().amax(dim=1) < _SMALLEST


def _error(rounded: Tensor, scaled: Tensor, weight: Tensor | None) -> Tensor:
    squares = rounded.sub_(scaled).square_()
    return squares.sum(dim=1) if weight is None else squares.mul_(weight).sum(dim=1)


def _is_constant(weight: Tensor) -> bool:
    return bool((weight == weight.reshape(-1)[0]).all())


def _in_blocks(
    rows: Tensor, weights: Tensor | None, function: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    size = max(1, _BLOCK // rows.shape[1])
    parts = [
        function(rows[i : i + size], None if weights is None else weights[i : i + size])
        for i in range(0, len(rows), size)
    ]
    return tuple(torch.cat(found) for found in zip(*parts, strict=True))
