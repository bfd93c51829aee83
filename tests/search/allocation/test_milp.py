"""The 0-1 programme against all candidates counted out; what it says where nothing fits."""

from __future__ import annotations

import os
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown._arrays import FloatArray
from paredown.errors import LimitsNotMet, ParedownError
from paredown.search.allocation import Programme, solve


@st.composite
def programmes(draw: st.DrawFn) -> Programme:
    """Two to four groups of three levels, whole numbers; up to three limits, some of them on the lower side."""
    n_groups = draw(st.integers(2, 4))
    numbers = st.lists(st.integers(0, 20).map(float), min_size=3, max_size=3)
    rows = st.lists(numbers, min_size=n_groups, max_size=n_groups)
    metrics: dict[str, FloatArray] = {name: np.array(draw(rows)) for name in ("divergence", "bytes", "macs")}
    for g in range(n_groups):
        n = draw(st.integers(1, 3))
        for values in metrics.values():
            values[g, n:] = np.inf
    limits: dict[str, tuple[float | None, float | None]] = {}
    for name in draw(st.sets(st.sampled_from(sorted(metrics)))):
        bound = float(draw(st.integers(0, 20 * n_groups)))
        limits[name] = (bound, None) if draw(st.booleans()) else (None, bound)
    minimise = draw(st.sampled_from(sorted(metrics)))
    return Programme(metrics=metrics, minimise=minimise, limits=limits, fixed={"bytes": 7.0})


def best(programme: Programme) -> float | None:
    n_levels = [int(np.isfinite(row).sum()) for row in programme.metrics["divergence"]]
    totals = [
        {name: programme.total(name, levels) for name in programme.metrics}
        for levels in product(*(range(n) for n in n_levels))
    ]
    allowed = [
        total[programme.minimise]
        for total in totals
        if all(
            (low is None or total[name] >= low) and (high is None or total[name] <= high)
            for name, (low, high) in programme.limits.items()
        )
    ]
    return min(allowed, default=None)


@settings(max_examples=60, deadline=None)
@given(programmes())
def test_it_is_the_best_of_all(programme: Programme) -> None:
    wanted = best(programme)
    if wanted is None:
        with pytest.raises(LimitsNotMet):
            solve(programme)
        return
    found = solve(programme)
    assert found.totals[programme.minimise] == pytest.approx(wanted, rel=2e-4)
    assert found.status == "optimal"
    assert found.gap <= 1e-4
    for name, (low, high) in programme.limits.items():
        assert low is None or found.totals[name] >= low
        assert high is None or found.totals[name] <= high
    assert {type(level) for level in found.levels} == {int}


def two(**limits: tuple[float | None, float | None]) -> Programme:
    """Two groups; cheap in bytes is dear in time."""
    return Programme(
        metrics={
            "divergence": np.array([[0.0, 1.0, 5.0], [0.0, 2.0, 4.0]]),
            "bytes": np.array([[100.0, 50.0, 10.0], [100.0, 50.0, 10.0]]),
            "latency_ms": np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]),
        },
        minimise="divergence",
        limits=limits,
        fixed={"bytes": 30.0},
    )


def test_by_hand() -> None:
    assert solve(two()).levels == (0, 0)
    found = solve(two(bytes=(None, 180.0)))
    assert found.levels == (1, 0)
    assert dict(found.totals) == {"divergence": 1.0, "bytes": 180.0, "latency_ms": 3.0}
    # 130 bytes are two middle levels (3), or the first left alone and the second cheapest: not 140
    assert solve(two(bytes=(None, 130.0))).levels == (1, 1)
    assert solve(two(bytes=(None, 140.0), latency_ms=(None, 4.0))).totals["divergence"] == 3.0


def test_the_least_budget_of_all_leaves_one_candidate() -> None:
    assert solve(two(bytes=(None, 50.0))).levels == (2, 2)


