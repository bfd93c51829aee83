from __future__ import annotations

import json
import math

import numpy as np
import pytest

from paredown.search import Candidate, SearchContext, Searcher
from paredown.search.allocation import sweep
from paredown.search.searchers import (
    ELITE,
    KEPT,
    Archive,
    EvolutionSearcher,
    Steps,
    Surrogate,
    hypervolume_gain,
    hypervolume_improvement,
    improvement,
    local_search,
    make_searcher,
    offspring,
    violation_of,
)
from paredown.search.values import SensitivityTable, hypervolume, non_dominated
from paredown.testing._problems import SyntheticProblem


def play(searcher: Searcher, problem: SyntheticProblem, n: int, start: int = 0) -> list[Candidate]:
    asked: list[Candidate] = []
    for i in range(n):
        for candidate in searcher.ask(1):
            asked.append(candidate)
            searcher.tell([problem.trial(start + i, candidate)])
    return asked


def test_it_begins_with_the_sweep_over_the_whole_range() -> None:
    problem = SyntheticProblem()
    first = make_searcher("evolution", problem.context(), {"initial": 12}).ask(12)
    assert set(first) <= set(sweep(problem.table, "bytes"))
    share = np.array([problem.table.cost_of("bytes", c) for c in first[:6]]) - 4096.0
    share /= problem.bytes.max(axis=1).sum()
    assert share.max() > 0.95
    assert share.min() < 0.1
    assert np.diff(np.sort(share)).max() < 0.6


def test_it_beats_random_and_nsga2_clearly() -> None:
    """22 groups x 7 levels, 60 trials: hypervolume in (log divergence, bytes)."""
    for seed in range(3):
        problem = SyntheticProblem(seed=seed)
        scores = {
            name: problem.score(play(make_searcher(name, problem.context(seed)), problem, 60))
            for name in ("evolution", "random", "optuna:nsga2")
        }
        assert scores["evolution"] > scores["random"] + 0.1
        assert scores["evolution"] > scores["optuna:nsga2"] + 0.1


def test_evaluations_improve_on_the_table_alone() -> None:
    """Refitting and breeding get more than as many points of the table's own sweep."""
    gains = []
    for seed in range(4):
        problem = SyntheticProblem(seed=seed, table_noise=1.0)
        swept = sweep(problem.table, "bytes")
        evenly = [swept[i] for i in np.unique(np.linspace(0, len(swept) - 1, 80).astype(int))]
        found = play(make_searcher("evolution", problem.context(seed)), problem, 80)
        gains.append(problem.score(found) - problem.score(evenly))
    assert min(gains) > 0.0
    assert np.mean(gains) > 0.008


def test_without_a_table_it_still_beats_random() -> None:
    for seed in range(3):
        problem = SyntheticProblem(seed=seed, table_noise=None)
        found = play(make_searcher("evolution", problem.context(seed)), problem, 60)
        other = play(make_searcher("random", problem.context(seed)), problem, 60)
        assert problem.score(found) > problem.score(other) + 0.05


def test_told_a_whole_ledger_it_goes_on_as_the_one_that_lived_through_it() -> None:
    """A resume needs no state: the ledger is enough."""
    problem = SyntheticProblem(limits={"divergence": (None, 2.0)})
    searcher = make_searcher("evolution", problem.context(3))
    lived = play(searcher, problem, 50)
    resumed = make_searcher("evolution", problem.context(3))
    resumed.tell([problem.trial(i, c) for i, c in enumerate(lived)])
    assert resumed.ask(1) == searcher.ask(1)


def test_asking_for_two_is_asking_twice() -> None:
    problem = SyntheticProblem()
    one, two = (make_searcher("evolution", problem.context()) for _ in range(2))
    play(one, problem, 25)
    play(two, problem, 25)
    assert one.ask(5) == [c for _ in range(5) for c in two.ask(1)]


def test_what_breaks_a_static_limit_is_not_proposed() -> None:
    most = 3e6
    problem = SyntheticProblem(limits={"bytes": (None, most)})
    assert problem.table.cost_of("bytes", problem.uniform()[0]) > most
    asked = play(make_searcher("evolution", problem.context()), problem, 60)
    assert max(problem.table.cost_of("bytes", c) for c in asked) <= most


