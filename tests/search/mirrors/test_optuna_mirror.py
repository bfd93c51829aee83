from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from paredown.compressors import LayerSpec
from paredown.search import Candidate, Group, SearchSpace, Trial
from paredown.search.mirrors import OptunaMirror, _journal, _optuna
from paredown.testing._problems import SyntheticProblem

PROBLEM = SyntheticProblem(n_groups=3, n_levels=3, objectives=("accuracy", "bytes"))
LIMITS: dict[str, tuple[float | None, float | None]] = {"bytes": (None, 5e4), "accuracy": (0.5, None)}


def trials(n: int) -> list[Trial]:
    """Every fifth failed, every fifth infeasible."""
    made: list[Trial] = []
    for i, candidate in zip(range(n), PROBLEM.every_candidate(), strict=False):
        if i % 5 == 3:
            made.append(PROBLEM.failure(i, candidate, "failed"))
        elif i % 5 == 4:
            made.append(PROBLEM.failure(i, candidate, "infeasible"))
        else:
            made.append(PROBLEM.trial(i, candidate))
    return made


def mirror(path: Path, problem: SyntheticProblem = PROBLEM) -> OptunaMirror:
    return OptunaMirror(path, space=problem.space, objectives=problem.objectives, limits=LIMITS)


def read(path: Path) -> optuna.Study:
    """As a user or the dashboard would."""
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.load_study(study_name="paredown", storage=optuna.storages.JournalStorage(backend))


def numbers(path: Path) -> list[int]:
    return [trial.user_attrs["number"] for trial in read(path).get_trials()]


def test_the_study_says_what_the_ledger_says(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    told = trials(10)
    assert mirror(path).sync(told) == 10
    study = read(path)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "bytes"]
    for trial, frozen in zip(told, study.get_trials(), strict=True):
        assert frozen.user_attrs["number"] == trial.number
        assert frozen.user_attrs["kind"] == "mixed"
        labels = [PROBLEM.space.groups[g].levels[level].label() for g, level in enumerate(trial.candidate.levels)]
        assert list(frozen.params.values()) == labels
    done, failed, infeasible = study.get_trials()[0], study.get_trials()[3], study.get_trials()[4]
    metrics = PROBLEM.metrics(told[0].candidate)
    assert done.state == TrialState.COMPLETE
    assert done.values == [metrics["accuracy"].value, metrics["bytes"].value]
    assert done.user_attrs["divergence"] == metrics["divergence"].value
    assert done.constraints == {
        "bytes max": metrics["bytes"].value - 5e4,
        "accuracy min": 0.5 - metrics["accuracy"].value,
    }
    assert (failed.state, failed.user_attrs["reason"]) == (TrialState.FAIL, "it crashed, as told")
    assert (infeasible.state, infeasible.user_attrs["reason"]) == (TrialState.PRUNED, "too many bytes, as told")


