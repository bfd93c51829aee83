"""Of many uniform settings those that may matter are seen on the whole search split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators import Measurement
from paredown.search import Candidate, Completed, LowFidelity, Task, open_run
from paredown.search.phases import screened_baselines
from paredown.search.values import Objective

MakeTask = Callable[..., Task]
GUIDE = (Objective(name="divergence"), Objective(name="bytes"))


def screened(number: int, divergence: float, n_bytes: float) -> LowFidelity:
    metrics = {"divergence": Measurement(value=divergence), "bytes": Measurement(value=n_bytes)}
    return LowFidelity(
        number=number, candidate=Candidate(levels=(number,)), kind="uniform", metrics=metrics, samples=40
    )


def test_the_two_best_of_each_cost_by_hand() -> None:
    trials = [
        screened(0, 0.1, 800),
        screened(1, 1.0, 400),
        screened(2, 2.0, 400),
        screened(3, 3.0, 400),  # two of its own cost look better
        screened(4, 2.5, 500),  # two cheaper ones look better
        screened(5, 9.0, 200),
        screened(6, 9.0, 200),
        screened(7, 9.0, 200),  # alike: the first two stand for it
    ]
    assert [trial.number for trial in screened_baselines(trials, GUIDE)] == [0, 1, 2, 5, 6]
    assert screened_baselines([], GUIDE) == []


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 5)), min_size=1, max_size=30))
def test_at_any_cost_the_best_is_seen_on_all(values: list[tuple[float, int]]) -> None:
    trials = [screened(i, divergence, n_bytes) for i, (divergence, n_bytes) in enumerate(values)]
    kept = screened_baselines(trials, GUIDE)
    for budget in range(1, 6):
        affordable = [d for d, n_bytes in values if n_bytes <= budget]
        seen = sorted(t.metrics["divergence"].value for t in kept if t.metrics["bytes"].value <= budget)
        assert seen[:2] == sorted(affordable)[:2]


def test_a_run_with_many_uniform_settings(
    tiny_task: MakeTask, open_session: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    more = ("search.screen=40", "search.searcher=random", "budget.trials=10")
    space = ('space.weight_method=["affine", "minmax", "percentile"]', "space.weight_bits=[2, 3, 4, 8, 32]")
    with open_session(tiny_task(*more, *space), tmp_path, screened_from=3) as session:
        session.explore()
    run = open_run(tmp_path / "run")
    first = [t for t in run.trials if t.kind == "uniform" and isinstance(t, LowFidelity)]
    whole = [t for t in run.trials if t.kind == "uniform" and isinstance(t, Completed)]
    assert 3 < len(whole) < len(first)
    assert {t.candidate for t in whole} == {t.candidate for t in screened_baselines(first, GUIDE)}
    assert all(t.metrics["divergence"].n == 160 for t in whole)
    assert len({t.number for t in run.trials}) == len(run.trials)
    given_up = {t.candidate for t in first} - {t.candidate for t in whole}
    assert not any(t.kind == "mixed" and t.candidate in given_up for t in run.trials)
    for point in run.front().points:
        assert point.kind != "uniform" or np.isfinite(point.metrics["divergence"].value)
    with open_session(tiny_task(*more, *space), tmp_path, screened_from=3) as session:
        session.explore()
    assert open_run(tmp_path / "run").trials == run.trials  # nothing is left to be done
