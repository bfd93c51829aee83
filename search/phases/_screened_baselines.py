"""Which uniform settings are seen on the whole search split, of many that were seen on its first samples.

Methods and formats multiply them (55 for 5 widths, 3 methods, 2 formats and 2 activations), and most are beaten at once
by another of their own width. What a mixed point has to beat is the best of those that cost no more; at any cost the
two that look best on the first samples are seen on all, so that it takes more than one lucky draw to miss it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..values import LowFidelity, Objective, vectors

FROM = 12
"""With fewer uniform settings all are seen on the whole split."""
BEATEN_BY = 2
"""A setting is left at its first samples if so many others that cost no more look better there."""


def screened_baselines(screened: Sequence[LowFidelity], objectives: Sequence[Objective]) -> list[LowFidelity]:
    """Those that are to be seen on all, in the order given. The quality is the first of the objectives; of two that are
    alike in everything the earlier counts as better."""
    if not screened:
        return []
    values = vectors(screened, objectives)
    quality, costs = values[:, 0], values[:, 1:]
    no_dearer = (costs[None, :, :] <= costs[:, None, :]).all(axis=2)  # [i, j]: j costs no more than i
    order = np.arange(len(screened))
    better = quality[None, :] < quality[:, None]
    alike = (quality[None, :] == quality[:, None]) & (costs[None, :, :] == costs[:, None, :]).all(axis=2)
    better |= alike & (order[None, :] < order[:, None])
    n_better = (no_dearer & better).sum(axis=1)
    return [trial for trial, n in zip(screened, n_better, strict=True) if n < BEATEN_BY]
