"""Screened baselines: of many uniform settings the promising ones are evaluated on the whole search split.

Methods and formats multiply the settings: there are 55 for 5 widths, 3 methods, 2 formats and 2 activations. Most are
beaten at once by another one of their own width. A mixed point has to beat the best setting that costs no more. At any
cost the two that look best on the first samples are evaluated on all, so that one lucky draw does not hide the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..values import LowFidelity, Objective, vectors

FROM = 12
"""Up to so many uniform settings, all are evaluated on the whole split."""
BEATEN_BY = 2
"""A setting is not evaluated further if so many others that cost no more look better on the first samples."""


def screened_baselines(screened: Sequence[LowFidelity], objectives: Sequence[Objective]) -> list[LowFidelity]:
    """Baselines to evaluate on the full search split, in the order given.

    The first objective is the quality. Of two settings that are alike in everything the earlier counts as better.
    """
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
