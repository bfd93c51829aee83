"""What the searcher tells its study. The order of calls and the state are the contract suite's."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from paredown.search import Candidate
from paredown.search.allocation import sweep
from paredown.search.searchers import SAMPLERS, make_searcher
from paredown.testing._problems import SyntheticProblem

PROBLEM = SyntheticProblem(n_groups=4, n_levels=4, limits={"bytes": (None, 1e5), "accuracy": (0.5, None)})


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> list[optuna.Study]:
    """Every study that is made, as a user of Optuna would see it."""
    made: list[optuna.Study] = []
    create = optuna.create_study

    def spy(**kwargs: object) -> optuna.Study:
        made.append(create(**kwargs))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(optuna, "create_study", spy)
    return made


def test_what_became_of_a_trial_is_told(studies: list[optuna.Study]) -> None:
    searcher = make_searcher("optuna:random", PROBLEM.context())
    done, failed, infeasible, out = searcher.ask(4)
    searcher.tell(
        [PROBLEM.failure(2, infeasible, "infeasible"), PROBLEM.trial(0, done), PROBLEM.failure(1, failed, "failed")]
    )
    trials = studies[-1].get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING]
    metrics = PROBLEM.metrics(done)
    assert trials[0].values == [metrics["divergence"].value, metrics["bytes"].value]
    assert trials[0].params == {f"layer{g}": level for g, level in enumerate(done.levels)}
    assert trials[0].constraints == pytest.approx(
        {"bytes max": metrics["bytes"].value / 1e5 - 1, "accuracy min": 1 - metrics["accuracy"].value / 0.5}
    )
    searcher.tell([PROBLEM.trial(3, out)])
    assert studies[-1].get_trials()[3].state == TrialState.COMPLETE


def test_what_is_maximised_is_turned(studies: list[optuna.Study]) -> None:
    problem = SyntheticProblem(n_groups=4, n_levels=4, objectives=("accuracy", "bytes"))
    searcher = make_searcher("optuna:random", problem.context())
    (candidate,) = searcher.ask(1)
    searcher.tell([problem.trial(0, candidate)])
    assert studies[-1].get_trials()[0].values[0] == -problem.metrics(candidate)["accuracy"].value


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_trials_that_it_never_asked_for_are_added(studies: list[optuna.Study], sampler: str) -> None:
    searcher = make_searcher(f"optuna:{sampler}", PROBLEM.context())
    searcher.tell([PROBLEM.trial(i, c) for i, c in enumerate(PROBLEM.uniform())])
    trials = studies[-1].get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert [tuple(t.params.values()) for t in trials] == [c.levels for c in PROBLEM.uniform()]
    assert all(len(t.constraints) == 2 for t in trials)


def test_nsga2_breeds_from_baselines(studies: list[optuna.Study]) -> None:
    """It breeds only from trials with a generation, which a trial that is merely added does not have."""
    searcher = make_searcher(
        "optuna:nsga2", PROBLEM.context(), {"params": {"population_size": 4, "mutation_prob": 0.0}}
    )
    told = [Candidate(levels=(0, 0, 0, i)) for i in range(4)]
    searcher.tell([PROBLEM.trial(i, c) for i, c in enumerate(told)])
    searcher.ask(1)
    generations = [v for t in studies[-1].get_trials() for k, v in t.system_attrs.items() if k.endswith(":generation")]
    assert generations[:5] == [0, 0, 0, 0, 1]


def test_it_begins_with_the_sweep_where_that_is_wanted() -> None:
    problem = SyntheticProblem()
    searcher = make_searcher("optuna:nsga2", problem.context(), {"seed_with_sweep": 5})
    asked = searcher.ask(8)
    assert set(asked[:5]) <= set(sweep(problem.table, "bytes"))
    assert not set(asked[5:]) & set(sweep(problem.table, "bytes"))


@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler"])
def test_a_sampler_that_has_tried_everything_stops_nothing(sampler: str) -> None:
    problem = SyntheticProblem(n_groups=2, n_levels=3)
    grid = {"search_space": {"layer0": [0, 1], "layer1": [0, 1, 2]}}
    params = grid if sampler == "GridSampler" else {}
    searcher = make_searcher("optuna", problem.context(), {"sampler": f"optuna.samplers.{sampler}", "params": params})
    asked: list[Candidate] = []
    for i in range(12):
        for candidate in searcher.ask(1):
            asked.append(candidate)
            searcher.tell([problem.trial(i, candidate)])
    assert sorted(c.levels for c in asked) == sorted(c.levels for c in problem.every_candidate())


def test_a_wish_that_is_known_is_told_its_result_again(studies: list[optuna.Study]) -> None:
    """A sampler that repeats itself learns the result and is asked again, but nothing is evaluated twice."""
    problem = SyntheticProblem(n_groups=1, n_levels=6)
    searcher = make_searcher("optuna:random", problem.context())
    asked: list[Candidate] = []
    for i in range(6):
        for candidate in searcher.ask(1):
            asked.append(candidate)
            searcher.tell([problem.trial(i, candidate)])
    assert len(set(asked)) == len(asked) == 6
    trials = studies[-1].get_trials()
    assert len(trials) > 6
    for trial in trials:
        assert trial.values == [
            problem.metrics(Candidate(levels=(trial.params["layer0"],)))[name].value for name in ("divergence", "bytes")
        ]


def test_a_stopped_sampler_is_told_from_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of memory")

    searcher = make_searcher("optuna:random", PROBLEM.context())
    (candidate,) = searcher.ask(1)
    monkeypatch.setattr(optuna.Study, "tell", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        searcher.tell([PROBLEM.trial(0, candidate)])


def test_every_short_name_can_be_made() -> None:
    for name in SAMPLERS:
        assert len(make_searcher(f"optuna:{name}", PROBLEM.context()).ask(1)) == 1
