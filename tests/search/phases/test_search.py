"""From a task to a front, here and on workers; and whatever goes wrong on the way becomes a recorded result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from paredown.compressors import LayerSpec
from paredown.errors import InputError, Interrupted, LimitsNotMet, NothingVerified, TaskError
from paredown.search import Completed, Failed, Front, Infeasible, Progress, Task, open_run, resume, search
from paredown.search.run import read

MakeTask = Callable[..., Task]


def _trials(run: Path) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.kind, t.candidate.levels, {name: m.value for name, m in t.metrics.items()})
        for t in open_run(run).trials
        if isinstance(t, Completed)
    ]


def test_a_search_ends_with_a_verified_front(tiny_task: MakeTask, tmp_path: Path) -> None:
    seen: list[Progress] = []
    front = search(tiny_task(), out=tmp_path / "run", workers=0, progress=seen.append)
    run = open_run(tmp_path / "run")
    assert run.state.n_mixed == 12
    assert all(note.startswith(("to be compressed: ", "left alone: ", "[repair] ")) for note in run.state.notes)
    assert [p.kind for p in front.points].count("original") == 1
    assert any(p.kind == "uniform" for p in front.points)
    mixed = [p for p in front.points if p.kind == "mixed"]
    assert mixed
    for point in front.points:
        assert point.verified, point.note
        assert point.metrics["accuracy"].split == "report"
        assert point.search_metrics["accuracy"].split == "search"
        assert point.metrics["latency_ms"].source == "measured"
        assert point.metrics["bytes"].value == point.search_metrics["bytes"].value  # the sum of shares is the file
        assert (tmp_path / "run" / "verified" / point.id / "manifest.json").exists()
    phases = list(dict.fromkeys(p.phase for p in seen if p.phase))
    assert phases == ["load", "store", "baselines", "table", "search", "export", "verify", "report", "done"]
    assert {"store", "table", "evaluation", "searcher", "verification"} <= set(run.state.seconds)
    for name in ("front.json", "front.png", "front.html", "trials.csv", "optuna.log"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_original_is_reported_exactly(tiny_task: MakeTask, tmp_path: Path) -> None:
    front = search(tiny_task("budget.trials=1"), out=tmp_path / "run", workers=0)
    original = front.original
    assert original.metrics["divergence"].value == pytest.approx(0.0, abs=1e-6)
    assert original.metrics["eager_ms"].value > 0
    assert original.config["layers"] == {}


_AGAIN = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import json
from pathlib import Path
from paredown.search import Task, search
data = json.loads(sys.argv[3])
search(Task.from_dict(data, base_dir=sys.argv[2]), out=Path(sys.argv[4]), workers=0)
"""


def test_the_same_seed_gives_the_same_trials_in_another_process(
    tiny_task: MakeTask, tmp_path: Path, repository: Path, search_unverified: Callable[..., Front]
) -> None:
    import json

    task = tiny_task("budget.trials=15")
    search_unverified(task, out=tmp_path / "here" / "run", workers=0)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    arguments = [
        str(repository / "src"),
        str(task.base_dir),
        json.dumps(task.to_dict()),
        str(tmp_path / "there" / "run"),
    ]
    subprocess.run([sys.executable, "-c", _AGAIN, *arguments], check=True, env=environment, capture_output=True)
    assert _trials(tmp_path / "here" / "run") == _trials(tmp_path / "there" / "run")