@pytest.mark.parametrize("limit", [{"divergence": (None, 0.02)}, {"accuracy": (0.93, None)}])
def test_a_limit_on_quality_is_foreseen(limit: dict[str, tuple[float | None, float | None]]) -> None:
    """Whether the limit is on an objective or on another metric, most proposals keep it once something was seen."""
    problem = SyntheticProblem(limits=limit)
    asked = play(make_searcher("evolution", problem.context()), problem, 60)[16:]
    free = play(make_searcher("evolution", SyntheticProblem().context()), problem, 60)[16:]

    def kept(candidates: list[Candidate]) -> float:
        return float(np.mean([violation_of(problem.trial(0, c), limit) == 0.0 for c in candidates]))

    assert kept(asked) > 0.8
    assert kept(asked) > kept(free) + 0.05


def test_a_limit_on_a_metric_that_no_trial_has_is_ignored() -> None:
    problem = SyntheticProblem(n_groups=5, n_levels=4, limits={"energy_mj": (None, 1.0)})
    searcher = make_searcher("evolution", problem.context())
    assert len(play(searcher, problem, 30)) == 30
    text = json.dumps(searcher.state_dict(), allow_nan=False)
    loaded = make_searcher("evolution", problem.context())
    loaded.load_state_dict(json.loads(text))
    assert loaded.ask(3) == searcher.ask(3)


def test_limits_that_nothing_can_meet_do_not_stop_it() -> None:
    problem = SyntheticProblem(limits={"bytes": (None, 1.0), "divergence": (None, -1.0)})
    assert len(play(make_searcher("evolution", problem.context()), problem, 30)) == 30


def test_a_level_that_could_not_be_measured_is_no_obstacle() -> None:
    problem = SyntheticProblem(n_groups=4, n_levels=4)
    rows = [list(row) for row in problem.table.divergence]
    rows[1][2], rows[2][3] = math.inf, math.nan
    table = SensitivityTable(
        divergence=tuple(tuple(row) for row in rows), costs=problem.table.costs, fixed=problem.table.fixed
    )
    context = SearchContext(
        space=problem.space, objectives=problem.objectives, seed=0, table=table, limits=problem.limits
    )
    searcher = make_searcher("evolution", context)
    assert all(c.levels[1] != 2 and c.levels[2] != 3 for c in searcher.ask(5))
    assert len(play(searcher, problem, 260, start=10)) == problem.space.size - 5


def test_a_table_without_the_objectives_costs_still_serves() -> None:
    """The objective (say, a measured latency) is not in the table: another cost stands in for the budget."""
    problem = SyntheticProblem(n_groups=6, n_levels=4, objectives=("divergence", "bops"))
    table = SensitivityTable(
        divergence=problem.table.divergence, costs={"bytes": problem.table.costs["bytes"]}, fixed={"bytes": 0.0}
    )
    context = SearchContext(space=problem.space, objectives=problem.objectives, seed=0, table=table, limits={})
    assert len(play(make_searcher("evolution", context), problem, 40)) == 40


def test_an_empty_table_of_costs_is_searched_without_a_sweep() -> None:
    problem = SyntheticProblem(n_groups=6, n_levels=4)
    table = SensitivityTable(divergence=problem.table.divergence, costs={}, fixed={})
    context = SearchContext(space=problem.space, objectives=problem.objectives, seed=0, table=table, limits={})
    assert len(play(make_searcher("evolution", context), problem, 40)) == 40


def test_a_single_objective_is_a_search_for_the_best() -> None:
    problem = SyntheticProblem(n_groups=6, n_levels=4, objectives=("bytes",), limits={"divergence": (None, 0.05)})
    asked = play(make_searcher("evolution", problem.context()), problem, 60)
    kept = [problem.table.cost_of("bytes", c) for c in asked if problem.divergence(c) <= 0.05]
    best = min(problem.table.cost_of("bytes", c) for c in problem.every_candidate() if problem.divergence(c) <= 0.05)
    assert min(kept) <= 1.1 * best


def test_candidates_still_out_do_not_draw_others_to_the_same_place() -> None:
    problem = SyntheticProblem()
    searcher = make_searcher("evolution", problem.context())
    play(searcher, problem, 30)
    out = searcher.ask(12)
    costs = sorted(problem.table.cost_of("bytes", c) for c in out)
    assert len(set(out)) == 12
    assert costs[-1] > 1.5 * costs[0]


