"""Front of a run, made from the state of its ledger: points, recommendations, picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..run import front_hypervolume
from ..space import config_of
from ..values import Completed, Failed, LeastGain, Limits, Objective, SearchSpace, Trial, misses, violation
from ._cost_scale import CostScale
from ._duels import duels_of
from ._front import Front, LostBaseline, Point
from ._on_device import OnDevice, without_machine
from ._picks import picks_of
from ._select import Selection, is_baseline, select
from ._stars import Judgement, Jury, describe_no_star

if TYPE_CHECKING:
    from ..run import StoredRun


def selection_of(run: StoredRun, device: OnDevice | None = None) -> Selection:
    """Return the trials that become points, on the run's first device or on another."""
    facts = run.facts()
    trials, limits = (run.trials, facts.limits) if device is None else (device.trials(run.trials), device.limits(run))
    return select(trials, facts.objectives, facts.guide, limits)


def selections_of(run: StoredRun) -> list[Selection]:
    """Return the selection on each of the run's devices, the first device first."""
    further = run.facts().profiles[1:]
    return [selection_of(run), *(selection_of(run, OnDevice.of(run, name)) for name in further)]


def front_of(run: StoredRun, *, everything: bool = False, profile: str | Path | None = None) -> Front:
    """Return the front of a run, with picks and recommendations; an empty front before the first trial.

    everything  True: every completed trial is a point
    profile     another device: the same trials with its costs. Nothing is evaluated, and no latency is measured
    """
    facts = run.state.facts
    if facts is None:
        return Front(points=(), picks={}, objectives=(), limits={}, run=run.path)
    device = None if profile is None or profile == facts.profile else OnDevice.of(run, profile)
    trials = run.trials if device is None else device.trials(run.trials)
    objectives = facts.objectives
    limits = facts.limits if device is None else device.limits(run)
    chosen = selection_of(run, device)
    members = _members(run, chosen, trials, everything=everything)
    labels = {candidate.levels: label for candidate, label in facts.baselines or ()}
    points = [_point(run, facts.space, trial, chosen, labels, elsewhere=device is not None) for trial in members]
    scale, judged = _judged(run, chosen, points, limits, device)
    points = [_with_judgement(point, judged.get(point.number)) for point in points]
    cost = objectives[-1]
    points.sort(key=lambda p: (p.kind != "original", cost.key(p.metrics[cost.name].value), p.id))
    return Front(
        points=tuple(points),
        picks=picks_of(points, objectives, limits, scale),
        objectives=objectives,
        limits=limits,
        run=run.path,
        profile=facts.profile if device is None else device.name,
        hypervolume=front_hypervolume(trials, objectives, limits),
        nearest=nearest(trials, limits),
        lost=_lost(run, chosen, labels),
        no_star=describe_no_star(judged) if points else "",
    )


def _members(run: StoredRun, chosen: Selection, trials: Sequence[Trial], *, everything: bool) -> list[Completed]:
    """Return the trials that become points: the selection, all verified baselines, and where asked for everything."""
    members: list[Completed] = [*([chosen.original] if chosen.original else []), *chosen.uniform, *chosen.mixed]
    known = {trial.number for trial in members}
    verified = {number for number, found in run.state.verified.items() if found.reason is None}
    return members + [
        t
        for t in trials
        if isinstance(t, Completed)
        and t.number not in known
        and (everything or (is_baseline(t.kind) and t.number in verified))
    ]


def _judged(
    run: StoredRun, chosen: Selection, points: Sequence[Point], limits: Limits, device: OnDevice | None
) -> tuple[CostScale, dict[int, Judgement]]:
    """Return the scale of costs, and number of a mixed trial of the selection -> its judgement."""
    facts = run.facts()
    quality, scale, least = _quality(run), _scale(run, points), _least_gain(run)
    jury = Jury(
        run=run, chosen=chosen, points={point.number: point for point in points},
        duels=duels_of(points, quality, scale, least), objectives=facts.objectives, metric=facts.quality, scale=scale,
        least=least, can_compare=device is None or device.name in facts.profiles,
    )  # fmt: skip
    return scale, jury.judge(limits)


def pairs_to_compare(run: StoredRun) -> list[tuple[int, int]]:
    """Numbers of trials (a, b) for each test whether a is better than b, over all devices of the run.

    They are what the judgement of the run's verified points needs.
    """
    facts = run.facts()
    found: dict[tuple[int, int], None] = {}
    for device in (None, *(OnDevice.of(run, name) for name in facts.profiles[1:])):
        trials = run.trials if device is None else device.trials(run.trials)
        chosen = selection_of(run, device)
        members = _members(run, chosen, trials, everything=False)
        points = [_point(run, facts.space, trial, chosen, {}, elsewhere=device is not None) for trial in members]
        duels = duels_of(points, _quality(run), _scale(run, points), _least_gain(run))
        for duel in duels.values():
            found |= dict.fromkeys(duel.pairs)
    return list(found)


