"""EvoPress: one parent, level switches that keep the budget, selection in stages (Sieberling et al. 2024).

A generation makes `offspring` children of one parent, each by min(U{1..3}, U{1..3}) switches: one layer a level up,
another a level down. They are compared on few samples, the best of them on more, and the last one with the parent on
the whole split. Stages are the published ones for quantization, 2k : 16k : 131k tokens, as shares of the split.

Different here: layers differ in size, and the switch is made between any two of them so long as the budget is kept (the
published one pairs layers of one size, which here would leave four layers of ResNet-20 as they are); what is then left
of the budget is given to layers at random. A layer's levels are those that no other beats in bytes and weight error.
The start is the largest uniform place within the budget, filled up at random, the best of `offspring` on few samples.
"""

from __future__ import annotations

import numpy as np

from ..lab import Lab, Levels
from ._programme import budgets_between

N_BUDGETS = 8
STAGES = ((1 / 16, 4), (1 / 4, 1))
"""(share of the split, how many go on)."""
MIN_SAMPLES = 8


def evopress(
    lab: Lab, rng: np.random.Generator, *, n_budgets: int = N_BUDGETS, offspring: int = 16,
    stages: tuple[tuple[float, int], ...] = STAGES,
) -> None:  # fmt: skip
    ladders = [lab.ladder(g) for g in range(lab.n_groups)]
    cheapest = lab.bytes_of(tuple(ladder[-1] for ladder in ladders))
    dearest = lab.bytes_of(tuple(ladder[0] for ladder in ladders))
    budgets = budgets_between(cheapest, dearest, n_budgets)
    parents: list[Levels] = []
    for budget in budgets:
        starts = [_start(lab, rng, ladders, budget) for _ in range(offspring)]
        parents.append(_select(lab, starts, stages, int(rng.integers(1 << 30))))
        lab.full(parents[-1])
    while True:
        for place, budget in enumerate(budgets):
            parent = parents[place]
            children = [_child(lab, rng, ladders, parent, budget) for _ in range(offspring)]
            children = [child for child in dict.fromkeys(children) if child != parent]
            if not children:
                continue
            best = _select(lab, children, stages, int(rng.integers(1 << 30)))
            if lab.full(best) <= lab.full(parent):
                parents[place] = best


def _select(lab: Lab, candidates: list[Levels], stages: tuple[tuple[float, int], ...], draw: int) -> Levels:
    """The best of the last stage. Each stage is another draw of the samples, the same for all that meet in it."""
    for stage, (share, kept) in enumerate(stages):
        n = max(MIN_SAMPLES, round(share * lab.n_samples))
        ranked = sorted((lab.part(levels, n, draw + stage), i) for i, levels in enumerate(candidates))
        candidates = [candidates[i] for _, i in ranked[:kept]]
    return candidates[0]


def _start(lab: Lab, rng: np.random.Generator, ladders: list[list[int]], budget: float) -> Levels:
    length = max(map(len, ladders))
    for place in range(length):  # from the dearest
        places = [min(len(ladder) - 1, round(place / max(1, length - 1) * (len(ladder) - 1))) for ladder in ladders]
        if lab.bytes_of(_levels(ladders, places)) <= budget:
            break
    return _filled(lab, rng, ladders, places, budget)


def _child(lab: Lab, rng: np.random.Generator, ladders: list[list[int]], parent: Levels, budget: float) -> Levels:
    places = [ladder.index(level) for ladder, level in zip(ladders, parent, strict=True)]
    for _ in range(int(min(rng.integers(1, 4), rng.integers(1, 4)))):
        up = [g for g, place in enumerate(places) if place > 0]
        if not up:
            break
        raised = int(rng.choice(up))
        places[raised] -= 1
        while lab.bytes_of(_levels(ladders, places)) > budget:
            down = [g for g, place in enumerate(places) if place < len(ladders[g]) - 1 and g != raised]
            if not down:
                places[raised] += 1
                break
            places[int(rng.choice(down))] += 1
    return _filled(lab, rng, ladders, places, budget)


def _filled(lab: Lab, rng: np.random.Generator, ladders: list[list[int]], places: list[int], budget: float) -> Levels:
    """Layers in a random order get a level more while it fits."""
    for g in rng.permutation(len(places)).tolist():
        while places[g] > 0:
            places[g] -= 1
            if lab.bytes_of(_levels(ladders, places)) > budget:
                places[g] += 1
                break
    return _levels(ladders, places)


def _levels(ladders: list[list[int]], places: list[int]) -> Levels:
    return tuple(ladder[place] for ladder, place in zip(ladders, places, strict=True))