def test_another_seed_gives_other_trials(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    for seed in (0, 1):
        task = tiny_task("budget.trials=6", "search.searcher=random", f"search.seed={seed}")
        search_unverified(task, out=tmp_path / str(seed) / "run", workers=0)
    assert _trials(tmp_path / "0" / "run") != _trials(tmp_path / "1" / "run")


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("raise", "RuntimeError: the kernel took fright (tiny.py:"),
        ("memory", "out of memory: no room for 3 GB"),
        ("nan", "MetricError"),
        ("hang", "still running after 0.5 s"),
    ],
)
def test_a_candidate_that_fails_is_a_recorded_result(
    tiny_task: MakeTask, tmp_path: Path, trouble: str, says: str, search_unverified: Callable[..., Front]
) -> None:
    task = tiny_task("budget.trials=6", "budget.trial_timeout_s=0.5", "search.searcher=random", trouble=trouble)
    front = search_unverified(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    failed = [t for t in run.trials if isinstance(t, Failed)]
    assert failed
    for trial in failed:
        assert says in trial.reason
        assert trial.candidate.levels  # with its seed, enough to run it again
        assert f"t{trial.number}" not in {p.id for p in front.points}
    assert len(run.trials) == run.state.n_mixed + sum(t.kind != "mixed" for t in run.trials)
    assert run.state.n_mixed == 6


def test_a_point_that_cannot_be_exported_costs_the_run_nothing_else(
    tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason is recorded, the others are verified, and a later sitting tries it again."""
    from paredown.evaluators import runtimes

    whole = runtimes.export_model

    def broken(format: str, model: Any, assignment: Mapping[str, LayerSpec], *args: Any, **kwargs: Any) -> Path:
        if assignment.get("second", LayerSpec()).weight_bits == 4:
            raise RuntimeError("the operator aten.fright has no counterpart in second")
        return whole(format, model, assignment, *args, **kwargs)

    task = tiny_task("budget.trials=6", "quality.max_loss=1", "space.weight_bits=[4, 8]", "space.activation_bits=[32]")
    monkeypatch.setattr(runtimes, "export_model", broken)
    front = search(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    four = {p.id for p in front.points if p.config["layers"].get("second", {}).get("weight_bits") == 4}
    assert four
    for point in front.points:
        assert point.verified == (point.id not in four), point.note
        if point.id in four:
            assert "export failed" in point.note
            assert "the operator aten.fright" in point.note
            assert not point.recommended
            assert not (tmp_path / "run" / "verified" / point.id).exists()
    assert run.state.ended == "done"
    with pytest.raises(RuntimeError, match=r"aten\.fright"):
        front.export(min(four), format="paredown", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(runtimes, "export_model", whole)
    assert all(point.verified for point in resume(tmp_path / "run", workers=0).points)


def test_workers_that_die_or_hang_lose_nothing(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    for trouble, says in (("die", "the worker died"), ("hang", "still running after 6 s")):
        found = search if trouble == "hang" else search_unverified  # one of the two is verified as well
        space = ("space.weight_bits=[2, 8, 32]", "space.activation_bits=[32]")  # few in trouble: each costs a worker
        settings = ("budget.trials=2", "budget.trial_timeout_s=6", "search.searcher=random", "quality.max_loss=1")
        task = tiny_task(*space, *settings, trouble=trouble)
        with pytest.raises(NothingVerified, match=r"all 2 candidates of the search failed"):
            found(task, out=tmp_path / trouble, workers=2)
        run = open_run(tmp_path / trouble)
        front = run.front()
        failed = [t for t in run.trials if isinstance(t, Failed)]
        assert failed
        assert all(says in t.reason for t in failed)
        assert all(t.attempts == (2 if trouble == "die" else 1) for t in failed)
        assert run.state.n_mixed == 2
        assert front.original.verified == (trouble == "hang")
        completed = [t for t in run.trials if isinstance(t, Completed) and t.kind != "original"]
        assert all(t.worker["threads"] == t.worker["torch_threads"] for t in completed)


def test_it_can_be_stopped_and_goes_on(tiny_task: MakeTask, tmp_path: Path) -> None:
    """SIGINT in the middle of the search: an orderly end, and `resume` gets to exactly N."""

    def stop(progress: Progress) -> None:
        if progress.phase == "search" and progress.done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="paredown resume"):
        search(tiny_task(), out=run, workers=0, progress=stop)
    before = _trials(run)
    assert open_run(run).state.ended == "interrupted"
    front = open_run(run).front()
    assert any(p.kind == "mixed" for p in front.points)  # the front so far is there
    resume(run, workers=0)
    after = _trials(run)
    assert after[: len(before)] == before
    assert open_run(run).state.n_mixed == 12
    assert len({t.candidate for t in open_run(run).trials if t.kind == "mixed"}) == 12
    rows = [(r["group"], r["level"], r["n"]) for r in read(run / "ledger.log")[0] if r["type"] == "row"]
    assert len(rows) == len(set(rows))


def test_a_finished_run_resumed_does_nothing_again(tiny_task: MakeTask, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = search(tiny_task("budget.trials=4"), out=run, workers=0)
    n_records = sum(r["type"] in ("trial", "row", "verified") for r in read(run / "ledger.log")[0])
    again = resume(run, workers=0)
    assert sum(r["type"] in ("trial", "row", "verified") for r in read(run / "ledger.log")[0]) == n_records
    assert again.to_dict() == first.to_dict()


def test_a_greater_budget_goes_on_from_there(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    run = tmp_path / "run"
    search_unverified(tiny_task("budget.trials=3"), out=run, workers=0)
    first = _trials(run)
    search_unverified(tiny_task("budget.trials=8"), out=run, workers=0)
    assert _trials(run)[: len(first)] == first
    assert open_run(run).state.n_mixed == 8


def test_a_folder_of_another_task_is_refused(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    run = tmp_path / "run"
    search_unverified(tiny_task("budget.trials=1"), out=run, workers=0)
    with pytest.raises(InputError, match=r"belongs to another task \(\[search\] differs\)"):
        search_unverified(tiny_task("search.seed=5"), out=run, workers=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        search_unverified(tiny_task(), out=tmp_path / "full", workers=0)


def test_a_model_that_changed_is_refused_on_resume(
    tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_unverified: Callable[..., Front]
) -> None:
    import shutil

    source = tmp_path / "source"
    shutil.copytree(tiny_task().base_dir, source)
    task = Task.from_dict(tiny_task("budget.trials=2").to_dict(), base_dir=source)
    search_unverified(task, out=tmp_path / "run", workers=0)
    text = (source / "tiny.py").read_text()
    (source / "tiny.py").write_text(text.replace("torch.manual_seed(0)", "torch.manual_seed(9)"))
    with pytest.raises(TaskError, match="the model's weights changed since the run"):
        resume(tmp_path / "run", workers=0)


def test_limits_that_nothing_meets(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    task = tiny_task("budget.trials=4", "limits.accuracy.min=0.999")
    with pytest.raises(
        LimitsNotMet, match=r"no point meets the limits; the nearest is t\d+ .*accuracy .* \(needs at least 0.999\)"
    ):
        search_unverified(task, out=tmp_path / "run", workers=0)
    with pytest.raises(TaskError, match="the least that this space can reach"):
        search_unverified(tiny_task("limits.bytes.max=10"), out=tmp_path / "other", workers=0)


def test_static_limits_cost_no_forward_pass(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    task = tiny_task("budget.trials=10", "limits.bytes.max_ratio=0.3", "search.searcher=random")
    front = search_unverified(task, out=tmp_path / "run", workers=0)
    infeasible = [t for t in open_run(tmp_path / "run").trials if isinstance(t, Infeasible)]
    assert infeasible
    assert all("bytes" in t.reason for t in infeasible)
    limit = 0.3 * front.original.metrics["bytes"].value
    assert all(p.metrics["bytes"].value <= limit for p in front.points if p.kind == "mixed")


def test_a_small_space_is_exhausted_and_said_so(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    task = tiny_task("space.weight_bits=[4,32]", "space.activation_bits=[32]", "budget.trials=50")
    search_unverified(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    assert run.state.n_mixed < 8
    assert any("nothing left to propose" in note for note in run.state.notes)


def test_a_budget_of_time_ends_the_search_and_keeps_the_front(tiny_task: MakeTask, tmp_path: Path) -> None:
    front = search(tiny_task("budget.trials=100000", 'budget.time="1s"'), out=tmp_path / "run", workers=0)
    assert open_run(tmp_path / "run").state.n_mixed < 100000
    assert front.original.verified


def test_a_layer_that_never_runs_is_left_alone_and_said_once(
    tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    from paredown.testing import AWKWARD

    model, inputs = AWKWARD["never_runs"]()
    import torch

    torch.manual_seed(0)
    x = torch.randn(90, inputs.shape[1])
    with torch.no_grad():
        y = model(x).argmax(1)
    messages: list[str] = []
    (tmp_path / "d.py").write_text("import torch\ndef data():\n    return torch.load('xy.pt', weights_only=True)\n")
    torch.save((x, y), tmp_path / "xy.pt")
    (tmp_path / "d.py").write_text(
        f"import torch\ndef data():\n    return torch.load({str(tmp_path / 'xy.pt')!r}, weights_only=True)\n"
    )
    task = Task.from_dict(
        {"data": {"factory": "d.py:data"}, "hardware": {"runtime": "onnxruntime"}, "budget": {"trials": 2}},
        base_dir=tmp_path,
    )
    search_unverified(task, model=model, out=tmp_path / "run", workers=0, progress=lambda p: messages.append(p.message))
    said = [m for m in messages if "never run" in m]
    assert len(said) == 1
    search_unverified(task, model=model, out=tmp_path / "run", workers=0)  # goes on
    assert sum("never run" in note for note in open_run(tmp_path / "run").state.notes) == 1


def test_stopping_works_off_the_main_thread_too(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    """A search in a thread has no signals; it must still run to its end."""
    fronts: list[Any] = []
    thread = threading.Thread(
        target=lambda: fronts.append(search_unverified(tiny_task("budget.trials=1"), out=tmp_path / "run", workers=0))
    )
    thread.start()
    thread.join(120)
    assert len(fronts) == 1
