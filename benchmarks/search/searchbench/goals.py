"""From traces and cost figures to the table of goals: what was asked for, what came out, met or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .play import ASSISTED, OWN
from .problems import PROBLEMS
from .traces import Trace

CHECKPOINTS = (25, 50, 100, 200, 300, 500, 1000)
AT = 100.0
"""Full evaluations at which the front is judged."""
FAR = 20.0
"""The union front may have cost so many times more."""
SUBSETS = (40, 80)
"""Of the union front so many points are taken, as well as can be: more than 80 no searcher can pay for at `AT`."""
RIVALS_COST = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """figure  what came out; None if it was not measured (or not far enough: `note` says why)
    low, high  the range of the seeds, or a 95 % interval
    is_met     None where there is no figure, or it cannot be judged yet
    """

    what: str
    where: str
    wanted: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    is_met: bool | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def by_problem(traces: Iterable[Trace]) -> dict[str, list[Trace]]:
    """Problem -> its traces, in the order of `PROBLEMS`."""
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        found.setdefault(trace.problem, []).append(trace)
    known = list(PROBLEMS)
    return dict(sorted(found.items(), key=lambda item: (known.index(item[0]) if item[0] in known else 99, item[0])))


def union_volume(traces: Sequence[Trace], instance: int, evaluations: float) -> float:
    """Hypervolume of all that anybody found on that instance, up to that cost for each run."""
    there = [trace for trace in traces if trace.instance == instance]
    return there[0].box.volume(np.concatenate([trace.front_at(evaluations) for trace in there]))


def best_subset(points: NDArray[np.float64], n: int) -> float:
    """The most hypervolume that n of the points (k, 2) have, in the unit square: what can be had at best with so few.

    Exact, by dynamic programming from the right end of the front (Auger 2009).
    """
    order = points[np.lexsort((points[:, 1], points[:, 0]))]
    order = order[(order < 1.0).all(axis=1)]
    lowest = np.minimum.accumulate(order[:, 1])
    front = order[np.concatenate(([True], lowest[1:] < lowest[:-1]))]
    x, height = front[:, 0], 1.0 - front[:, 1]
    most = (1.0 - x) * height  # with the point as the first of those that are taken, one in all
    for _ in range(min(n, len(front)) - 1):
        later = [((x[i + 1 :] - x[i]) * height[i] + most[i + 1 :]).max(initial=most[i]) for i in range(len(front))]
        most = np.maximum(most, later)
    return float(most.max(initial=0.0))


def share_of_union(traces: Sequence[Trace]) -> Goal:
    """The default searcher's hypervolume at the cost of 100 evaluations over that of the union front."""
    problem = traces[0].problem
    goal: dict[str, Any] = {
        "what": "hypervolume after 100 evaluations, of the union front",
        "where": problem,
        "wanted": "≥ 99 %",
    }
    own = [trace for trace in traces if trace.searcher == OWN]
    if not own:
        return Goal(**goal, note=f"{OWN} has no run there")
    shares = [t.volume_at(AT) / union_volume(traces, t.instance, AT * FAR) for t in own]
    longest = max(trace.evaluations for trace in traces)
    note = f"{len(own)} seeds; union of {len(traces)} runs of up to {longest:.0f} evaluations"
    whole = union_volume(traces, own[0].instance, AT * FAR)
    there = [trace.front_at(AT * FAR) for trace in traces if trace.instance == own[0].instance]
    some = {n: best_subset(own[0].box.scaled(np.concatenate(there)), n) / whole for n in SUBSETS}
    note += "; of its points the best " + ", ".join(f"{n} have {100 * share:.1f} %" for n, share in some.items())
    figure = median(shares)
    return Goal(**goal, figure=figure, low=min(shares), high=max(shares), is_met=figure >= 0.99, note=note)


