"""What a predicted point would add to a front."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray
from ..values import non_dominated

MARGIN = 0.05
"""The reference corner lies this share of the front's span beyond its worst values."""


def hypervolume_improvement(predicted: FloatArray, reference: FloatArray, noise: FloatArray) -> FloatArray:
    """How much each predicted point adds to the reference points, shape (n,): positive where it adds something.

    With two objectives what it adds to the hypervolume, with any other number `improvement`; each objective relative to
    the reference's span. A lead that is within `noise`, shape (objectives,), in the objectives' own scale, is none.
    """
    span = np.ptp(reference, axis=0)
    span = np.where(span > 0, span, 1.0)
    predicted = predicted + noise
    lead = improvement(predicted, reference, span)
    if reference.shape[1] != 2:
        return lead
    return np.where(lead > 0, hypervolume_gain(predicted / span, reference / span), np.minimum(lead, 0.0))


def hypervolume_gain(predicted: FloatArray, reference: FloatArray) -> FloatArray:
    """What each of the points alone adds to the hypervolume of the reference points, two objectives: shape (n,).

    The corner lies `MARGIN` beyond the front's worst, so its ends can be prolonged, but not by much.
    """
    front = reference[non_dominated(reference)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    corner = front.max(axis=0) + MARGIN
    # Strip i lies between the points i and i + 1 of the front; its ceiling is what the front reaches there.
    begins, ends = np.append(-np.inf, front[:, 0]), np.append(front[:, 0], corner[0])
    ceilings = np.append(corner[1], front[:, 1])
    wide = np.minimum(ends, corner[0]) - np.maximum(begins, predicted[:, :1])
    high = ceilings - predicted[:, 1:]
    return np.asarray((np.maximum(wide, 0.0) * np.maximum(high, 0.0)).sum(axis=1))


def improvement(predicted: FloatArray, reference: FloatArray, span: FloatArray) -> FloatArray:
    """How far each predicted point reaches beyond the reference points, relative to their span: shape (n,).

    The least, over the reference points, of the largest lead in any objective (Balling 2003's maximin): positive if
    and only if no reference point is as good everywhere.
    """
    lead = np.full((len(predicted), len(reference)), -np.inf)
    for j in range(reference.shape[1]):
        np.maximum(lead, (reference[None, :, j] - predicted[:, j, None]) / span[j], out=lead)
    return np.asarray(lead.min(axis=1))
