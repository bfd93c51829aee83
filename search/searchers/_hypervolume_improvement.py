"""Improvement of a front by predicted points."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray
from ..values import non_dominated

MARGIN = 0.05
"""Distance of the reference corner beyond the front's worst values, as a share of the front's span."""


def hypervolume_improvement(predicted: FloatArray, reference: FloatArray, noise: FloatArray) -> FloatArray:
    """Return how much each predicted point improves on the reference points, shape (n,): positive if it does.

    With two objectives it is the gain in hypervolume, with any other number `improvement`. Each objective is relative
    to the span of the reference.

    noise  shape (objectives,), in the scale of the objectives; a lead within it is none
    """
    span = np.ptp(reference, axis=0)
    span = np.where(span > 0, span, 1.0)
    predicted = predicted + noise
    lead = improvement(predicted, reference, span)
    if reference.shape[1] != 2:
        return lead
    return np.where(lead > 0, hypervolume_gain(predicted / span, reference / span), np.minimum(lead, 0.0))


def hypervolume_gain(predicted: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the gain in hypervolume by each point alone, shape (n,), for two objectives.

    The corner lies `MARGIN` beyond the worst of the front, so points beyond its ends gain, but not much.
    """
    front = reference[non_dominated(reference)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    corner = front.max(axis=0) + MARGIN
    # Strip i lies between the points i and i + 1 of the front; its ceiling is the front's value there.
    begins, ends = np.append(-np.inf, front[:, 0]), np.append(front[:, 0], corner[0])
    ceilings = np.append(corner[1], front[:, 1])
    wide = np.minimum(ends, corner[0]) - np.maximum(begins, predicted[:, :1])
    high = ceilings - predicted[:, 1:]
    return np.asarray((np.maximum(wide, 0.0) * np.maximum(high, 0.0)).sum(axis=1))


def improvement(predicted: FloatArray, reference: FloatArray, span: FloatArray) -> FloatArray:
    """Return how far each predicted point reaches beyond the reference points, relative to their span: shape (n,).

    It is the least, over the reference points, of the largest lead in any objective (maximin, Balling 2003). It is
    positive if and only if no reference point is as good everywhere.
    """
    lead = np.full((len(predicted), len(reference)), -np.inf)
    for j in range(reference.shape[1]):
        np.maximum(lead, (reference[None, :, j] - predicted[:, j, None]) / span[j], out=lead)
    return np.asarray(lead.min(axis=1))