def cost_of_the_best(traces: Sequence[Trace], *, assisted: bool = False) -> Goal:
    """What the default searcher pays for the hypervolume that the best rival reaches with 1,000 evaluations, as a share
    of what that rival paid. `assisted` lets those take part that are handed the sweep."""
    problem = traces[0].problem
    whom = "best rival, those with our sweep too," if assisted else "best rival"
    goal: dict[str, Any] = {
        "what": f"cost to reach what the {whom} has after 1,000",
        "where": problem,
        "wanted": "≤ 0.1",
    }
    own = [trace for trace in traces if trace.searcher == OWN]
    best = _best_rival(traces, lambda t: t.volume_at(RIVALS_COST), assisted=assisted)
    if not own or best is None:
        return Goal(**goal, note="no runs to compare")
    name, _ = best
    paid = min(RIVALS_COST, median(t.evaluations for t in traces if t.searcher == name))
    allowed = min(float(t.context.get("budget", t.evaluations)) for t in traces if t.searcher == name)
    reached: dict[int, list[float]] = {t.instance: [] for t in traces if t.searcher == name}
    for trace in traces:
        if trace.searcher == name:
            reached[trace.instance].append(trace.volume_at(RIVALS_COST))
    costs = [t.cost_to_reach(median(reached[t.instance])) / RIVALS_COST for t in own if t.instance in reached]
    figure = median(costs)
    spent = (
        f"which ends by itself after {paid:.0f}"
        if paid < 0.99 * min(allowed, RIVALS_COST)
        else f"{paid:.0f} evaluations each"
    )
    note = f"best rival {name}, {spent}; {len(costs)} seeds"
    if math.isinf(figure):
        farthest = max(t.evaluations for t in own) / RIVALS_COST
        return Goal(**goal, is_met=False, note=f"{note}; not reached at {farthest:.2f}")
    high = max(costs)
    is_met: bool | None = figure <= 0.1
    if allowed < 0.99 * RIVALS_COST:  # the rivals may have had more to find
        is_met, note = None, f"{note}; not judged, for that is less than 1,000"
    return Goal(
        **goal, figure=figure, low=min(costs), high=None if math.isinf(high) else high, is_met=is_met,
        note=note + ("; not reached by every seed" if math.isinf(high) else ""),
    )  # fmt: skip


def never_below(traces: Sequence[Trace]) -> Goal:
    """The least lead over the best rival at equal cost, in hypervolume, at the checkpoints that both have reached."""
    problem = traces[0].problem
    goal: dict[str, Any] = {
        "what": "lead over the best rival at equal cost, the least of all checkpoints",
        "where": problem,
        "wanted": "≥ 0",
    }
    own = [trace for trace in traces if trace.searcher == OWN]
    if not own:
        return Goal(**goal, note=f"{OWN} has no run there")
    leads: dict[int, tuple[float, str]] = {}
    for checkpoint in CHECKPOINTS:
        if median(t.evaluations for t in own) < 0.95 * checkpoint:
            continue
        best = _best_rival(traces, lambda t, at=checkpoint: t.volume_at(at), assisted=False)  # type: ignore[misc]
        if best is not None:
            leads[checkpoint] = (median(t.volume_at(checkpoint) for t in own) - best[1], best[0])
    if not leads:
        return Goal(**goal, note="no runs to compare")
    worst = min(leads, key=lambda at: leads[at][0])
    lead, name = leads[worst]
    note = f"at {worst} evaluations, before {name}; checkpoints {', '.join(map(str, leads))}"
    return Goal(**goal, figure=lead, is_met=lead >= 0.0, note=note)


def _best_rival(
    traces: Sequence[Trace], score: Callable[[Trace], float], *, assisted: bool
) -> tuple[str, float] | None:
    """The rival whose median over its seeds is the best: (name, median)."""
    scores: dict[str, list[float]] = {}
    for trace in traces:
        if trace.searcher != OWN and (assisted or trace.searcher not in ASSISTED):
            scores.setdefault(trace.searcher, []).append(score(trace))
    medians = {name: median(values) for name, values in scores.items()}
    return max(medians.items(), key=lambda item: item[1]) if medians else None


