"""Stars: which points are recommended, and why, in words.

A mixed point has a star if it is verified, within the limits, and, on the report split,

(a) beats the best baseline that costs no more, beyond noise;
(b) has no baseline within 10 % more cost that is better beyond noise;
(c) has a lead that is worth telling, or is as good as a dearer baseline for 5 % less cost.

Without a baseline that costs no more there is nothing to beat, and no star. Nothing is starred for its latency where
the machine is too noisy to tell latencies apart. "Beyond noise" is the paired test at 5 %; of (a) with Holm's
correction over all points.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..._command import command
from ...evaluators.latency import TIE
from ..run import StoredRun, Verdict
from ..values import LEAST_SAVING, LeastGain, Objective, misses, violation
from ._cost_scale import CostScale
from ._duels import Duel
from ._front import Point, Rival
from ._select import Selection

SIGNIFICANCE = 0.05
"""Largest p-value of a confirmed lead."""

Obstacle = Literal[
    "", "unverified", "pending", "lost", "limit", "slower", "noisy", "no rival", "not better", "farther", "neighbour",
    "small",
]  # fmt: skip
"""Kind of reason against a star; "" where there is none."""

_SUMMARY: Mapping[Obstacle, str] = {
    "unverified": "not verified",
    "pending": "not compared with all baselines yet",
    "lost": "would have to beat a baseline that failed",
    "limit": "beyond a limit on the report split",
    "slower": "measured slower than the original",
    "noisy": "cheaper in nothing but latencies, which mean little here",
    "no rival": "cheaper than every baseline, so that there is nothing to beat",
    "not better": "not better than the best baseline that costs no more, beyond noise",
    "farther": "farther from the original in all outputs together",
    "neighbour": "worse than a baseline within 10 % more cost",
    "small": "better by less than is worth telling",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on one mixed point; `obstacle` is "" where it has a star, and `note` says what it beat."""

    obstacle: Obstacle
    note: str
    rival: Rival | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jury:
    """Everything that the judgement of a front's mixed points needs.

    chosen       trials that became points
    points       number of a trial -> its point, without a recommendation
    duels        number of a verified mixed trial -> its comparisons
    metric       name of the metric that the tests compare
    can_compare  True if `resume` makes comparisons that are missing: the device is one of the run's own
    """

    run: StoredRun
    chosen: Selection
    points: Mapping[int, Point]
    duels: Mapping[int, Duel]
    objectives: tuple[Objective, ...]
    metric: str
    scale: CostScale
    least: LeastGain
    can_compare: bool = True

    def judge(self, limits: Mapping[str, tuple[float | None, float | None]]) -> dict[int, Judgement]:
        """Number of a mixed trial of the selection -> its judgement."""
        leads = {
            number: verdict.p_value
            for number, duel in self.duels.items()
            if duel.rival is not None and (verdict := self._verdict(duel.point, duel.rival)) is not None
        }
        adjusted = holm({n: p for n, p in leads.items() if not self._not_comparable(n)})
        found = {}
        for trial in self.chosen.mixed:
            judged = self._not_comparable(trial.number) or self._compared(trial.number, adjusted)
            found[trial.number] = self._within(judged, self.points[trial.number], limits)
        return found

    def _within(
        self, judged: Judgement, point: Point, limits: Mapping[str, tuple[float | None, float | None]]
    ) -> Judgement:
        """The judgement, unless the verified point misses a limit or is slower than the original."""
        if not point.verified:
            return judged
        if violation(point.metrics, limits) > 0:
            note = f"misses a limit on the report split: {misses(point.metrics, limits)}"
            others = [judged.note] if judged.obstacle else []
            return Judgement(obstacle="limit", note="; ".join([note, *others]), rival=judged.rival)
        slower = "" if judged.obstacle else self._slower(point)
        return Judgement(obstacle="slower", note=slower, rival=judged.rival) if slower else judged

    def _slower(self, point: Point) -> str:
        """Describe that a point was measured slower, if latency is an objective; "" if it was not."""
        speedup = point.metrics.get("speedup")
        if speedup is None or speedup.high is None or self.scale.is_noisy:
            return ""
        if "latency_ms" not in {o.name for o in self.objectives} or speedup.high >= 1.0 - max(TIE, self.scale.floor):
            return ""
        return f"measured slower than the original, {speedup.value:.2f} times as fast"

    def _not_comparable(self, number: int) -> Judgement | None:
        """Judge a point that is not verified, or whose baselines are not; None where all is there to compare it."""
        verified, found = self.run.state.verified, self.run.state.verified.get(number)
        if found is None or found.reason is not None:
            note = "not verified yet" if found is None else f"not verified: {found.reason}"
            return Judgement(obstacle="unverified", note=note)
        if lost := self.chosen.lost.get(number):
            return Judgement(obstacle="lost", note=f"its baseline {self._name(lost[0].number)} could not be evaluated")
        for rival in self.chosen.rivals.get(number, ()):
            if rival.number not in verified:
                return self._pending(f"its baseline {self._name(rival.number)} is not verified yet")
            if verified[rival.number].reason is not None:
                note = f"its baseline {self._name(rival.number)} could not be verified"
                return Judgement(obstacle="lost", note=note)
        if not self.scale.usable:
            return Judgement(obstacle="noisy", note="no ★ on latency: two loads of the original differ by as much")
        return None

    def _compared(self, number: int, adjusted: Mapping[int, float]) -> Judgement:
        """Judge a point that is verified, as its baselines are."""
        duel = self.duels[number]
        if duel.rival is None:
            return Judgement(obstacle="no rival", note=self._without_rival(duel))
        verdict = self._verdict(duel.point, duel.rival)
        if verdict is None:
            return self._pending(f"not compared with {duel.rival.name} yet")
        rival = Rival(
            id=duel.rival.id, label=duel.rival.label, difference=verdict.difference, low=verdict.low,
            high=verdict.high, p_value=adjusted[number],
        )  # fmt: skip
        judged = self._against_rival(duel, duel.rival, rival) or self._against_neighbours(duel)
        return replace(judged or self._by_gain(duel, duel.rival, rival), rival=rival)

    def _against_rival(self, duel: Duel, beaten: Point, rival: Rival) -> Judgement | None:
        """Judge a point that does not beat the best baseline that costs no more; None where it does."""
        of = self._named(beaten, duel.point)
        if rival.p_value > SIGNIFICANCE and rival.difference < 0:
            lead = self._amount(-rival.difference, -rival.high, -rival.low, beaten)
            how = "is better by" if rival.high < 0 else "is as good within noise, ahead by"
            return Judgement(obstacle="not better", note=f"{of} {how} {lead}")
        if rival.p_value > SIGNIFICANCE:
            lead = self._amount(rival.difference, rival.low, rival.high, beaten)
            return Judgement(
                obstacle="not better", note=f"lead over {of} not confirmed: {lead}, p = {rival.p_value:.2g}"
            )
        farther = self._farther(duel.point, beaten)
        return Judgement(obstacle="farther", note=farther) if farther else None

    def _against_neighbours(self, duel: Duel) -> Judgement | None:
        """Judge a point to which a baseline within 10 % more cost is preferable; None where there is none."""
        for near in duel.neighbours:
            verdict = self._verdict(near, duel.point)
            if verdict is None:
                return self._pending(f"not compared with {near.name} yet")
            if verdict.p_value <= SIGNIFICANCE:
                lead = self._amount(verdict.difference, verdict.low, verdict.high, duel.point)
                return Judgement(obstacle="neighbour", note=f"{self._named(near, duel.point)} is better by {lead}")
        return None

    def _by_gain(self, duel: Duel, beaten: Point, rival: Rival) -> Judgement:
        """Judge a point that beats its baselines, by how much that is."""
        lead = self._amount(rival.difference, rival.low, rival.high, beaten)
        words, saving = f"better than {self._named(beaten, duel.point)} by {lead}", self._saving(duel)
        if rival.difference < self.least.over(beaten.metrics[self.metric].value) and not saving:
            return Judgement(obstacle="small", note=f"{words} only, which is less than is worth telling")
        return Judgement(obstacle="", note=f"{words}{saving}")

    def _saving(self, duel: Duel) -> str:
        """Describe what a point saves against a dearer baseline that is as good; "" if that is not worth telling."""
        if duel.equal is None or self.scale.saving(duel.point.metrics, duel.equal.metrics) < LEAST_SAVING:
            return ""
        against = self._verdict(duel.equal, duel.point)
        if against is None or against.p_value <= SIGNIFICANCE:
            return ""
        return f"; as good as {self._named(duel.equal, duel.point)}"

    def _without_rival(self, duel: Duel) -> str:
        words = "cheaper than every baseline"
        if duel.cheapest is not None:
            words += f", of which {self._named(duel.cheapest, duel.point)} is the nearest"
        verdict = self._verdict(duel.point, duel.original) if duel.original is not None else None
        if duel.original is None or verdict is None:
            return words
        if verdict.difference >= 0:
            lead = self._amount(verdict.difference, verdict.low, verdict.high, duel.original)
            return f"{words}; it loses nothing against the original, and is better by {lead}"
        loss = self._amount(-verdict.difference, -verdict.high, -verdict.low, duel.original)
        return f"{words}; against the original it loses {loss}"

    def _farther(self, point: Point, baseline: Point) -> str:
        """Reason against a point of a model with several outputs that buys the metric's output with the others; ""
        else.

        All outputs together, on the report split, must not be farther from the original's than the baseline's.
        """
        mine, theirs = (each.metrics.get("divergence") for each in (point, baseline))
        facts = self.run.state.facts
        if facts is None or len(facts.outputs) < 2 or mine is None or theirs is None or mine.value <= theirs.value:
            return ""
        return (
            f"all outputs together are farther from the original's than those of {baseline.name} "
            f"({mine.value:.3g} against {theirs.value:.3g})"
        )

    def _verdict(self, one: Point, other: Point) -> Verdict | None:
        return self.run.state.verdicts.get((one.number, other.number))

    def _pending(self, note: str) -> Judgement:
        """A comparison that is still to come; of a run that ended it comes with `resume`."""
        if self.run.state.ended == "done" and self.can_compare:
            note = f"{note}: `{command('resume', self.run.path)}` does it"
        return Judgement(obstacle="pending", note=note)

    def _name(self, number: int) -> str:
        return self.points[number].name if number in self.points else f"t{number}"

    def _named(self, baseline: Point, point: Point) -> str:
        """Name of a baseline, with its costs beside the point's: `uniform w4 a8 (t2; bytes -3.1 %)`."""
        costs = self.scale.words(baseline.metrics, point.metrics)
        return f"{baseline.name[:-1]}; {costs})" if baseline.name.endswith(")") else f"{baseline.name} ({costs})"

    def _amount(self, difference: float, low: float, high: float, baseline: Point) -> str:
        """A difference in words, with its interval: `1.53 points of accuracy [0.90, 2.10]`."""
        measured = baseline.metrics[self.metric]
        if measured.unit == "fraction" or self.metric == "accuracy":
            return f"{100 * difference:.2f} points of {self.metric} [{100 * low:.2f}, {100 * high:.2f}]"
        share = f", {100 * difference / abs(measured.value):.1f} %" if measured.value and self.least.is_relative else ""
        return f"{difference:.4g} of {self.metric} [{low:.3g}, {high:.3g}]{share}"


def describe_no_star(judged: Mapping[int, Judgement]) -> str:
    """Reason why no point has a star, in one line; "" where one has."""
    if any(not judgement.obstacle for judgement in judged.values()):
        return ""
    if not judged:
        return "no ★: the front has no mixed point"
    if all(judgement.note == "not verified yet" for judgement in judged.values()):
        return "no ★ yet: no mixed point is verified"
    counted = Counter(judgement.obstacle for judgement in judged.values())
    parts = [f"{n} {'is' if n == 1 else 'are'} {_SUMMARY[obstacle]}" for obstacle, n in counted.most_common()]
    parts = [part.replace(" is would", " would").replace(" are would", " would") for part in parts]
    return f"no ★: of {len(judged)} mixed points {'; '.join(parts)}"


def holm(p_values: Mapping[int, float]) -> dict[int, float]:
    """Return adjusted p-values that keep the family-wise error (Holm 1979)."""
    ordered = sorted(p_values.items(), key=lambda item: (item[1], item[0]))
    steps = [min(1.0, p * (len(ordered) - i)) for i, (_, p) in enumerate(ordered)]
    return {number: p for (number, _), p in zip(ordered, itertools.accumulate(steps, max), strict=True)}