def test_a_limit_that_cannot_be_met_names_the_least_in_reach() -> None:
    with pytest.raises(LimitsNotMet, match=r"bytes <= 49 is out of reach: the least that this space allows is 50"):
        solve(two(bytes=(None, 49.0), latency_ms=(None, 6.0)))
    with pytest.raises(LimitsNotMet, match=r"latency_ms >= 7 is out of reach: the most that this space allows is 6"):
        solve(two(latency_ms=(7.0, None)))


def test_limits_that_exclude_each_other_say_what_is_left() -> None:
    with pytest.raises(LimitsNotMet) as caught:
        solve(two(bytes=(None, 100.0), latency_ms=(None, 3.0)))
    text = str(caught.value)
    assert "bytes and latency_ms can be met each, and not together" in text
    assert "bytes is at least 180, not 100" in text  # one level further is all that 3 ms allow
    assert "latency_ms is at least 5, not 3" in text  # 50 + 10 + 30 bytes


def test_magnitudes_do_not_matter() -> None:
    """Divergences from 1e-9 to 10 and costs from 1 to 1e9: the solver's absolute tolerances must not decide."""
    rng = np.random.default_rng(1)
    divergence = np.sort(10.0 ** rng.uniform(-9, 1, (5, 4)), axis=1)
    cost = np.sort(10.0 ** rng.uniform(0, 9, (5, 4)), axis=1)[:, ::-1]
    budgets = np.sort([cost[np.arange(5), levels].sum() for levels in product(range(4), repeat=5)])
    for budget in budgets[:: len(budgets) // 20].tolist():
        programme = Programme(
            metrics={"divergence": divergence, "bytes": cost}, minimise="divergence", limits={"bytes": (None, budget)}
        )
        wanted = best(
            Programme(metrics=programme.metrics, minimise="divergence", limits={"bytes": (None, budget + 1e-6)})
        )
        assert solve(programme).totals["divergence"] == pytest.approx(wanted, rel=2e-4)


def test_a_level_that_is_not_finite_is_never_used() -> None:
    programme = two(bytes=(None, 120.0))
    programme.metrics["divergence"][0, 2] = np.nan
    programme.metrics["divergence"][1, 2] = np.inf
    with pytest.raises(LimitsNotMet, match="the least that this space allows is 130"):
        solve(programme)
    programme.metrics["divergence"][1] = np.inf
    with pytest.raises(ParedownError, match="group 1 has no level that could be measured"):
        solve(programme)


def test_a_time_that_runs_out_is_said_with_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver stopped with a solution of 3 and a proven bound of 1.5."""
    from scipy import optimize

    real = optimize.milp

    def stopped(objective: Any, *, integrality: Any, **options: Any) -> Any:
        result = real(objective, integrality=integrality, **options)
        if integrality.any():
            return SimpleNamespace(
                x=result.x, fun=result.fun, status=1, mip_dual_bound=0.5 * result.fun, message="time"
            )
        return result

    monkeypatch.setattr(optimize, "milp", stopped)
    found = solve(two(bytes=(None, 150.0)))
    assert found.status == "time"
    assert found.gap == pytest.approx(0.5)
    nothing = SimpleNamespace(x=None, fun=None, status=1, mip_dual_bound=None, message="Time limit reached")
    monkeypatch.setattr(optimize, "milp", lambda *_, **__: nothing)
    with pytest.raises(ParedownError, match=r"found nothing within 2 s \(Time limit reached\)"):
        solve(two(bytes=(None, 130.0)), time_limit_s=2.0)


def test_what_the_solver_prints_does_not_reach_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from scipy import optimize

    real = optimize.milp

    def talkative(*arguments: Any, **options: Any) -> Any:
        os.write(1, b"HighsMipSolverData\n")
        return real(*arguments, **options)

    monkeypatch.setattr(optimize, "milp", talkative)
    print("before")
    solve(two(bytes=(None, 130.0)))
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"
