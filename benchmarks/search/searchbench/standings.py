"""Fronts that were chosen on the search samples, by what they are worth on samples that no decision saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paredown.search.values import hypervolume, non_dominated

from .play import OWN, split_name
from .traces import Box, Trace
from .unseen import uniform_cost

CHECKPOINTS = (25, 50, 100)
UNIFORM = "uniform"
BEST_UNIFORM = "uniform × method"
"""All uniform settings that were played, of every quantizer: one front."""

Rows = NDArray[np.float64]
"""(n, 6): evaluations spent, divergence, bytes, loss of the metric, and on unseen samples the divergence and the loss.

A loss is the metric's distance from the original's, on the same samples, and positive for the worse.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """Hypervolumes of one front: of divergence and of the metric, on the search samples and on unseen ones."""

    divergence: float
    divergence_unseen: float
    metric: float
    metric_unseen: float

    def minus(self, other: Volumes) -> Volumes:
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return Volumes(**{name: one - two for (name, one), two in pairs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One searcher on one problem at one cost; figures are medians over its seeds.

    revision     of the product with which it was played
    gain         over the uniform settings that all searchers are told
    kept, kept_metric  gain on unseen samples over that on the search samples; None where nothing was gained
    low, high    least and greatest `divergence_unseen` of the seeds
    """

    problem: str
    revision: str
    searcher: str
    evaluations: int
    seeds: int
    volumes: Volumes
    gain: Volumes
    kept: float | None
    kept_metric: float | None
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rows_of(trace: Trace) -> Rows:
    """The trace's points. What was not taken on unseen samples is NaN."""
    unseen = trace.unseen
    if unseen is None:
        raise ValueError(f"the trace of {trace.searcher} on {trace.problem} was not judged; run unseen.py on it")
    sign = -1.0 if unseen.maximise else 1.0
    points = np.array(trace.points, dtype=np.float64).reshape(-1, 3)
    found = np.array([unseen.divergence, unseen.metric], dtype=np.float64).reshape(2, -1)
    loss = sign * (np.array(trace.metrics, dtype=np.float64) - unseen.original_search)
    return np.column_stack(
        [points[:, 0] / trace.samples, points[:, 1:], loss, found[0], sign * (found[1] - unseen.original)]
    )


def front_of(rows: Rows, evaluations: float) -> Rows:
    """What so many evaluations had found, without what the search samples say is beaten."""
    found = rows[rows[:, 0] <= evaluations * (1 + 1e-9)]
    return found[non_dominated(found[:, 1:3])] if len(found) else found


def volumes_of(front: Rows, box: Box, worst: float) -> Volumes:
    """The four hypervolumes. `worst` is the loss of the metric that counts for nothing."""
    return Volumes(
        divergence=box.volume(front[:, [1, 2]]),
        divergence_unseen=box.volume(_known(front[:, [4, 2]])),
        metric=_plain_volume(front[:, [3, 2]], box, worst),
        metric_unseen=_plain_volume(_known(front[:, [5, 2]]), box, worst),
    )


def _known(points: Rows) -> Rows:
    return points[~np.isnan(points).any(axis=1)]


def _plain_volume(points: Rows, box: Box, worst: float) -> float:
    """Of (loss, bytes) rows, the loss on a linear scale: 0 is the original's or better, 1 is `worst`."""
    if not len(points):
        return 0.0
    size = (points[:, 1] - box.cheapest) / (box.dearest - box.cheapest)
    return hypervolume(np.column_stack([np.maximum(points[:, 0], 0.0) / worst, size]), np.array([1.0, 1.0]))


def standings(traces: dict[str, Sequence[Trace]], worst: float) -> list[Standing]:
    """Of one problem. `traces` are those of each revision, the oldest first.

    The box and the uniform settings are those of the first searcher that is played with the problem's own quantizer.
    """
    plain = [t for found in traces.values() for t in found if not split_name(t.searcher)[1]]
    if not plain:
        return []
    box = plain[0].box
    told = front_of(rows_of(plain[0]), uniform_cost(plain[0]))
    uniform = volumes_of(told, box, worst)
    found: list[Standing] = []
    for revision, own in traces.items():
        groups: dict[str, list[Rows]] = {}
        everywhere = []
        for trace in own:
            rows = rows_of(trace)
            groups.setdefault(trace.searcher, []).append(rows)
            if split_name(trace.searcher)[0] == UNIFORM:
                everywhere.append(rows)
        if len(everywhere) > 1:
            groups[BEST_UNIFORM] = [np.concatenate(everywhere)]
        names = {"problem": plain[0].problem, "revision": revision}
        found += [
            _standing([volumes_of(front_of(rows, at), box, worst) for rows in seeds], uniform, at, searcher, names)
            for searcher, seeds in groups.items()
            for at in CHECKPOINTS
        ]
    return found


def _standing(
    seeds: Sequence[Volumes], uniform: Volumes, evaluations: int, searcher: str, names: dict[str, str]
) -> Standing:
    volumes = _median(seeds)
    gain = _median([one.minus(uniform) for one in seeds])
    return Standing(
        **names, searcher=searcher, evaluations=evaluations, seeds=len(seeds), volumes=volumes, gain=gain,
        kept=_share(gain.divergence_unseen, gain.divergence), kept_metric=_share(gain.metric_unseen, gain.metric),
        low=min(one.divergence_unseen for one in seeds), high=max(one.divergence_unseen for one in seeds),
    )  # fmt: skip


def _median(seeds: Sequence[Volumes]) -> Volumes:
    return Volumes(**{name: median(getattr(one, name) for one in seeds) for name in asdict(seeds[0])})


def _share(unseen: float, search: float) -> float | None:
    return unseen / search if search > 1e-9 else None


def table(found: Sequence[Standing]) -> str:
    """One problem's standings, the best on unseen samples first: each cell says search samples -> unseen ones."""
    columns = [f"{what}, {at}" for what in ("divergence", "metric") for at in CHECKPOINTS]
    head = ["searcher", "revision", "seeds", *columns, "kept", "kept, metric"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows: dict[tuple[str, str], dict[int, Standing]] = {}
    for one in found:
        rows.setdefault((one.searcher, one.revision), {})[one.evaluations] = one
    for (searcher, revision), by_cost in sorted(
        rows.items(), key=lambda item: -item[1][CHECKPOINTS[-1]].volumes.divergence_unseen
    ):
        last = by_cost[CHECKPOINTS[-1]]
        volumes = [by_cost[at].volumes for at in CHECKPOINTS]
        cells = [f"{v.divergence:.3f} → {v.divergence_unseen:.3f}" for v in volumes]
        cells += [f"{v.metric:.3f} → {v.metric_unseen:.3f}" for v in volumes]
        name = f"**{searcher}**" if split_name(searcher)[0] == OWN else searcher
        cells = [name, revision, str(last.seeds), *cells, _percent(last.kept), _percent(last.kept_metric)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def leads(found: Iterable[Standing]) -> str:
    """The default searcher's lead on unseen samples over the best rival that has the same quantizer, by problem."""
    head = ["problem", "revision", *(f"{what}, {at}" for what in ("divergence", "metric") for at in CHECKPOINTS)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    found = [one for one in found if not split_name(one.searcher)[1] and one.searcher != BEST_UNIFORM]
    for own in (one for one in found if one.searcher == OWN and one.evaluations == CHECKPOINTS[0]):
        cells = []
        for figure in ("divergence_unseen", "metric_unseen"):
            for at in CHECKPOINTS:
                there = [one for one in found if one.problem == own.problem and one.evaluations == at]
                mine = next(one for one in there if one.searcher == OWN and one.revision == own.revision)
                rivals = [one for one in there if one.searcher != OWN]
                best = max(rivals, key=lambda one: getattr(one.volumes, figure), default=None)
                lead = None if best is None else getattr(mine.volumes, figure) - getattr(best.volumes, figure)
                cells.append("–" if best is None or lead is None else f"{lead:+.3f} ({best.searcher})")
        lines.append("| " + " | ".join([own.problem, own.revision, *cells]) + " |")
    return "\n".join(lines) + "\n"
