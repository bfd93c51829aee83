"""AMQ: screening, a surrogate of what was evaluated, and NSGA-II on the surrogate (Lee et al. 2025, "AMQ: Enabling
AutoML for Mixed-precision Weight-Only Quantization"; github.com/dlwns147/amq).

Each layer alone is evaluated at its lowest level. Layers whose divergence is more than twice the median stay at their
dearest level. A first design of random candidates, beside the uniform settings, makes the archive. Then, in turns: a
radial basis function (cubic, with a linear tail) is fitted to the archive; NSGA-II, begun from the archive's front,
runs 20 generations on (predicted divergence, bytes); and those of its candidates are evaluated that fill the gaps of
the front.

Different here: 250 + 200 x 50 evaluations become a fifth of what may be spent and turns of a tenth. The screening costs
a fifth at most, on 8 samples at least. The surrogate predicts the logarithm of the divergence; until there are points
enough for a linear tail it is linear in the distance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from paredown.search.values import non_dominated

from ..lab import Lab, Levels

THRESHOLD = 2.0
SCREEN_SHARE, DESIGN_SHARE, TURN_SHARE, MIN_SAMPLES = 0.2, 0.2, 0.1, 8
POPULATION, GENERATIONS, CROSSOVER, MUTATION = 100, 20, 0.9, 0.1
PATIENCE = 20

Genes = NDArray[np.int64]
"""Places in the ladders, shape (candidates, groups)."""
Scores = Callable[[Genes], NDArray[np.float64]]
"""Of candidates: (predicted divergence, bytes), shape (candidates, 2)."""


def amq(lab: Lab, rng: np.random.Generator) -> None:
    whole = (lab.budget - lab.spent) / lab.n_samples
    ladders = _screened(lab)
    longest = np.array([len(ladder) for ladder in ladders])
    places = [{level: place for place, level in enumerate(ladder)} for ladder in ladders]
    archive = {
        tuple(place[level] for place, level in zip(places, levels, strict=True)): value
        for levels, value in lab.told().items()
        if all(level in place for place, level in zip(places, levels, strict=True))
    }

    def evaluate(genes: Genes) -> None:
        for row in genes:
            archive[tuple(int(x) for x in row)] = lab.full(_levels(ladders, row))

    ends = np.stack([np.zeros(lab.n_groups, dtype=np.int64), longest - 1])
    evaluate(np.concatenate([ends, rng.integers(0, longest, (max(2, round(DESIGN_SHARE * whole)), lab.n_groups))]))
    idle = 0
    while idle < PATIENCE:
        known = len(archive)
        evaluate(_proposed(lab, rng, ladders, archive, max(1, round(TURN_SHARE * whole))))
        idle = 0 if len(archive) > known else idle + 1


def _screened(lab: Lab) -> list[list[int]]:
    """The ladders; those of the most sensitive layers have one place, the dearest."""
    ladders = [lab.ladder(g) for g in range(lab.n_groups)]
    base: Levels = tuple(ladder[0] for ladder in ladders)
    n = max(MIN_SAMPLES, int(SCREEN_SHARE * (lab.budget - lab.spent) / lab.n_groups))
    alone = np.array([lab.part((*base[:g], ladder[-1], *base[g + 1 :]), n, 0) for g, ladder in enumerate(ladders)])
    kept = alone <= THRESHOLD * float(np.median(alone))
    return [ladder if is_kept else ladder[:1] for ladder, is_kept in zip(ladders, kept, strict=True)]


def _proposed(
    lab: Lab, rng: np.random.Generator, ladders: list[list[int]], archive: dict[tuple[int, ...], float], n: int
) -> Genes:
    genes = np.array(list(archive))
    divergence = np.array(list(archive.values()))
    known = np.isfinite(divergence)
    genes, target = genes[known], np.log(np.maximum(divergence[known], 1e-12))
    top = np.maximum(1, np.array([len(ladder) - 1 for ladder in ladders]))
    model = _surrogate(genes / top, target)

    def scores(rows: Genes) -> NDArray[np.float64]:
        size = [lab.bytes_of(_levels(ladders, row)) for row in rows]
        return np.column_stack([model(rows / top), size])

    front = genes[non_dominated(np.column_stack([target, scores(genes)[:, 1]]))]
    found = _evolved(rng, front, np.array([len(ladder) for ladder in ladders]), scores)
    new = np.array([row for row in found if tuple(int(x) for x in row) not in archive]).reshape(-1, lab.n_groups)
    return new[_gap_fillers(scores(new)[:, 1], scores(front)[:, 1], n)] if len(new) else new


def _surrogate(x: NDArray[np.float64], y: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """With a linear tail where there are enough points for one; axes that do not vary are no obstacle then."""
    varies = np.ptp(x, axis=0) > 0
    tail = 1 if len(x) > int(varies.sum()) + 1 and np.linalg.matrix_rank(_with_ones(x[:, varies])) > varies.sum() else 0
    inner = RBFInterpolator(x[:, varies], y, kernel="cubic" if tail else "linear", degree=tail, smoothing=1e-6)
    return lambda rows: inner(rows[:, varies])


def _with_ones(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(x)), x])


def _evolved(rng: np.random.Generator, front: Genes, longest: NDArray[np.int64], scores: Scores) -> Genes:
    """NSGA-II: tournaments, uniform crossover, random resetting; survival by front and crowding."""
    fill = rng.integers(0, longest, (max(0, POPULATION - len(front)), len(longest)))
    population = np.unique(np.concatenate([front, fill]), axis=0)
    value = scores(population)
    for _ in range(GENERATIONS):
        rank = _ranks(value)
        pairs = rng.integers(0, len(population), (POPULATION, 2, 2))
        parents = np.where(rank[pairs[..., 0]] <= rank[pairs[..., 1]], pairs[..., 0], pairs[..., 1])
        mixed = rng.random((POPULATION, len(longest))) < 0.5
        mixed &= (rng.random(POPULATION) < CROSSOVER)[:, None]
        children = np.where(mixed, population[parents[:, 1]], population[parents[:, 0]])
        reset = rng.random(children.shape) < MUTATION
        children = np.where(reset, rng.integers(0, longest, children.shape), children)
        population = np.unique(np.concatenate([population, children]), axis=0)
        value = scores(population)
        kept = np.argsort(_ranks(value), kind="stable")[:POPULATION]
        population, value = population[kept], value[kept]
    return population[non_dominated(value)]


def _ranks(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number of the front, plus a share below 1 that is the less the lonelier a candidate is in its front."""
    rank, left, number = np.zeros(len(value)), np.arange(len(value)), 0
    while len(left):
        first = left[non_dominated(value[left])]
        order = first[np.argsort(value[first, 0], kind="stable")]
        crowd = np.full(len(order), np.inf)
        if len(order) > 2:
            span = np.maximum(np.ptp(value[order], axis=0), 1e-12)
            crowd[1:-1] = (np.abs(value[order[2:]] - value[order[:-2]]) / span).sum(axis=1)
        rank[order] = number + 0.5 / (1.0 + crowd)
        left = np.setdiff1d(left, first)
        number += 1
    return rank


def _gap_fillers(sizes: NDArray[np.float64], front: NDArray[np.float64], n: int) -> list[int]:
    """Of the candidates so many that lie farthest in bytes from the front and from one another."""
    taken: list[int] = []
    distance = np.abs(sizes[:, None] - front[None, :]).min(axis=1)
    for _ in range(min(n, len(sizes))):
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(sizes - sizes[taken[-1]]))
        distance[taken] = -1.0
    return taken


def _levels(ladders: list[list[int]], places: Genes) -> Levels:
    return tuple(ladder[int(place)] for ladder, place in zip(ladders, places, strict=True))
