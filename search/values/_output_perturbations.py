"""What several changes do together, from what each does alone: their pushes on the outputs are added up.

What is done to a layer pushes the outputs somewhere; to first order the pushes of all layers add. Where two push the
same way the divergence of both is more than the sum of theirs, where they push against each other it is less, and that
is known for every pair without an evaluation: the table has measured each alone. (That the sensitivity of pairs matters
is HAWQ-V3's and CoopQ's finding; they pay for it in Hessians and in evaluations.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray, SingleArray

MOST_VALUES = 1 << 16
"""Groups times values that one candidate may cost: in larger spaces fewer sites are looked at."""
BLOCK = 1 << 19
"""Values that are gathered together, so that they stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputPerturbations:
    """How each (group, level) alone shifts the outputs, at some sites (`evaluators.sensitivity.OutputFrame`).

    kind       "kl" or "mse"
    reference  (sites, bins): the original's log-probabilities, or its outputs over their standard deviation
    base       (sites * bins,): the shift of the base, from which one group at a time was changed; 0 where every group
               may be left alone
    rows       per group (levels, sites * bins): the shift less that of the base; NaN where it was not measured
    """

    kind: Literal["kl", "mse"]
    reference: SingleArray
    base: SingleArray
    rows: tuple[SingleArray, ...]


class Superposition:
    """Adds up the shifts of a candidate's levels.

    A level that was not measured, or failed, gets that of the level of its group whose divergence is nearest, made as
    long as the table's divergence says; a group of which nothing was measured shifts nothing.

    shifts      None of its groups may lack a row for a level
    divergence  per group, per level: the table's
    """

    def __init__(self, shifts: OutputPerturbations, divergence: tuple[tuple[float, ...], ...]) -> None:
        n_sites, bins = shifts.reference.shape
        self._sites = min(n_sites, max(1, MOST_VALUES // (bins * max(1, len(shifts.rows)))))
        self._bins, kept = bins, self._sites * bins
        self._is_kl = shifts.kind == "kl"
        self._reference = shifts.reference[: self._sites].T
        if self._is_kl:  # in a ledger it is rounded, and a sum of 1.00001 is as much as 8 bits do
            self._reference = self._reference - np.log(np.exp(self._reference).sum(axis=0))
        self._p = np.exp(self._reference)
        self._base = self._by_bin(shifts.base[None, :kept])[0]
        counts = [len(rows) for rows in shifts.rows]
        self._offsets = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)
        pairs = zip(shifts.rows, divergence, strict=True)
        self._rows = self._by_bin(np.concatenate([_filled(rows[:, :kept], np.array(known)) for rows, known in pairs]))
        self._pushes = self._whitened(self._rows)

    def __call__(self, levels: NDArray[np.integer], *, shares: bool) -> tuple[FloatArray, FloatArray]:
        """Divergence of the candidates `levels` (n, groups) by superposition, (n,); and each group's share of it,
        (n, groups): they add up to 1 less the base's, and one that pushes against the others is negative. No shares are
        worked out, (n, 0), unless they are asked for."""
        metric_on_device = self._offsets + levels
        found = np.empty(len(levels))
        parts = np.zeros((len(levels), levels.shape[1] if shares else 0))
        step = max(1, BLOCK // max(1, levels.shape[1] * self._rows.shape[1]))
        ones = np.ones((1, levels.shape[1]), dtype=np.float32)
        for start in range(0, len(levels), step):
            rows = metric_on_device[start : start + step]
            total = (ones @ self._rows[rows])[:, 0] + self._base  # a product: ten times as fast as a sum
            found[start : start + step] = self._divergence(total)
            if shares:
                push = self._whitened(total)
                power = np.maximum(np.einsum("nv,nv->n", push, push), 1e-30)
                parts[start : start + step] = (self._pushes[rows] @ push[:, :, None])[:, :, 0] / power[:, None]
        return found, parts

    def _by_bin(self, rows: SingleArray) -> SingleArray:
        """(n, sites * bins) as (n, bins * sites): sums over a few bins are slow where these lie side by side."""
        turned = rows.reshape(len(rows), self._sites, self._bins).transpose(0, 2, 1)
        return np.ascontiguousarray(turned, dtype=np.float32).reshape(len(rows), -1)

    def _divergence(self, total: SingleArray) -> FloatArray:
        """Of the summed shifts (n, bins * sites)."""
        shifts = total.reshape(len(total), self._bins, self._sites)
        if not self._is_kl:
            return np.asarray(np.square(shifts, dtype=np.float64).mean(axis=(1, 2)))
        moved = self._reference + shifts
        peak = moved.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(moved - peak).sum(axis=1)) + peak[:, 0]
        apart = log_sum - (self._p * shifts).sum(axis=1)
        return np.asarray(np.maximum(apart.mean(axis=1), 0.0), dtype=np.float64)

    def _whitened(self, total: SingleArray) -> SingleArray:
        """Such that half the squared length is the divergence, to second order."""
        shifts = total.reshape(len(total), self._bins, self._sites)
        if not self._is_kl:
            return np.asarray(total)
        mean = (self._p * shifts).sum(axis=1, keepdims=True)
        return np.asarray((np.sqrt(self._p) * (shifts - mean)).reshape(len(total), -1))


def _filled(rows: SingleArray, divergence: FloatArray) -> SingleArray:
    known = np.asarray(np.isfinite(rows).all(axis=1))
    found = np.where(known[:, None], rows, np.float32(0.0))
    sources = np.flatnonzero(known & np.isfinite(divergence) & (divergence > 0))
    if not sources.size:
        return found
    worst = float(divergence[sources].max())
    for level in np.flatnonzero(~known):
        wanted = float(divergence[level]) if np.isfinite(divergence[level]) else worst
        if wanted <= 0.0:
            continue
        nearest = sources[np.abs(np.log(divergence[sources] / wanted)).argmin()]
        found[level] = rows[nearest] * np.sqrt(wanted / divergence[nearest])
    return found