def test_the_state_is_small_and_json() -> None:
    problem = SyntheticProblem()
    searcher = make_searcher("evolution", problem.context())
    play(searcher, problem, 40)
    state = searcher.state_dict()
    assert set(state) == {"schema_version", "searcher", "n_levels", "known", "told", "pending"}
    assert len(json.dumps(state)) < 40 * (22 * 3 + 80) + 500


# The parts.


def test_the_archive_keeps_the_front_and_breeds_from_what_keeps_the_limits() -> None:
    archive = Archive(1, 2)
    rows = [
        ((1.0, 5.0), 0.0),
        ((2.0, 4.0), 0.0),
        ((2.0, 6.0), 0.0),
        ((0.0, 0.0), 0.5),
        ((1.0, 5.0), 0.0),
        ((1.0, 3.0), 0.0),
    ]
    for i, (values, violation) in enumerate(rows):
        archive.add((i,), np.array(values), violation)
    assert archive.front.tolist() == [5]
    assert archive.elite()[0] == 5
    assert archive.elite()[-1] == 3
    archive.add((0,), np.array([-1.0, -1.0]), 0.0)  # a result does not change
    assert len(archive) == 6


def test_the_archive_agrees_with_the_definition_at_any_size() -> None:
    rng = np.random.default_rng(0)
    for m in (1, 2, 3):
        archive = Archive(2, m)
        values = rng.random((700, m))
        for i, row in enumerate(values):
            archive.add((i // 256, i % 256), row, 0.0)
        assert sorted(archive.front.tolist()) == np.flatnonzero(non_dominated(values)).tolist()
        elite = archive.elite()
        assert len(elite) == ELITE
        assert len(set(elite.tolist()) & set(archive.front.tolist())) == min(ELITE, len(archive.front))


def test_violation_by_hand() -> None:
    problem = SyntheticProblem(n_groups=2, n_levels=2)
    trial = problem.trial(0, Candidate(levels=(0, 0)))
    bytes_ = trial.metrics["bytes"].value
    assert violation_of(trial, {"bytes": (None, bytes_)}) == 0.0
    assert violation_of(trial, {"bytes": (None, bytes_ / 2), "energy": (1.0, None)}) == pytest.approx(1.0)
    assert violation_of(trial, {"bytes": (2 * bytes_, None)}) == pytest.approx(0.5)


def test_improvement_by_hand() -> None:
    reference = np.array([[0.0, 10.0], [10.0, 0.0]])
    predicted = np.array([[5.0, 5.0], [0.0, 10.0], [20.0, 20.0], [-5.0, 10.0]])
    assert improvement(predicted, reference, np.array([10.0, 10.0])) == pytest.approx([0.5, 0.0, -1.0, 0.5])


def test_steps_lead_along_the_best_bargain() -> None:
    scores = np.array([[0.0, 1.0, 1.5, 9.0]])
    cost = np.array([[8.0, 7.5, 4.0, 2.0]])
    steps = Steps(np.array([4]), scores, cost)
    assert steps.cheaper[0, :3].tolist() == [2, 2, 3]  # from 0, level 2 saves 4 for 1.5; level 1 only 0.5 for 1
    assert steps.dearer[0, 1:].tolist() == [0, 0, 2]
    assert steps.cheaper_weight[0, 3] == 0.0
    assert steps.dearer_weight[0, 0] == 0.0
    assert steps.saving[0, 0] == 4.0
    assert steps.price[0, 3] == 2.0


def test_children_are_of_the_space_and_close_to_their_parents() -> None:
    problem = SyntheticProblem()
    table = problem.table
    for scores, cost in ((np.array(table.divergence), np.array(table.costs["bytes"])), (None, None)):
        steps = Steps(np.array(problem.space.n_levels), scores, cost)
        rng = np.random.default_rng(0)
        parents = rng.integers(0, 7, (300, 22)).astype(np.int16)
        before = parents.copy()
        children = offspring(parents, parents[::-1].copy(), steps, rng)
        assert (parents == before).all()
        assert children.min() >= 0
        assert children.max() <= 6
        changed = (children != parents).sum(axis=1)
        crossed = changed > 2
        assert 0.1 < crossed.mean() < 0.4
        assert (children == parents)[crossed].mean() + (children == parents[::-1])[crossed].mean() >= 1.0
        assert (changed == 0).mean() < 0.1


def test_a_pair_of_switches_keeps_the_budget() -> None:
    problem = SyntheticProblem()
    cost = np.array(problem.table.costs["bytes"])
    steps = Steps(np.array(problem.space.n_levels), np.array(problem.table.divergence), cost)
    rng = np.random.default_rng(0)
    parents = np.full((2000, 22), 3, dtype=np.int16)
    children = offspring(parents, parents, steps, rng)
    groups = np.arange(22)
    pairs = (children != parents).sum(axis=1) == 2
    change = np.abs(cost[groups, children].sum(axis=1) - cost[groups, parents].sum(axis=1))
    one_switch = np.abs(np.diff(cost, axis=1)).mean()
    assert np.median(change[pairs]) < 0.5 * one_switch


def test_the_surrogate_is_the_additive_estimate_before_it_has_seen_anything() -> None:
    problem = SyntheticProblem()
    surrogate = Surrogate(problem.context())
    assert (surrogate.scores() == np.array(problem.table.divergence)).all()


def test_the_surrogate_learns_what_the_table_got_wrong() -> None:
    """Layer scores that are wrong by a constant factor each are put right; costs are looked up, not learnt."""
    problem = SyntheticProblem(interaction=0.0, table_noise=0.0)
    factor = np.exp(np.random.default_rng(5).normal(0.0, 1.0, 22))
    wrong = problem.alone * factor[:, None]
    table = SensitivityTable(
        divergence=tuple(tuple(row) for row in wrong.tolist()), costs=problem.table.costs, fixed=problem.table.fixed
    )
    context = SearchContext(
        space=problem.space, objectives=problem.objectives, seed=0, table=table, limits=problem.limits
    )
    rng = np.random.default_rng(1)
    levels = np.array([rng.binomial(6, p, 22) for p in rng.uniform(0.2, 0.8, 400)], dtype=np.int16)
    candidates = [Candidate(levels=tuple(row)) for row in levels.tolist()]
    values = np.array([[problem.divergence(c), problem.table.cost_of("bytes", c)] for c in candidates])
    surrogate = Surrogate(context)
    surrogate.fit(levels[:200], values[:200])
    predicted, truth = surrogate.predict(levels[200:]), surrogate.scale(values[200:])
    additive = np.log([table.divergence_of(c) for c in candidates[200:]])
    error = float(np.std(predicted[:, 0] - truth[:, 0]))
    assert error < 0.5 * float(np.std(additive - truth[:, 0]))
    assert predicted[:, 1] == pytest.approx(truth[:, 1])
    # and the scores that it gives back are nearer to the true ones, up to a common factor
    before = np.log(factor)
    after = np.log(surrogate.scores()[:, 4] / problem.alone[:, 4])
    assert np.std(after) < 0.8 * np.std(before)


def test_a_cost_that_the_table_has_wrong_is_learnt_instead() -> None:
    problem = SyntheticProblem(n_groups=6, n_levels=4)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 4, (120, 6)).astype(np.int16)
    candidates = [Candidate(levels=tuple(row)) for row in levels.tolist()]
    values = np.array([[problem.divergence(c), 3.0 * problem.table.cost_of("bytes", c) + 10.0] for c in candidates])
    surrogate = Surrogate(problem.context())
    surrogate.fit(levels[:100], values[:100])
    error = surrogate.predict(levels[100:])[:, 1] - values[100:, 1]
    assert np.abs(error).max() < 0.1 * np.ptp(values[:, 1])


def test_what_a_point_adds_by_hand() -> None:
    """The front (0, 1), (1, 0) and a corner 0.05 beyond it."""
    front = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    points = np.array([[0.5, 0.5], [0.0, 1.0], [-1.0, 1.0], [3.0, 3.0], [1.0, 0.5]])
    assert hypervolume_gain(points, front) == pytest.approx([0.25, 0.0, 0.05, 0.0, 0.0])


def test_what_a_point_adds_is_the_difference_of_hypervolumes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        front, points = rng.random((12, 2)), rng.random((30, 2)) * 1.2
        corner = front[non_dominated(front)].max(axis=0) + 0.05
        before = hypervolume(front, corner)
        after = [hypervolume(np.vstack([front, point]), corner) - before for point in points]
        assert hypervolume_gain(points, front) == pytest.approx(after, abs=1e-12)


def test_a_lead_within_the_noise_is_none() -> None:
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    points = np.array([[-0.04, 1.0], [-0.2, 1.0], [0.5, 0.5]])
    assert (hypervolume_improvement(points, front, np.zeros(2)) > 0).tolist() == [True, True, True]
    assert (hypervolume_improvement(points, front, np.array([0.05, 0.0])) > 0).tolist() == [False, True, True]


def test_estimates_are_learnt_from_but_are_no_results() -> None:
    problem = SyntheticProblem()
    searcher = make_searcher("evolution", problem.context())
    assert isinstance(searcher, EvolutionSearcher)
    play(searcher, problem, 30)
    front = searcher._archive.front.tolist()
    lost = searcher.ask(10)
    searcher.tell([problem.dominated(100 + i, c, optimism=100.0) for i, c in enumerate(lost)])
    assert searcher._archive.front.tolist() == front
    assert not set(lost) & set(play(searcher, problem, 20, start=200))
    assert len(searcher._estimates) == 10
    searcher.tell([problem.trial(300, lost[0])])  # evaluated in full after all
    assert len(searcher._estimates) == 9
    assert lost[0].levels in searcher._archive


def test_estimates_improve_the_surrogate_less_than_results_do() -> None:
    """In the mean over seeds, of the error in log divergence at candidates that nobody evaluated."""
    errors = np.zeros((4, 3))
    for seed in range(4):
        problem = SyntheticProblem(seed=seed, interaction=2.0)
        rng = np.random.default_rng(seed)
        levels = np.array([rng.binomial(6, p, 22) for p in rng.uniform(0.2, 0.8, 220)], dtype=np.int16)
        candidates = [Candidate(levels=tuple(row)) for row in levels.tolist()]
        true = np.array([[problem.divergence(c), problem.table.cost_of("bytes", c)] for c in candidates])
        noisy = true.copy()
        noisy[20:120, 0] *= np.exp(rng.normal(0.0, 0.5, 100))
        for k, (n, values) in enumerate(((20, true), (120, noisy), (120, true))):
            surrogate = Surrogate(problem.context())
            surrogate.fit(levels[:n], values[:n], np.repeat([1.0, 0.25 if k == 1 else 1.0], [20, n - 20]))
            error = surrogate.predict(levels[120:])[:, 0] - surrogate.scale(true[120:])[:, 0]
            errors[seed, k] = np.sqrt(np.mean(error**2))
    few, estimated, whole = errors.mean(axis=0)
    assert whole < estimated < few


def test_neighbours_that_interact_are_found_with_fewer_results() -> None:
    """Only neighbouring layers interact: leave-one-out chooses their pairs, and foresees better than with all pairs."""
    problem = SyntheticProblem(interaction=3.0, reach=2, table_noise=0.0)
    rng = np.random.default_rng(0)
    levels = np.array([rng.binomial(6, p, 22) for p in rng.uniform(0.3, 0.7, 260)], dtype=np.int16)
    candidates = [Candidate(levels=tuple(row)) for row in levels.tolist()]
    values = np.array([[problem.divergence(c), problem.table.cost_of("bytes", c)] for c in candidates])
    surrogate = Surrogate(problem.context())
    surrogate.fit(levels[:160], values[:160])
    assert surrogate._models[0].pairing == "near"


def test_a_limit_draws_the_sweep_and_the_proposals_inside() -> None:
    """The proposals that keep a limit on the divergence are as many as they would be over the whole range without."""
    limit = {"divergence": (None, 0.05)}
    problem = SyntheticProblem(limits=limit)
    asked = play(make_searcher("evolution", problem.context()), problem, 80)
    kept = [c for c in asked if problem.divergence(c) <= 0.05]
    assert len(kept) >= 56


def test_foreseen_fronts_are_fronts() -> None:
    problem = SyntheticProblem()
    table, groups = np.array(problem.table.divergence), np.arange(22)
    cost = np.array(problem.table.costs["bytes"])

    def predict(levels: np.ndarray) -> np.ndarray:
        return np.column_stack([np.log(table[groups, levels].sum(axis=1)), cost[groups, levels].sum(axis=1)])

    steps = [Steps(np.array(problem.space.n_levels), table, cost)]
    start = np.random.default_rng(0).integers(0, 7, (60, 22)).astype(np.int16)
    corner = predict(start).max(axis=0)
    found = local_search(start, predict, steps, lambda rows: rows, np.random.default_rng(1))
    assert len(found) <= KEPT
    assert non_dominated(predict(found)).all()
    assert len(np.unique(predict(found), axis=0)) == len(found)
    assert hypervolume(predict(found), corner) > 1.1 * hypervolume(predict(start), corner)
