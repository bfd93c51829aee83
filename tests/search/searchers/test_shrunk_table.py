"""Shrinkage of the table towards the gradients' estimate, and the proxies of the default searcher."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from paredown.compressors import LayerSpec
from paredown.search import Candidate, SearchSpace, SensitivityTable
from paredown.search.searchers import Budget, EvolutionSearcher, SearchContext, Surrogate, shrunk_table
from paredown.search.values import Group
from paredown.testing import SyntheticProblem

NEUTRAL, WIDTHS = LayerSpec(), (8, 6, 4, 3, 2)


def _space(n_groups: int, *, neutral: bool) -> SearchSpace:
    levels = tuple(LayerSpec(weight_bits=bits) for bits in WIDTHS)
    levels = (NEUTRAL, *levels) if neutral else levels
    return SearchSpace(groups=tuple(Group(name=f"g{g}", layers=(f"g{g}",), levels=levels) for g in range(n_groups)))


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def _table(value: np.ndarray, stderr: np.ndarray, n: np.ndarray, elements: np.ndarray) -> SensitivityTable:
    counts = tuple(tuple(int(count) for count in row) for row in n.tolist())
    return SensitivityTable(
        divergence=_rows(value), costs={}, fixed={}, stderr=_rows(stderr), n=counts,
        proxies={"elements": _rows(elements)},
    )  # fmt: skip


def _errors(found: np.ndarray, truth: np.ndarray) -> float:
    """Spread of the log errors, without a factor common to all."""
    return float(np.std(np.log(found) - np.log(truth)))


@pytest.mark.parametrize("neutral", [True, False])
@pytest.mark.parametrize("relative", [0.1, 0.6, 1.5])
def test_shrunk_rows_are_nearer_to_the_truth_than_rows_and_estimate(*, neutral: bool, relative: float) -> None:
    rng = np.random.default_rng(0)
    space = _space(40, neutral=neutral)
    ladder = 4.0 ** -np.array([14.0, *WIDTHS] if neutral else WIDTHS)
    truth = ladder * np.exp(rng.normal(size=(40, 1))) * np.exp(0.2 * rng.normal(size=(40, len(ladder))))
    elements = 3.0 * truth * np.exp(rng.normal(0.0, 0.35, (40, 1)) + rng.normal(0.0, 0.35, truth.shape))
    offset = 0.0
    if neutral:
        truth[:, 0] = elements[:, 0] = 0.0
    else:
        offset = float(truth[:, 0].sum())
    noisy = np.where(truth > 0, truth * np.exp(relative * rng.normal(size=truth.shape)), 0.0)
    value = noisy + offset
    if not neutral:
        value[:, 0] = offset
    table = _table(value, relative * noisy, np.full(truth.shape, 32), elements)
    found = np.array(shrunk_table(table, space).divergence)
    own, given = found[:, 1:] - found[:, :1], truth[:, 1:] - truth[:, :1]
    assert _errors(own, given) < 1.02 * _errors(noisy[:, 1:], truth[:, 1:])
    assert _errors(own, given) < 1.1 * _errors(elements[:, 1:] - elements[:, :1], given)
    assert (np.diff(found, axis=1) > 0).mean() >= (np.diff(value, axis=1) > 0).mean()


def test_the_base_counts_once_for_each_group_and_not_in_every_row() -> None:
    space = _space(3, neutral=False)
    elements = np.outer([1.0, 2.0, 3.0], [1.0, 4.0, 16.0, 64.0, 256.0])
    value = elements - elements[:, :1] + elements[:, 0].sum()  # each row: what all groups at 8 bits do, and the rest
    found = shrunk_table(_table(value, 1e-3 * value, np.full(value.shape, 512), elements), space)
    assert np.array(found.divergence) == pytest.approx(elements, rel=0.01)


def test_failed_rows_stay_infinite_and_rows_without_an_estimate_stay() -> None:
    space = _space(3, neutral=True)
    elements = np.tile([0.0, 0.1, 0.2, 0.4, 0.8, 1.6], (3, 1))
    value, n = elements.copy(), np.full(elements.shape, 32)
    value[0, 2], value[1, 3], elements[1, 3], n[2, 1] = math.inf, 7.0, math.nan, 0
    stderr = 0.01 * np.where(np.isfinite(value), value, math.nan)
    found = np.array(shrunk_table(_table(value, stderr, n, elements), space).divergence)
    assert found[0, 2] == math.inf
    assert found[1, 3] == 7.0
    assert found[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert found[2, 1] == pytest.approx(0.1, rel=0.05)  # it was not measured: by the estimate


def test_without_an_estimate_or_without_errors_the_table_stays() -> None:
    table = SyntheticProblem(seed=0).table
    assert shrunk_table(table, SyntheticProblem(seed=0).space) is table
    space, ones = _space(2, neutral=True), np.ones((2, 6))
    assert shrunk_table(bare := replace(_table(ones, ones, ones, ones), stderr=()), space) is bare


def test_nothing_measured_is_the_estimate() -> None:
    elements = np.outer([1.0, 5.0], [0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
    blank = _table(elements, np.full(elements.shape, math.inf), np.zeros(elements.shape), elements)
    found = np.array(shrunk_table(blank, _space(2, neutral=True)).divergence)
    assert found == pytest.approx(elements, rel=1e-6)


def _misled(seed: int, *, proxies: bool) -> tuple[SyntheticProblem, SearchContext]:
    """A problem whose table is noise, with a proxy that is right (in another unit) and one that is noise too."""
    problem = SyntheticProblem(seed=seed)
    true = np.array(problem.table.divergence)
    noise = [true * np.exp(np.random.default_rng(draw).normal(0.0, 1.5, true.shape)) for draw in (1, 2)]
    named = {"noise": _rows(noise[1]), "right": _rows(40.0 * true)} if proxies else {}
    table = replace(problem.table, divergence=_rows(noise[0]), proxies=named)
    return problem, replace(problem.context(0), table=table)


@pytest.mark.parametrize("n", [12, 60])
def test_results_say_which_proxy_foretells(n: int) -> None:
    errors = np.zeros((3, 2))
    for i in range(3):
        for j, proxies in enumerate((True, False)):
            problem, context = _misled(3 + i, proxies=proxies)
            rng = np.random.default_rng(5)
            rows = rng.binomial(np.array(context.space.n_levels) - 1, rng.random((260, 1)))
            trials = [problem.trial(0, Candidate(levels=tuple(row))) for row in rows.tolist()]
            values = np.array([context.vector(trial) for trial in trials])
            surrogate = Surrogate(context)
            surrogate.fit(rows[:n], values[:n])
            wrong = surrogate.predict(rows[60:])[:, 0] - surrogate.scale(values[60:])[:, 0]
            errors[i, j] = np.sqrt(np.mean(wrong**2))
    with_them, without = errors.mean(axis=0)
    assert with_them < 0.8 * without


def test_sweeps_of_the_proxies_are_looked_at_early_and_bred_from() -> None:
    problem, context = _misled(3, proxies=True)
    searcher = EvolutionSearcher(context)
    right = set(Budget(context).first_by_proxy(64)[1])
    found = []
    for number in range(40):
        (candidate,) = searcher.ask(1)
        searcher.tell([problem.trial(number, candidate)])
        if candidate.levels in right:
            found.append(number)
    assert found[0] < 8
    assert len(found) >= 4
