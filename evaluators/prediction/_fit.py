"""Gaussian-process regression of relative latency with a prior scale for each block of features.

The same as Bayesian ridge regression (MacKay 1992) with several ridges, seen from the data's side: few models, many
features. The scales maximise the marginal likelihood (Rasmussen & Williams 2006, eq. 5.8 and 5.9). A smooth remainder,
an RBF over how much of the model has which kind of form, takes what is no sum (caches, mostly).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..._arrays import FloatArray
from ._features import BLOCKS, Encoder, Forms, Layout

_SCALES: dict[str, tuple[float, float]] = {
    "lone": (1.0, 0.5), "kind": (0.5, 1.0), "work": (0.5, 1.0), "class": (0.4, 1.0), "layer": (0.1, 1.0),
    "edge": (0.3, 1.0), "edge_own": (0.1, 1.0), "tensor": (0.3, 1.0), "smooth": (0.01, 1.0), "noise": (0.01, 0.7),
}  # fmt: skip
"""Prior median of each scale, and the standard deviation of its logarithm. noise: relative to the latency itself."""
NAMES = tuple(_SCALES)
_CENTRE = np.log([centre for centre, _ in _SCALES.values()])
_WIDTH = np.array([width for _, width in _SCALES.values()])
_LENGTH = 0.3
"""Length scale of the smooth remainder, in shares of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Posterior of a fit. `predict` is for forms of the same layout."""

    encoder: Encoder
    scales: Mapping[str, float]
    _blocks: dict[str, FloatArray]
    _weights: FloatArray
    _factor: FloatArray
    _noise: FloatArray
    _values: FloatArray

    def predict(self, many: Sequence[Forms]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) of the latency relative to the original's, each (n,).

        The deviation is the model's own uncertainty: without the noise of a measurement.
        """
        mean, covariance = self._posterior(many, full=False)
        return mean, np.sqrt(covariance)

    def covariance(self, many: Sequence[Forms]) -> tuple[FloatArray, FloatArray]:
        """(mean (n,), covariance (n, n)) of the latency relative to the original's."""
        return self._posterior(many, full=True)

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation with noise) for each fitted model, as predicted by the others (Rasmussen &
        Williams, eq. 5.12).
        """
        inverse = _inverse(self._factor)
        variance = 1.0 / np.diag(inverse)
        return self._values - self._weights * variance, np.sqrt(variance)

    def _posterior(self, many: Sequence[Forms], *, full: bool) -> tuple[FloatArray, FloatArray]:
        from scipy.linalg import solve_triangular

        blocks, unknown = self.encoder.encode(many)
        parts = _kernels(blocks, self._blocks)
        cross = sum(self.scales[name] ** 2 * part for name, part in parts.items())
        mean: FloatArray = 1.0 + np.asarray(cross) @ self._weights
        half = solve_triangular(self._factor, np.asarray(cross).T, lower=True)
        strange = (self.scales["class"] * unknown) ** 2
        if full:
            own = sum(self.scales[name] ** 2 * part for name, part in _kernels(blocks, blocks).items())
            return mean, np.asarray(own) - half.T @ half + np.diag(strange)
        own = sum(self.scales[name] ** 2 * part for name, part in _diagonals(blocks).items())
        return mean, np.maximum(np.asarray(own) - (half**2).sum(axis=0), 0.0) + strange


def fit(
    layout: Layout,
    known: Sequence[Forms],
    values: Sequence[float],
    errors: Sequence[float],
    *,
    scales: Mapping[str, float] | None = None,
    also: Sequence[Forms] = (),
) -> Fitted:
    """Fit a posterior. values: latency relative to the original's; errors: the standard error of each, as measured.

    scales  as found by an earlier fit; by default those that make the values most likely
    also    other forms that will be asked for, so that their features are known
    """
    encoder = Encoder(layout, [*known, *also])
    blocks, _ = encoder.encode(known)
    y = np.asarray(values, dtype=np.float64)
    seen = np.asarray(errors, dtype=np.float64) ** 2
    parts = _kernels(blocks, blocks)
    found = dict(scales) if scales is not None else _most_likely(parts, y, seen)
    kernel, noise = _total(parts, found, y, seen)
    factor: FloatArray = np.linalg.cholesky(kernel).astype(np.float64)
    return Fitted(
        encoder=encoder,
        scales=found,
        _blocks=blocks,
        _weights=_inverse(factor) @ (y - 1.0),
        _factor=factor,
        _noise=noise,
        _values=y,
    )


def _most_likely(parts: Mapping[str, FloatArray], y: FloatArray, seen: FloatArray) -> dict[str, float]:
    from scipy.optimize import minimize

    names = [*parts, "noise"]

    def loss(logs: FloatArray) -> tuple[float, FloatArray]:
        scales = dict(zip(names, np.exp(logs), strict=True))
        kernel, _ = _total(parts, scales, y, seen)
        try:
            factor: FloatArray = np.linalg.cholesky(kernel).astype(np.float64)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(len(logs))
        inverse = _inverse(factor)
        weights = inverse @ (y - 1.0)
        pull = (logs - _CENTRE) / _WIDTH
        value = 0.5 * (y - 1.0) @ weights + np.log(np.diag(factor)).sum() + 0.5 * (pull**2).sum()
        outer = inverse - np.outer(weights, weights)
        slopes = [scales[name] ** 2 * float((outer * part).sum()) for name, part in parts.items()]
        slopes.append(scales["noise"] ** 2 * float((np.diag(outer) * y**2).sum()))
        return float(value), np.array(slopes) + pull / _WIDTH

    found = minimize(loss, _CENTRE, jac=True, method="L-BFGS-B", bounds=[(-9.0, 3.0)] * len(names))
    return {name: float(value) for name, value in zip(names, np.exp(found.x), strict=True)}


def _total(
    parts: Mapping[str, FloatArray], scales: Mapping[str, float], y: FloatArray, seen: FloatArray
) -> tuple[FloatArray, FloatArray]:
    noise = (scales["noise"] * y) ** 2 + seen + 1e-10
    return np.asarray(sum(scales[name] ** 2 * part for name, part in parts.items())) + np.diag(noise), noise


def _kernels(a: Mapping[str, FloatArray], b: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Kernels (n, m) for each block, and for the smooth remainder; zero for the original, whose ratio is exactly 1."""
    parts = {block: a[block] @ b[block].T for block in BLOCKS}
    x, z = a["kind"], b["kind"]
    cross, left, right = _rbf(x, z), _rbf(x, np.zeros_like(z[:1])), _rbf(np.zeros_like(x[:1]), z)
    parts["smooth"] = cross - left * right
    return parts


def _diagonals(a: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    parts = {block: (a[block] ** 2).sum(axis=1) for block in BLOCKS}
    parts["smooth"] = 1.0 - _rbf(a["kind"], np.zeros_like(a["kind"][:1]))[:, 0] ** 2
    return parts


def _rbf(x: FloatArray, z: FloatArray) -> FloatArray:
    apart = ((x[:, None, :] - z[None, :, :]) ** 2).sum(axis=2)
    near: FloatArray = np.exp(-0.5 * apart / _LENGTH**2)
    return near


def _inverse(factor: FloatArray) -> FloatArray:
    from scipy.linalg import cho_solve

    inverse: FloatArray = cho_solve((factor, True), np.eye(len(factor)))
    return inverse
