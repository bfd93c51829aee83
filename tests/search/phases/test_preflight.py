"""What a runtime cannot run is said before the search, and a search without a result does not end well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paredown.errors import NothingVerified
from paredown.evaluators.runtimes import ExportError, TorchRuntime, get_runtime
from paredown.search import Failed, Task, search
from paredown.search.phases import check_results
from paredown.search.run import read_run


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The runtime "torch", which does not export what `refuses(fqn -> spec)` says."""
    control = SimpleNamespace(refuses=lambda assignment: False, exports=0, loads=0)
    export, load = TorchRuntime.export, TorchRuntime.load

    def exported(self: Any, model: Any, assignment: Any, *rest: Any, **named: Any) -> Path:
        control.exports += 1
        if control.refuses(assignment):
            raise ExportError("the weight of second is not in the exported graph")
        return export(self, model, assignment, *rest, **named)

    def loaded(self: Any, path: Path, **named: Any) -> Any:
        control.loads += 1
        return load(self, path, **named)

    monkeypatch.setattr(TorchRuntime, "export", exported)
    monkeypatch.setattr(TorchRuntime, "load", loaded)
    assert isinstance(get_runtime("torch"), TorchRuntime)
    return control


def test_a_runtime_that_runs_no_compressed_form_is_refused_before_the_search(
    tiny_task: Callable[..., Task], tmp_path: Path, refusing: SimpleNamespace
) -> None:
    refusing.refuses = lambda assignment: any(not spec.is_neutral for spec in assignment.values())
    says = (
        r"torch runs no compressed form of this model: uniform \S+: ExportError: the weight of second is not .*; "
        r'leave it alone with \[space\] leave = \["second"\], or take another \[hardware\] runtime'
    )
    with pytest.raises(NothingVerified, match=says):
        search(tiny_task(), out=tmp_path / "run", workers=0)
    stored = read_run(tmp_path / "run")
    assert stored.trials == []  # nothing was spent
    with pytest.raises(NothingVerified):  # and a second session does not forget it
        search(tiny_task(), out=tmp_path / "run", workers=0)


def test_one_kind_that_the_runtime_does_not_run_is_noted(
    tiny_task: Callable[..., Task], tmp_path: Path, refusing: SimpleNamespace, search_unverified: Callable[..., Any]
) -> None:
    refusing.refuses = lambda assignment: any(spec.changes_activation for spec in assignment.values())
    task = tiny_task("space.weight_bits=[2, 4]", "space.activation_bits=[8, 32]", "budget.trials=1")
    search_unverified(task, out=tmp_path / "run", workers=0)
    (note,) = [n for n in read_run(tmp_path / "run").state.notes if "does not run" in n]
    assert note.startswith("torch does not run uniform w2 a8, so no point with the like will be verified: ExportError")
    assert refusing.exports == 3  # the original, and one setting of each of two kinds
    search_unverified(task, out=tmp_path / "run", workers=0)
    assert refusing.exports == 3


def test_a_search_whose_candidates_all_failed_does_not_end_well(
    tiny_task: Callable[..., Task], tmp_path: Path, search_unverified: Callable[..., Any]
) -> None:
    search_unverified(tiny_task("budget.trials=2"), out=tmp_path / "run", workers=0)
    run = read_run(tmp_path / "run")
    for kinds, says in (
        (("mixed",), r"all 2 candidates of the search failed, the first \(t\d+\) for this reason: too slow; `paredown"),
        (("uniform", "mixed"), r"all \d+ compressed forms of the model failed, the first \(t1\) for"),
    ):
        run.state.trials = [
            Failed(number=t.number, candidate=t.candidate, kind=t.kind, reason="too slow", seed=0)
            if t.kind in kinds
            else t
            for t in run.trials
        ]
        with pytest.raises(NothingVerified, match=says):
            check_results(run)


def test_a_run_of_which_nothing_could_be_verified_does_not_end_well(
    tiny_task: Callable[..., Task], tmp_path: Path, search_unverified: Callable[..., Any]
) -> None:
    search_unverified(tiny_task("budget.trials=2"), out=tmp_path / "run", workers=0)
    run = read_run(tmp_path / "run")
    check_results(run)
    record = {"type": "verified", "metrics": {}, "scores": [], "agreement": ""}
    for trial in run.trials:
        why = None if trial.kind == "original" else "no kernel"
        run.state.add({**record, "number": trial.number, "reason": why})
    with pytest.raises(NothingVerified, match=r"none of \d+ compressed points could be .* on torch; t1: no"):
        check_results(run)
    run.state.verified[1] = dataclasses.replace(run.state.verified[1], reason=None)
    check_results(run)