def _quality(run: StoredRun) -> Objective:
    """Return the objective that is compared: the task's metric if it is one, else the first."""
    facts = run.facts()
    return next((o for o in facts.objectives if o.name == facts.quality), facts.objectives[0])


def _scale(run: StoredRun, points: Sequence[Point]) -> CostScale:
    quality = _quality(run)
    costs = tuple(objective for objective in run.facts().objectives if objective is not quality)
    floors = [p.metrics["aa_floor"].value for p in points if p.kind == "original" and "aa_floor" in p.metrics]
    return CostScale(costs=costs, floor=max(floors, default=0.0))


def _least_gain(run: StoredRun) -> LeastGain:
    """Return the least gain that the verification recorded. Of an old run it follows from the task's metric."""
    if run.state.least_gain is not None:
        return run.state.least_gain
    from ...evaluators import METRICS

    name = run.facts().quality
    units = {t.metrics[name].unit for t in run.trials if isinstance(t, Completed) and name in t.metrics}
    bounds = (0.0, 1.0) if "fraction" in units else (-math.inf, math.inf)
    return LeastGain.of_metric(METRICS[name].range if name in METRICS else bounds, run.task.search.least_gain)


def _lost(run: StoredRun, chosen: Selection, labels: Mapping[tuple[int, ...], str]) -> tuple[LostBaseline, ...]:
    """Return the baselines that failed, and the points that are not recommended because of it."""
    found: dict[int, LostBaseline] = {}

    def add(trial: Completed | Failed, step: str, reason: str, point: Completed) -> None:
        known = found.get(trial.number)
        found[trial.number] = LostBaseline(
            id=f"t{trial.number}", label=labels.get(trial.candidate.levels, ""), failed=step, reason=reason,
            points=(*(known.points if known else ()), f"t{point.number}"),
        )  # fmt: skip

    for point in chosen.mixed:
        for failed in chosen.lost.get(point.number, ()):
            add(failed, "evaluation", failed.reason, point)
        for baseline in chosen.rivals.get(point.number, ()):
            verified = run.state.verified.get(baseline.number)
            if verified is not None and verified.reason is not None:
                add(baseline, "verification", verified.reason, point)
    return tuple(found[number] for number in sorted(found))


def _point(
    run: StoredRun,
    space: SearchSpace,
    trial: Completed,
    chosen: Selection,
    labels: Mapping[tuple[int, ...], str],
    *,
    elsewhere: bool,
) -> Point:
    """Return a trial as a point that nobody has judged.

    labels     levels of a baseline -> its label
    elsewhere  True if the front is of another device, so that measured latencies do not apply
    """
    found = run.state.verified.get(trial.number)
    verified = found is not None and found.reason is None
    metrics = dict(trial.metrics)
    if found is not None and verified:
        metrics |= without_machine(found.metrics) if elsewhere else found.metrics
    if trial.kind == "original":
        metrics["bytes"] = trial.metrics["bytes"]  # those of the source, whatever an export of it takes
    return Point(
        id=f"t{trial.number}",
        kind=trial.kind,
        verified=verified,
        recommended=False,
        metrics=metrics,
        search_metrics=trial.metrics,
        config=config_of({} if trial.kind == "original" else space.assignment(trial.candidate)),
        on_front=trial.number in chosen.front,
        note=f"not verified: {found.reason}" if found is not None and found.reason is not None else "",
        agreement=found.agreement if found is not None else "",
        label=labels.get(trial.candidate.levels, "") if is_baseline(trial.kind) else "",
    )


def _with_judgement(point: Point, judged: Judgement | None) -> Point:
    """Return the point with its star, or the reason why it has none."""
    if judged is None:
        return point
    return replace(point, recommended=not judged.obstacle, note=judged.note, rival=judged.rival)


def nearest(trials: Sequence[Trial], limits: Limits) -> str | None:
    """Describe the trial that comes nearest to the limits; None if a trial meets them."""
    done = [t for t in trials if isinstance(t, Completed) and t.kind != "original"]
    if not done or any(violation(t.metrics, limits) == 0.0 for t in done):
        return None
    best = min(done, key=lambda t: (violation(t.metrics, limits), t.number))
    return f"the nearest is t{best.number} ({best.kind}): {misses(best.metrics, limits)}"
