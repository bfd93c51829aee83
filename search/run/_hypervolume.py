"""The hypervolume of the front so far: one figure for the progress of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..values import Completed, Limits, Objective, Trial, hypervolume, non_dominated, vectors, violation


def front_hypervolume(trials: Sequence[Trial], objectives: Sequence[Objective], limits: Limits) -> float | None:
    """Hypervolume of the completed trials within the limits, normalised; None before the baselines are done.

    1.0 is the whole box. It reaches from the original's quality and costs of zero to the worst baseline.
    """
    done = [t for t in trials if isinstance(t, Completed)]
    baselines = [t for t in done if t.kind != "mixed"]
    if len(baselines) < 2:
        return None
    frame = vectors(baselines, objectives)
    worst, best = frame.max(axis=0), frame.min(axis=0)
    for i, objective in enumerate(objectives):
        if i and not objective.maximise:
            best[i] = 0.0
    span = np.where(worst > best, worst - best, 1.0)
    allowed = [t for t in done if violation(t.metrics, limits) == 0.0]
    if not allowed:
        return 0.0
    scaled = (vectors(allowed, objectives) - best) / span
    keep = scaled[non_dominated(scaled)]
    return float(hypervolume(np.maximum(keep, 0.0), np.ones(len(objectives))))