def test_only_what_is_new_is_added(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    assert [m.sync(trials(n)) for n in (2, 2, 7)] == [2, 0, 5]
    again = mirror(path)
    assert [again.sync(trials(n)) for n in (7, 9)] == [0, 2]
    assert numbers(path) == list(range(9))


def test_all_new_trials_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    m.sync(trials(2))
    synced: list[int] = []
    monkeypatch.setattr(_journal.os, "fsync", synced.append)
    assert m.sync(trials(9)) == 7
    assert len(synced) == 1
    assert numbers(path) == list(range(9))


def test_a_batch_that_goes_wrong_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    m.sync(trials(2))
    before = path.read_bytes()
    told, frozen = trials(6), m._frozen

    def broken(trial: Trial) -> optuna.trial.FrozenTrial:
        if trial.number == 4:
            raise RuntimeError("as told")
        return frozen(trial)

    with monkeypatch.context() as patch:
        patch.setattr(m, "_frozen", broken)
        with pytest.raises(RuntimeError, match="as told"):
            m.sync(told)
    assert path.read_bytes() == before
    assert m.sync(told) == 4
    assert numbers(path) == list(range(6))


def test_what_others_add_between_two_turns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    m.sync(trials(2))
    read(path).add_trial(optuna.trial.create_trial(values=[0.5, 3.0], user_attrs={"note": "by hand"}))
    assert [m.sync(trials(n)) for n in (3, 5)] == [1, 2]
    assert [t.user_attrs.get("number") for t in read(path).get_trials()] == [0, 1, None, 2, 3, 4]


def test_nothing_yet_is_an_empty_study(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "optuna.log"
    assert mirror(path).sync([]) == 0
    assert read(path).get_trials() == []


def test_deleted_it_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    m.sync(trials(4))
    path.unlink()
    assert m.sync(trials(5)) == 5
    assert numbers(path) == list(range(5))


@pytest.mark.parametrize("damage", ["torn", "noise", "empty", "half a line in the middle"])
def test_damaged_it_is_written_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "optuna.log"
    mirror(path).sync(trials(6))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(
        {
            "torn": whole[:-20],
            "noise": b"this is no journal\n",
            "empty": b"",
            "half a line in the middle": b"".join([*lines[:3], lines[3][:30], *lines[4:]]),
        }[damage]
    )
    assert mirror(path).sync(trials(7)) == 7
    assert numbers(path) == list(range(7))


def test_a_study_of_another_space_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    mirror(path, SyntheticProblem(n_groups=4, n_levels=3, objectives=("accuracy", "bytes"))).sync([])
    other = SyntheticProblem(n_groups=3, n_levels=4, objectives=("accuracy", "bytes"))
    mirror(path, other).sync([other.trial(0, Candidate(levels=(3, 3, 3)))])
    assert mirror(path).sync(trials(3)) == 3
    assert numbers(path) == [0, 1, 2]
    objectives = SyntheticProblem(n_groups=3, n_levels=3, objectives=("divergence", "bytes"))
    assert mirror(path, objectives).sync(trials(2)) == 2
    assert [d.name for d in read(path).directions] == ["MINIMIZE", "MINIMIZE"]


def test_numbers_that_stand_for_other_candidates_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    mirror(path).sync(trials(3))
    swapped = [PROBLEM.trial(i, Candidate(levels=(2, 2, i))) for i in range(3)]
    assert mirror(path).sync(swapped) == 3
    assert read(path).get_trials()[1].values[1] == PROBLEM.table.cost_of("bytes", swapped[1].candidate)


def test_a_lock_that_a_killed_writer_left_does_not_stop_it(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    mirror(path).sync(trials(2))
    lock = Path(f"{path}.lock")
    lock.touch()
    os.utime(lock, (time.time() - 60, time.time() - 60))
    assert mirror(path).sync(trials(3)) == 1
    assert not lock.exists()


def test_a_lock_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "optuna.log"
    m = mirror(path)
    m.sync(trials(1))
    lock = Path(f"{path}.lock")
    lock.touch()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            lock.unlink()

    monkeypatch.setattr(_optuna.time, "sleep", sleep)
    assert m.sync(trials(2)) == 1
    assert len(waited) == 3


def test_killed_while_it_writes_it_loses_nothing_that_matters(tmp_path: Path) -> None:
    """SIGKILL in the middle, three times; the next one has all of it."""
    path = tmp_path / "optuna.log"
    code = """
import sys
from pathlib import Path
from paredown.search.mirrors._optuna import OptunaMirror
from paredown.testing._problems import SyntheticProblem
p = SyntheticProblem(n_groups=3, n_levels=3, objectives=("accuracy", "bytes"))
m = OptunaMirror(Path(sys.argv[1]), space=p.space, objectives=p.objectives)
told = []
for i, c in enumerate(p.every_candidate()):
    told.append(p.trial(i, c))
    m.sync(told)
    print(i, flush=True)
"""
    for stop in (1, 5, 9):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            if child.stdout is None:
                raise RuntimeError("no pipe")
            for _ in range(stop):
                child.stdout.readline()
            child.kill()
    lock = Path(f"{path}.lock")
    if lock.exists():
        os.utime(lock, (time.time() - 60, time.time() - 60))
    told = [PROBLEM.trial(i, c) for i, c in enumerate(PROBLEM.every_candidate())]
    mirror(path).sync(told)
    assert sorted(numbers(path)) == list(range(27))


def test_what_others_added_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    mirror(path).sync(trials(2))
    read(path).add_trial(optuna.trial.create_trial(values=[0.5, 3.0], user_attrs={"note": "by hand"}))
    assert mirror(path).sync(trials(3)) == 1
    assert [t.user_attrs.get("number") for t in read(path).get_trials()] == [0, 1, None, 2]


def test_levels_with_the_same_label_are_told_apart(tmp_path: Path) -> None:
    third, nearly = LayerSpec(sparsity=0.33333331), LayerSpec(sparsity=0.33333332)
    levels = (LayerSpec(), LayerSpec(weight_bits=4), third, nearly)
    assert third.label() == nearly.label() == "s33.33"
    space = SearchSpace(groups=(Group(name="fc", layers=("fc",), levels=levels),))
    m = OptunaMirror(tmp_path / "optuna.log", space=space, objectives=PROBLEM.objectives)
    m.sync([PROBLEM.failure(i, Candidate(levels=(i,)), "failed") for i in range(4)])
    shown = [t.params["fc"] for t in read(tmp_path / "optuna.log").get_trials()]
    assert shown == ["fp32", "w4", "s33.33 #2", "s33.33 #3"]


def test_a_very_large_space_shows_level_numbers(tmp_path: Path) -> None:
    problem = SyntheticProblem(n_groups=400, n_levels=7, objectives=("accuracy", "bytes"))
    path = tmp_path / "optuna.log"
    mirror(path, problem).sync([problem.trial(0, problem.uniform()[4])])
    assert set(read(path).get_trials()[0].params.values()) == {4}
