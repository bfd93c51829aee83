"""The joint effect of layers, from the effect of each alone."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.compressors import LayerSpec
from paredown.search import Group, SearchContext, SearchSpace
from paredown.search.searchers import Surrogate
from paredown.search.values import Objective, OutputPerturbations, SensitivityTable, Superposition


def _mse(rows: list[list[list[float]]], base: list[float] | None = None) -> OutputPerturbations:
    size = len(rows[0][0])
    return OutputPerturbations(
        kind="mse",
        reference=np.zeros((size, 1), dtype=np.float32),
        base=np.array(base or [0.0] * size, dtype=np.float32),
        rows=tuple(np.array(row, dtype=np.float32) for row in rows),
    )


def test_perturbations_the_same_way_do_more_and_against_each_other_less() -> None:
    perturbations = _mse([[[0, 0], [2, 0]], [[0, 0], [2, 0], [-2, 0], [0, 2]]])
    both = Superposition(perturbations, ((0.0, 2.0), (0.0, 2.0, 2.0, 2.0)))
    found, shares = both(np.array([[1, 0], [1, 1], [1, 2], [1, 3]]), shares=True)
    assert found.tolist() == [2.0, 8.0, 0.0, 4.0]  # alone, together, against, across
    assert shares[1].tolist() == [0.5, 0.5]
    assert shares[3].tolist() == [0.5, 0.5]
    assert both(np.array([[1, 1]]), shares=False)[1].shape == (1, 0)


def test_the_base_counts_once() -> None:
    """Where no group can be left alone, all perturbations are from the base, which is itself away from the original."""
    perturbations = _mse([[[0, 0], [1, 0]], [[0, 0], [1, 0]]], base=[1, 0])
    found, _ = Superposition(perturbations, ((0.5, 2.0), (0.5, 2.0)))(np.array([[0, 0], [1, 0], [1, 1]]), shares=False)
    assert found.tolist() == [0.5, 2.0, 4.5]


def test_kl_is_exact_for_one_change_and_for_many_classes() -> None:
    rng = np.random.default_rng(0)
    logits, moved = rng.normal(0, 2, (7, 5)), rng.normal(0, 2, (7, 5))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_q = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))
    expected = float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())
    rows = np.stack([np.zeros(35), (log_q - log_p).reshape(-1)]).astype(np.float32)
    perturbations = OutputPerturbations(
        kind="kl", reference=log_p.astype(np.float32), base=np.zeros(35, dtype=np.float32), rows=(rows,)
    )
    found, shares = Superposition(perturbations, ((0.0, expected),))(np.array([[0], [1]]), shares=True)
    assert found == pytest.approx([0.0, expected], rel=1e-5, abs=1e-7)
    assert shares[1] == pytest.approx([1.0], rel=1e-4)


def test_a_level_that_was_not_measured_is_put_at_its_neighbour_in_its_own_length() -> None:
    perturbations = _mse([[[0, 0], [np.nan, np.nan], [4, 0], [np.nan, np.nan]], [[0, 0], [np.nan, np.nan]]])
    levels = np.array([[1, 0], [2, 0], [3, 0], [0, 1]])
    found, _ = Superposition(perturbations, ((0.0, 2.0, 8.0, np.inf), (0.0, 1.0)))(levels, shares=False)
    assert found == pytest.approx([2.0, 8.0, 8.0, 0.0])  # as the table says; a failed one as the worst; nothing known


def test_in_a_large_space_fewer_sites_are_looked_at() -> None:
    perturbations = _mse([[[0, 0, 0], [2, 2, 99]], [[0, 0, 0], [2, 2, 99]]])
    superposition = Superposition(perturbations, ((0.0, 1.0), (0.0, 1.0)), most_values=2)
    assert superposition(np.array([[1, 0]]), shares=False)[0].tolist() == [4.0]


def test_the_surrogate_learns_interactions_that_the_table_has_measured() -> None:
    """Random perturbations in few dimensions, so that pairs matter: with them a fit to 30 trials is off by half as
    much, or less, as without."""
    rng = np.random.default_rng(3)
    n_groups, n_levels, size = 12, 5, 24
    direction = rng.normal(size=(n_groups, n_levels, size))
    length = np.array([0.0, 0.1, 0.2, 0.4, 0.8])[None, :, None] * rng.lognormal(0, 0.5, (n_groups, 1, 1))
    rows = (direction * length).astype(np.float32)
    table = tuple(tuple(map(float, row)) for row in np.square(rows).mean(axis=2))
    space = SearchSpace(
        groups=tuple(
            Group(name=f"g{g}", layers=(f"g{g}",), levels=tuple(LayerSpec(weight_bits=b) for b in (32, 8, 6, 4, 2)))
            for g in range(n_groups)
        )
    )
    levels = rng.binomial(n_levels - 1, rng.random((230, 1)), size=(230, n_groups))  # of every budget
    levels = levels[levels.any(axis=1)]
    truth = np.square(rows[np.arange(n_groups), levels].sum(axis=1)).mean(axis=1)[:, None].astype(float)
    errors = []
    for perturbations in (None, _mse([row.tolist() for row in rows])):
        known = SensitivityTable(divergence=table, costs={}, fixed={}, perturbations=perturbations)
        context = SearchContext(
            space=space, objectives=(Objective(name="divergence"),), seed=0, table=known, limits={}
        )  # fmt: skip
        model = Surrogate(context)
        model.fit(levels[:30], truth[:30])
        errors.append(float(np.sqrt(np.mean((model.predict(levels[30:]) - model.scale(truth[30:])) ** 2))))
    assert errors[1] < 0.5 * errors[0]
