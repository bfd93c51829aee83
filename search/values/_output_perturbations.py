"""Prediction of the joint effect of several changes: the output perturbations of each alone are added.

A change of a layer perturbs the outputs. To first order the perturbations of all layers add up. Where two of them have
the same direction, the divergence of both is more than the sum of theirs. Where they oppose each other, it is less.
This is known for every pair without an evaluation, because the table has measured each change alone. HAWQ-V3 and CoopQ
found that the sensitivity of pairs matters; they pay for it in Hessians and in evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray, SingleArray

MOST_VALUES = 1 << 16
"""Default limit of groups times values for one candidate."""
BLOCK = 1 << 19
"""Number of values that are gathered at once, so that they stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputPerturbations:
    """The perturbations of the outputs by each (group, level) alone, at the sites of an `OutputFrame` (evaluators).

    kind       "kl" or "mse"
    reference  (sites, bins): the original's log-probabilities, or its outputs over their standard deviation
    base       (sites * bins,): the perturbation of the base, from which one group at a time was changed; 0 where every
               group may be left alone
    rows       per group (levels, sites * bins): the perturbation less that of the base; NaN where it was not measured
    """

    kind: Literal["kl", "mse"]
    reference: SingleArray
    base: SingleArray
    rows: tuple[SingleArray, ...]


class Superposition:
    """The sum of the output perturbations of a candidate's levels.

    A level without a measurement gets the perturbation of the level of its group whose divergence is nearest, scaled to
    the divergence in the table. A group without any measurement perturbs nothing.

    perturbations  with a row for each level of each group
    divergence     divergence in the table, per group and level
    most_values    limit of groups times values for one candidate; larger spaces use fewer sites
    """

    def __init__(
        self,
        perturbations: OutputPerturbations,
        divergence: tuple[tuple[float, ...], ...],
        *,
        most_values: int = MOST_VALUES,
    ) -> None:
        n_sites, bins = perturbations.reference.shape
        self._sites = min(n_sites, max(1, most_values // (bins * max(1, len(perturbations.rows)))))
        self._bins, kept = bins, self._sites * bins
        self._is_kl = perturbations.kind == "kl"
        self._reference = perturbations.reference[: self._sites].T
        if self._is_kl:  # a ledger rounds it, and a sum of 1.00001 weighs as much as a change to 8 bits
            self._reference = self._reference - np.log(np.exp(self._reference).sum(axis=0))
        self._p = np.exp(self._reference)
        self._base = self._by_bin(perturbations.base[None, :kept])[0]
        counts = [len(rows) for rows in perturbations.rows]
        self._offsets = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)
        pairs = zip(perturbations.rows, divergence, strict=True)
        self._rows = self._by_bin(np.concatenate([_filled(rows[:, :kept], np.array(known)) for rows, known in pairs]))
        self._whitened_rows = self._whitened(self._rows)

    def __call__(self, levels: NDArray[np.integer], *, shares: bool) -> tuple[FloatArray, FloatArray]:
        """Predict the divergence of candidates, and the share of each group in it.

        levels  (n, groups)
        shares  False: the second result has shape (n, 0)

        Returns the divergence, (n,), and the shares, (n, groups). The shares of a candidate and the share of the base
        add up to 1. The share of a group that opposes the others is negative.
        """
        places = self._offsets + levels
        found = np.empty(len(levels))
        parts = np.zeros((len(levels), levels.shape[1] if shares else 0))
        step = max(1, BLOCK // max(1, levels.shape[1] * self._rows.shape[1]))
        ones = np.ones((1, levels.shape[1]), dtype=np.float32)
        for start in range(0, len(levels), step):
            rows = places[start : start + step]
            total = (ones @ self._rows[rows])[:, 0] + self._base  # a product: ten times as fast as a sum
            found[start : start + step] = self._divergence(total)
            if shares:
                whole = self._whitened(total)
                power = np.maximum(np.einsum("nv,nv->n", whole, whole), 1e-30)
                parts[start : start + step] = (self._whitened_rows[rows] @ whole[:, :, None])[:, :, 0] / power[:, None]
        return found, parts

    def _by_bin(self, rows: SingleArray) -> SingleArray:
        """Turn (n, sites * bins) into (n, bins * sites): sums over a few adjacent bins are slow."""
        turned = rows.reshape(len(rows), self._sites, self._bins).transpose(0, 2, 1)
        return np.ascontiguousarray(turned, dtype=np.float32).reshape(len(rows), -1)

    def _divergence(self, total: SingleArray) -> FloatArray:
        """Return the divergence, (n,), of summed perturbations of shape (n, bins * sites)."""
        perturbations = total.reshape(len(total), self._bins, self._sites)
        if not self._is_kl:
            return np.asarray(np.square(perturbations, dtype=np.float64).mean(axis=(1, 2)))
        moved = self._reference + perturbations
        peak = moved.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(moved - peak).sum(axis=1)) + peak[:, 0]
        apart = log_sum - (self._p * perturbations).sum(axis=1)
        return np.asarray(np.maximum(apart.mean(axis=1), 0.0), dtype=np.float64)

    def _whitened(self, total: SingleArray) -> SingleArray:
        """Scale perturbations so that half their squared length is the divergence, to second order."""
        perturbations = total.reshape(len(total), self._bins, self._sites)
        if not self._is_kl:
            return np.asarray(total)
        mean = (self._p * perturbations).sum(axis=1, keepdims=True)
        return np.asarray((np.sqrt(self._p) * (perturbations - mean)).reshape(len(total), -1))


def _filled(rows: SingleArray, divergence: FloatArray) -> SingleArray:
    """Fill the rows that were not measured from the nearest row of the group, see `Superposition`."""
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