def of_traces(traces: Iterable[Trace]) -> list[Goal]:
    """The goals that are about fronts."""
    goals: list[Goal] = []
    for name, found in by_problem(traces).items():
        spec = PROBLEMS.get(name)
        if spec is None or spec.is_main:
            goals += [share_of_union(found), cost_of_the_best(found), cost_of_the_best(found, assisted=True)]
        if spec is not None and spec.is_strong:
            goals.append(never_below(found))
    return goals


LIMITS: Mapping[str, tuple[str, str, float]] = {
    "ask_ms": ("`ask` at 400 groups after 10,000 trials, ms", "≤ 5", 5.0),
    "trial_over_forward": ("a trial over the pure forward passes of the same batches", "≤ 1.05", 1.05),
    "own_work": ("the search's own work in a 300-trial search of ResNet-20", "≤ 3 %", 0.03),
    "search_over_evaluations": ("wall clock of 300 trials over 300 full evaluations", "≤ 0.3", 0.3),
    "own_work_512": ("own work, on 512 images", "≤ 3 %", 0.03),
    "search_over_evaluations_512": ("wall clock over evaluations, on 512 images", "≤ 0.3", 0.3),
    "store_s": ("store for all layers × all levels, two workers, s", "≤ 60", 60.0),
    "store_again": ("variants that a second search on the same model builds", "0", 0.0),
    "memory": ("a worker's memory over the model's size", "≤ 1.5", 1.5),
}
"""Key of a cost figure -> what it is, what is wanted, and the largest value that meets it."""


def of_costs(costs: Mapping[str, Mapping[str, Any]]) -> list[Goal]:
    """The goals that `costs.py` measures; what is not there stands without a figure."""
    goals = []
    for key, (what, wanted, largest) in LIMITS.items():
        found = costs.get(key)
        if found is None:
            goals.append(Goal(what=what, where="", wanted=wanted, note="not measured yet"))
            continue
        figure = float(found["figure"])
        goals.append(
            Goal(
                what=what,
                where=found.get("where", ""),
                wanted=wanted,
                figure=figure,
                low=found.get("low"),
                high=found.get("high"),
                is_met=figure <= largest,
                note=found.get("note", ""),
            )
        )
    return goals


def markdown(goals: Sequence[Goal]) -> str:
    """The table of goals."""
    lines = ["| what | where | goal | figure | range | met |", "|---|---|---|---|---|---|"]
    for goal in goals:
        interval = "" if goal.low is None or goal.high is None else f"{goal.low:.4g} … {goal.high:.4g}"
        figure = "–" if goal.figure is None else f"{goal.figure:.4g}"
        met = {True: "yes", False: "**no**", None: "–"}[goal.is_met]
        note = f" ({goal.note})" if goal.note else ""
        lines.append(f"| {goal.what}{note} | {goal.where} | {goal.wanted} | {figure} | {interval} | {met} |")
    return "\n".join(lines) + "\n"


def volumes(traces: Sequence[Trace]) -> str:
    """One problem's hypervolumes (medians over the seeds) at the checkpoints, as a table; – where nobody got so far."""
    names = sorted({t.searcher for t in traces}, key=lambda name: (name != OWN, name))
    lines = ["| searcher | seeds | " + " | ".join(map(str, CHECKPOINTS)) + " |", "|---" * (len(CHECKPOINTS) + 2) + "|"]
    for name in names:
        own = [t for t in traces if t.searcher == name]
        budget = median(float(t.context.get("budget", t.evaluations)) for t in own)
        cells = [f"{median(t.volume_at(at) for t in own):.4f}" if at <= budget * 1.001 else "–" for at in CHECKPOINTS]
        lines.append(f"| {name} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
