"""Front of a run, made from the state of its ledger: points, recommendations, picks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...evaluators.latency import TIE
from ..run import front_hypervolume
from ..space import config_of
from ..values import Completed, Failed, Limits, Objective, SearchSpace, Trial, knee, misses, violation
from ._front import Front, LostBaseline, Point
from ._on_device import OnDevice, without_machine
from ._select import Selection, select

if TYPE_CHECKING:
    from ...evaluators import Measurement
    from ..run import StoredRun

SIGNIFICANCE = 0.05
"""Largest adjusted p-value of a confirmed lead."""


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
    confirmed = _confirmed(run, chosen)
    members: list[Completed] = [*([chosen.original] if chosen.original else []), *chosen.uniform, *chosen.mixed]
    if everything:
        known = {trial.number for trial in members}
        members += [t for t in trials if isinstance(t, Completed) and t.number not in known]
    space = facts.space
    labels = {candidate.levels: label for candidate, label in facts.baselines or ()}
    points = [
        _point(run, space, trial, chosen, confirmed, limits, objectives, labels, elsewhere=device is not None)
        for trial in members
    ]
    cost = objectives[-1]
    points.sort(key=lambda p: (p.kind != "original", cost.key(p.metrics[cost.name].value), p.id))
    return Front(
        points=tuple(points),
        picks=_picks(points, objectives),
        objectives=objectives,
        limits=limits,
        run=run.path,
        profile=facts.profile if device is None else device.name,
        hypervolume=front_hypervolume(trials, objectives, limits),
        nearest=nearest(trials, limits),
        lost=_lost(run, chosen, labels),
    )


def _lost(run: StoredRun, chosen: Selection, labels: Mapping[tuple[int, ...], str]) -> tuple[LostBaseline, ...]:
    """Return the uniform settings that failed, and the points that are not recommended because of it."""
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
        baseline = chosen.baselines.get(point.number)
        verified = run.state.verified.get(baseline.number) if baseline is not None else None
        if baseline is not None and verified is not None and verified.reason is not None:
            add(baseline, "verification", verified.reason, point)
    return tuple(found[number] for number in sorted(found))


def _confirmed(run: StoredRun, chosen: Selection) -> dict[int, str | None]:
    """Return number of a mixed trial -> None if its lead over its baseline is confirmed, else the reason why not.

    A lead is confirmed on the report split, with Holm's correction over all points that have a baseline. A point that
    costs less than every uniform setting has none. Where its baseline failed, nothing is confirmed. Of a model with
    several outputs, all together must be as near to the original's as the baseline's.
    """
    verdicts: dict[int, str | None] = {}
    p_values: dict[int, float] = {}
    farther: dict[int, str | None] = {}
    for trial in chosen.mixed:
        found, baseline = run.state.verified.get(trial.number), chosen.baselines.get(trial.number)
        if found is None or found.reason is not None:
            verdicts[trial.number] = "not verified yet" if found is None else f"not verified: {found.reason}"
        elif lost := chosen.lost.get(trial.number):
            verdicts[trial.number] = f"its uniform baseline t{lost[0].number} could not be evaluated"
        elif baseline is None:
            verdicts[trial.number] = None  # no uniform setting costs as little
        elif (trial.number, baseline.number) not in run.state.verdicts:
            verdicts[trial.number] = f"its uniform baseline t{baseline.number} could not be verified"
        else:
            p_values[trial.number] = run.state.verdicts[trial.number, baseline.number].p_value
            farther[trial.number] = _farther(run, trial.number, baseline.number)
    for number, p_value in holm(p_values).items():
        lead = run.state.verdicts[number, chosen.baselines[number].number]
        verdicts[number] = (
            farther[number]
            if p_value <= SIGNIFICANCE
            else f"lead over uniform t{lead.rival} not confirmed ({lead.difference:+.4g}, p={p_value:.2g})"
        )
    return verdicts


def _farther(run: StoredRun, number: int, baseline: int) -> str | None:
    """Reason against a point of a model with several outputs that buys the metric's output with the others; else None.

    All outputs together, on the report split, must not be farther from the original's than the baseline's.
    """
    mine, theirs = (run.state.verified[n].metrics.get("divergence") for n in (number, baseline))
    facts = run.state.facts
    if facts is None or len(facts.outputs) < 2 or mine is None or theirs is None or mine.value <= theirs.value:
        return None
    return (
        f"all outputs together are farther from the original's than those of uniform t{baseline} "
        f"({mine.value:.3g} against {theirs.value:.3g})"
    )


def holm(p_values: Mapping[int, float]) -> dict[int, float]:
    """Return adjusted p-values that keep the family-wise error (Holm 1979)."""
    ordered = sorted(p_values.items(), key=lambda item: (item[1], item[0]))
    steps = [min(1.0, p * (len(ordered) - i)) for i, (_, p) in enumerate(ordered)]
    return {number: p for (number, _), p in zip(ordered, itertools.accumulate(steps, max), strict=True)}


def _point(
    run: StoredRun,
    space: SearchSpace,
    trial: Completed,
    chosen: Selection,
    confirmed: Mapping[int, str | None],
    limits: Limits,
    objectives: Sequence[Objective],
    labels: Mapping[tuple[int, ...], str],
    *,
    elsewhere: bool,
) -> Point:
    """Return a trial as a point.

    confirmed  result of `_confirmed`
    labels     levels of a uniform setting -> its label
    elsewhere  True if the front is of another device, so that measured latencies do not apply
    """
    found = run.state.verified.get(trial.number)
    verified = found is not None and found.reason is None
    metrics = dict(trial.metrics)
    if found is not None and verified:
        metrics |= without_machine(found.metrics) if elsewhere else found.metrics
    if trial.kind == "original":
        metrics["bytes"] = trial.metrics["bytes"]  # those of the source, whatever an export of it takes
    note = ""
    recommended = False
    if trial.kind == "mixed" and trial.number in confirmed:
        note = confirmed[trial.number] or ""
        recommended = not note
    elif found is not None and found.reason is not None:
        note = f"not verified: {found.reason}"
    if verified and trial.kind == "mixed" and violation(metrics, limits) > 0:
        note = "; ".join(filter(None, [f"misses a limit on the report split: {misses(metrics, limits)}", note]))
        recommended = False
    if recommended and (slower := _slower_than_the_original(metrics, objectives)):
        note, recommended = slower, False
    return Point(
        id=f"t{trial.number}",
        kind=trial.kind,
        verified=verified,
        recommended=recommended,
        metrics=metrics,
        search_metrics=trial.metrics,
        config=config_of({} if trial.kind == "original" else space.assignment(trial.candidate)),
        on_front=trial.number in chosen.front,
        note=note,
        agreement=found.agreement if found is not None else "",
        label=labels.get(trial.candidate.levels, "") if trial.kind == "uniform" else "",
    )


def _slower_than_the_original(metrics: Mapping[str, Measurement], objectives: Sequence[Objective]) -> str:
    """Describe that a point was measured slower, if latency is an objective; "" if it was not."""
    speedup = metrics.get("speedup")
    if speedup is None or speedup.high is None or "latency_ms" not in {o.name for o in objectives}:
        return ""
    slow = speedup.high < 1.0 - TIE
    return f"measured slower than the original, {speedup.value:.2f} times as fast" if slow else ""


def _picks(points: Sequence[Point], objectives: Sequence[Objective]) -> dict[str, str]:
    """Return name of a pick -> point id.

    Picks are recommended points; before any point is verified, mixed points of the front.

    knee      the point farthest from the line between the ends of the front, in figures of the search split
    smallest  fewest bytes
    fastest   lowest latency
    best      best quality, in figures of the search split
    """
    pool = [p for p in points if p.recommended]
    if not pool and not any(p.verified for p in points):
        pool = [p for p in points if p.kind == "mixed" and p.on_front]
    if not pool:
        return {}
    table = np.array([[o.key(p.search_metrics[o.name].value) for o in objectives] for p in pool])
    picks = {"knee": pool[knee(table)].id if len(objectives) > 1 else pool[0].id}
    picks["smallest"] = min(pool, key=lambda p: (p.metrics["bytes"].value, p.id)).id
    if all("latency_ms" in p.metrics for p in pool):
        picks["fastest"] = min(pool, key=lambda p: (p.metrics["latency_ms"].value, p.id)).id
    picks["best"] = pool[int(np.argmin(table[:, 0]))].id
    return picks


def nearest(trials: Sequence[Trial], limits: Limits) -> str | None:
    """Describe the trial that comes nearest to the limits; None if a trial meets them."""
    done = [t for t in trials if isinstance(t, Completed) and t.kind != "original"]
    if not done or any(violation(t.metrics, limits) == 0.0 for t in done):
        return None
    best = min(done, key=lambda t: (violation(t.metrics, limits), t.number))
    return f"the nearest is t{best.number} ({best.kind}): {misses(best.metrics, limits)}"
