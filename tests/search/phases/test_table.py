"""The sensitivity table: measured with what is known reused, guessed where the time was up, and refined."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paredown.digits import TASK_PATH
from paredown.search import Candidate, SensitivityTable, Task
from paredown.search.evaluation import AnyOutcome, EstimateSensitivity, SensitivityProbe, Worker
from paredown.search.phases import Clock, TablePolicy, affordable_rows, unsure_rows
from paredown.search.problem import prepare
from paredown.search.run import State, assemble, perturbations_of, read
from paredown.search.space import reduce_space
from paredown.search.values import Row, Superposition, base_levels
from paredown.search.workers import InProcess

MakeTask = Callable[..., Task]
OpenSitting = Callable[..., AbstractContextManager[Any]]


def _records(path: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read(path / "run" / "ledger.log")[0] if record["type"] == kind]


@pytest.fixture
def worker(tiny_task: MakeTask, tmp_path: Path) -> Worker:
    return Worker(prepare(tiny_task("data.batch_size=12"), store=tmp_path / "store").context)


def test_rows_are_the_same_with_and_without_reuse(worker: Worker) -> None:
    space = worker.context.space
    whole, one_by_one = (SensitivityProbe(worker.candidate_model, max_bytes=n) for n in (0, 3000))
    for g, group in enumerate(space.groups):
        levels = range(1, len(group.levels))
        kept = worker.measure_rows(g, levels, 32)
        plain = whole.measure(g, levels, 32)
        for level, row, other, third in zip(levels, kept, plain, one_by_one.measure(g, levels, 32), strict=True):
            candidate = [*base_levels(space)]
            candidate[g] = level
            found = Worker(worker.context).evaluate_low_fidelity(Candidate(levels=tuple(candidate)), 32)
            divergence = found.metrics["divergence"]
            assert row.value == other.value == divergence.value
            assert divergence.high is not None
            assert row.stderr == pytest.approx((divergence.high - divergence.value) / 1.96)
            assert third.value == pytest.approx(row.value, rel=1e-4)  # in smaller batches
            assert row.n == other.n == 32
            assert row.reason is None
        assert {row.passes for row in plain} == {32.0}
        total = 16 * 24 + 24 * 24 + 24 * 10
        share = [total, 24 * 24 + 240, 240][g] / total
        assert [row.passes for row in kept[1:]] == [pytest.approx(32 * share, abs=1e-2)] * (len(kept) - 1)
    assert whole.why_not is None
    assert one_by_one.why_not is None
    assert worker.sensitivity_probe.n_kept == 3  # 32 samples in batches of 12
    worker.evaluate_low_fidelity(Candidate(levels=base_levels(space)), 12)
    assert worker.sensitivity_probe.n_kept == 0


def test_a_model_that_cannot_be_replayed_is_measured_in_full(worker: Worker) -> None:
    expected = [row.value for row in worker.measure_rows(2, [1, 2], 32)]
    probe = SensitivityProbe(worker.candidate_model, is_same=lambda one, other: False)
    found = probe.measure(2, [1, 2], 32)
    assert "gave other outputs than the whole pass" in (probe.why_not or "")
    assert [row.value for row in found] == expected
    assert found[1].passes == 32.0


def test_a_level_that_fails_leaves_the_others(tiny_task: MakeTask, tmp_path: Path) -> None:
    context = prepare(tiny_task(trouble="raise"), store=tmp_path / "store").context
    rows = Worker(context).measure_rows(1, range(1, len(context.space.groups[1].levels)), 32)
    failed = [row for row in rows if row.reason]
    assert 0 < len(failed) < len(rows)
    for row in rows:
        assert (row.value is None) == (row.n == 0) == bool(row.reason)
    assert all("the kernel took fright" in (row.reason or "") for row in failed)


def test_the_first_guess_ranks_the_rows_of_a_trained_net(tmp_path: Path) -> None:
    task = Task.load(TASK_PATH).with_overrides(["mlflow.enabled=false"])
    worker = Worker(prepare(task, store=tmp_path / "store").context)
    guess = worker.estimate_sensitivity(64, 0).values
    pairs: list[tuple[float | None, float | None]] = []
    for g, group in enumerate(worker.context.space.groups):
        levels = [i for i, spec in enumerate(group.levels) if not spec.is_neutral]
        measured = worker.measure_rows(g, levels, 64)
        pairs += [(guess[g][i], row.value) for i, row in zip(levels, measured, strict=True)]
    ranks = np.argsort(np.argsort(np.array(pairs, dtype=np.float64), axis=0), axis=0)
    assert np.corrcoef(ranks.T)[0, 1] > 0.9


NOTHING_SKIPPED = {"unpromising": math.inf}


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterRows(Clock):
    """A clock by which the time is up after `most` rows of the table."""

    most: int

    @property
    def out_of_time(self) -> bool:
        return len(self.state.rows) >= self.most

    @classmethod
    def of(cls, clock: Clock, most: int) -> AfterRows:
        return cls(**{f.name: getattr(clock, f.name) for f in fields(clock)}, most=most)


def test_a_whole_table(open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path) -> None:
    with open_session(tiny_task("budget.trials=100"), tmp_path) as session:
        table = session.measure_table(**NOTHING_SKIPPED)
        assert table is not None
        n_rows = sum(len(row) - 1 for row in table.divergence)
        assert len(session.state.rows) == n_rows
        assert all(row[0] == 0.0 for row in table.divergence)
        assert {n for row in table.n for n in row[1:]} <= {32, 128}
        assert all(error > 0 for row in table.stderr for error in row[1:])
        assert session.state.dropped is not None
        assert session.state.notes == []
        again = session.measure_table(**NOTHING_SKIPPED)
        assert again == table
    rows = _records(tmp_path, "row")
    assert len(rows) == n_rows + sum(record["n"] == 128 for record in rows)
    assert len(_records(tmp_path, "estimate")) == len(_records(tmp_path, "dropped")) == 1
    order = list(dict.fromkeys(record["group"] for record in rows if record["n"] == 32))
    guess = _records(tmp_path, "estimate")[0]["elements"]
    assert order == sorted(order, key=lambda g: -max(guess[g]))
    first = sum(record["passes"] for record in rows if record["n"] == 32)
    assert sum(record["passes"] for record in rows if record["n"] > 32) <= 0.1 * first


def test_a_table_that_the_time_did_not_suffice_for(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    task = tiny_task("budget.time=1h", "budget.trials=100")
    with open_session(task, tmp_path) as session:
        table = session.measure_table(clock=AfterRows.of(session.runner.clock, 4), **NOTHING_SKIPPED)
        assert table is not None
        n_rows = sum(len(row) - 1 for row in table.divergence)
        measured = len(session.state.rows)
        assert 4 <= measured < n_rows
        assert sum(n > 0 for row in table.n for n in row) == measured
        assert all(0 < value < math.inf for row in table.divergence for value in row[1:])
        assert [f"{n_rows - measured} of its {n_rows} rows are estimates" in note for note in session.state.notes] == [
            True
        ]
        assert session.state.dropped is None
        whole = session.measure_table(**NOTHING_SKIPPED)
        assert whole is not None
        assert len(session.state.rows) == n_rows
        assert session.state.dropped is not None
    keys = [(record["group"], record["level"], record["n"]) for record in _records(tmp_path, "row")]
    assert len(keys) == len(set(keys))


class Undifferentiable(InProcess):
    """Workers whose model has no gradients."""

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        return [
            replace(outcome, value=None, error="RuntimeError: derivative not implemented")
            if isinstance(outcome.job, EstimateSensitivity)
            else outcome
            for outcome in super().wait(timeout_s)
        ]


def test_no_gradients_and_no_time_is_no_table(open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path) -> None:
    with open_session(tiny_task(), tmp_path, pool=Undifferentiable) as session:
        assert session.measure_table(clock=AfterRows.of(session.runner.clock, 2)) is None
        assert ["derivative not implemented" in note for note in session.state.notes] == [True]
        table = session.measure_table()  # the refusal is remembered: no second attempt
        assert table is not None
        assert all(n > 0 for row in table.n for n in row[1:])
    assert len(_records(tmp_path, "estimate")) == 1


def test_a_job_that_hangs_costs_only_its_own_row(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    task = tiny_task("budget.trial_timeout_s=0.3", "space.activation_bits=[32]", trouble="hang")
    with open_session(task, tmp_path) as session:
        table = session.measure_table()
    assert table is not None
    reasons = {(r["group"], r["level"]): r["reason"] for r in _records(tmp_path, "row") if r["reason"]}
    assert list(reasons) == [(1, len(table.divergence[1]) - 1)]
    assert "still running" in reasons.popitem()[1]
    assert table.divergence[1][-1] == math.inf


def test_levels_that_the_guess_speaks_clearly_against_are_not_measured(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    task = tiny_task(
        "space.sparsity=[0.0, 0.9]", "space.weight_bits=[4, 8, 32]", 'objectives.names=["accuracy", "macs"]'
    )
    with open_session(task, tmp_path) as session:
        table = session.measure_table()
        assert table is not None
        assert session.state.dropped is not None
        measured, space = set(session.state.rows), session.problem.space
        wanted = {
            (g, i) for g, group in enumerate(space.groups) for i, s in enumerate(group.levels) if not s.is_neutral
        }
        skipped = wanted - measured
        assert skipped
        assert skipped <= set(session.state.dropped)
        for g, level in skipped:  # no macs are saved: what was not measured is foreseen, and finite
            assert 0 < table.divergence[g][level] < math.inf
            assert table.n[g][level] == 0
        assert session.measure_table() == table
    assert session.state.notes == []


@pytest.mark.parametrize("trials", [1, 5, 10, 40, 200])
def test_the_table_costs_no_more_than_its_share(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path, trials: int
) -> None:
    with open_session(tiny_task(f"budget.trials={trials}"), tmp_path) as session:
        table = session.measure_table(**NOTHING_SKIPPED)
        assert table is not None
        assert all(math.isfinite(value) for row in table.divergence for value in row)
        rows = session.state.row_facts.values()
        spent = sum(row.passes for row in rows) + session.state.estimate["passes"]
        share = TablePolicy().share * trials * len(session.problem.context.split)
        guess = session.state.estimate["passes"]
        assert spent <= max(guess, 1.25 * share)  # what a replay of the layers before costs is known only afterwards
        assert all(row.n >= TablePolicy().least_samples for row in rows)
        assert session.state.notes == []
        assert session.measure_table(**NOTHING_SKIPPED) == table


def test_rows_that_can_be_paid_for_by_hand() -> None:
    guess = [[0.0, 1.0, 4.0, 16.0], [0.0, 2.0, 8.0, 32.0], [0.0, 0.1, 0.4, 1.6]]
    costs = {"bytes": ((8.0, 4.0, 3.0, 2.0),) * 3}
    keys = [(g, level) for g in range(3) for level in (1, 2, 3)]

    def rows(passes: float, keys: list[tuple[int, int]] = keys) -> tuple[list[tuple[int, int]], int]:
        return affordable_rows(keys, guess, costs, ["bytes"], passes=passes, most=64, least=32, base=(0, 0, 0))

    assert rows(1e9) == (keys, 64)
    assert rows(0.6 * 9 * 40) == (keys, 40)
    chosen, n = rows(0.6 * 9 * 31)  # one level of each group, which stays longest on the sweep
    assert ([g for g, _ in chosen], n) == ([0, 1, 2], 64)
    two = sorted(sorted(chosen, key=lambda key: -guess[key[0]][key[1]])[:2])
    assert rows(0.6 * 32 * 2.5) == (two, 40)  # those with most at stake
    assert rows(5.0)[0] == rows(-100.0)[0] == []
    blind = [[0.0, None, None, None], *guess[1:]]
    unknown = affordable_rows(keys, blind, costs, ["bytes"], passes=60.0, most=64, least=32, base=(0, 0, 0))
    assert unknown == ([(0, 1), (0, 2), (0, 3)], 33)  # nothing else foretells them


@pytest.mark.parametrize("n_groups", [20, 64, 500, 2000])
def test_the_share_holds_for_any_number_of_groups(n_groups: int) -> None:
    guess = [[4.0 ** -(8 - level) * (1 + g % 7) for level in range(6)] for g in range(n_groups)]
    costs = {"bytes": ((8.0, 6.0, 5.0, 4.0, 3.0, 2.0),) * n_groups}
    keys = [(g, level) for g in range(n_groups) for level in range(1, 6)]
    for trials in (5, 20, 100, 1000):
        passes = 0.2 * trials * 256
        chosen, n = affordable_rows(
            keys, guess, costs, ["bytes"], passes=passes, most=64, least=32, base=[0] * n_groups
        )  # fmt: skip
        assert 0.6 * len(chosen) * n <= passes
        assert n >= 32
        assert len(set(chosen)) == len(chosen)


def test_missing_rows_are_guessed_with_what_the_guess_was_off_by() -> None:
    rows = {(0, 1): Row(value=2.0, n=8, stderr=0.5), (0, 2): Row(value=9.0, n=8), (1, 2): Row(value=None, reason="x")}
    guess = [[0.0, 1.0, 3.0, 10.0], [0.0, 4.0, 5.0, None]]
    wanted = [(g, level) for g in (0, 1) for level in (1, 2, 3)]
    table = assemble(wanted, rows, [4, 4], guess, costs={}, fixed={}, n_samples=8)
    # group 0 was off by 2 and 3; of group 1 nothing was measured, and 2.5 is the median of all
    assert table.divergence == ((0.0, 2.0, 9.0, 25.0), (0.0, 10.0, math.inf, math.inf))
    assert table.n == ((0, 8, 8, 0), (0, 0, 0, 0))
    assert table.stderr[0][:2] == (0.0, 0.5)
    assert math.isnan(table.stderr[0][2])
    assert table.stderr[0][3] == 25.0


def test_unsure_rows_of_the_sweep_come_first_where_they_matter_most() -> None:
    table = SensitivityTable(
        divergence=((0.0, 1.0, 100.0), (0.0, 2.0, 3.0)),
        costs={"bytes": ((10.0, 5.0, 4.0), (10.0, 5.0, 1.0))},
        fixed={},
        stderr=((0.0, 0.9, 1.0), (0.0, 1.9, 1.5)),
        n=((0, 8, 8), (0, 8, 8)),
    )
    # hulls: 0-1-2 and 0-2; the sweep goes (0,0), (1,0), (1,2), (2,2): level 1 of group 1 is not on it
    assert unsure_rows(table, ["bytes"]) == [(0, 1), (1, 2)]
    assert unsure_rows(table, []) == []


def test_the_row_of_the_most_samples_stays_and_old_ledgers_are_read() -> None:
    old = {"type": "row", "group": 0, "level": 1, "value": 3.0, "reason": None}
    state = State.replay([old])
    assert state.rows == {(0, 1): 3.0}
    assert state.row_facts[0, 1] == Row(value=3.0)
    assert state.dropped is None
    more = {**old, "value": 2.0, "n": 64, "stderr": 0.1, "passes": 40.0}
    fewer = {**old, "value": 9.0, "n": 32, "stderr": 0.1, "passes": 20.0}
    failed = {**old, "value": None, "reason": "no", "n": 0, "stderr": None, "passes": 0.0}
    state = State.replay([old, more, fewer, failed, {"type": "dropped", "levels": [[0, 2]]}])
    assert state.rows == {(0, 1): 2.0}
    assert state.dropped == ((0, 2),)


def test_the_table_says_where_each_level_pushes_the_outputs(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    with open_session(tiny_task("budget.trials=100"), tmp_path) as session:
        table = session.measure_table()
        assert table is not None
        assert table.perturbations is not None
        assert session.state.frame is not None
        assert session.state.frame["n"] == 32
        worker, superposed = Worker(session.problem.context), Superposition(table.perturbations, table.divergence)
        for g, level in session.state.rows:  # the others are guesses
            levels = list(base_levels(session.problem.space))
            levels[g] = level
            of_frame = worker.measure_rows(g, [level], 32)[0].value  # the table's may be of 128 samples
            assert superposed(np.array([levels]), shares=False)[0][0] == pytest.approx(of_frame, rel=0.02, abs=1e-5)
        inner = reduce_space(session.problem.space, table, [(0, 1), (2, 3)]).table.perturbations
        assert inner is not None
        assert np.array_equal(inner.rows[0], np.delete(table.perturbations.rows[0], 1, axis=0), equal_nan=True)
    with open_session(tiny_task("budget.trials=100"), tmp_path) as session:  # another day, from the ledger
        again = session.measure_table()
        assert again is not None
        assert again.perturbations is not None
        assert all(
            np.array_equal(a, b, equal_nan=True)
            for a, b in zip(again.perturbations.rows, table.perturbations.rows, strict=True)
        )
        session.state.frame = None  # a ledger that is older
        assert perturbations_of(session.state, session.problem.space) is None


def test_the_base_is_measured_once_where_no_group_is_left_alone(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    with open_session(tiny_task("space.weight_bits=[2,4,8]", "space.activation_bits=[32]"), tmp_path) as session:
        table = session.measure_table()
        assert table is not None
        assert table.perturbations is not None
        assert len({row[0] for row in table.divergence}) == 1
        assert table.perturbations.base.any()
        assert not any(rows[0].any() for rows in table.perturbations.rows)
    at_base = [record for record in _records(tmp_path, "row") if record["level"] == 0 and record["n"] == 32]
    assert sum(record["passes"] > 0 for record in at_base) == 1
    assert len(at_base) == len(table.divergence)


def test_a_skipped_level_that_the_sweep_wants_after_all_is_measured(
    open_session: OpenSitting, tiny_task: MakeTask, tmp_path: Path
) -> None:
    """Its guess is scaled to what was measured since, and may then lie on the sweep."""
    with open_session(tiny_task("budget.trials=100"), tmp_path) as session:
        table = session.measure_table(
            find_unsure=lambda table, costs: [(0, 1)],
            find_unpromising=lambda space, guess, costs, names, *, factor: {(0, 1)},
            refine_share=10.0,
        )
        assert table is not None
        assert session.state.row_facts[0, 1].n == 128
