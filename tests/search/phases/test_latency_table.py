"""A search whose latencies are predicted: from a table at hand, or from models that it measures first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import paredown
from paredown.errors import InputError, TaskError
from paredown.evaluators.prediction import (
    NAMES,
    Bed,
    Form,
    LatencyTable,
    LayerClass,
    Layout,
    MeasuredModel,
    Timed,
    Wiring,
    forms_of,
)
from paredown.evaluators.prediction import _campaign as campaign
from paredown.search import Task, open_run
from paredown.search.phases import latency_table

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ON_ORT = (
    "hardware.runtime='onnxruntime'",
    "space.activation_bits=[8, 32]",
    'objectives.names=["accuracy", "latency_ms"]',
)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each int8 layer saves 5 %, and the clock is not looked at."""

    def time(self: Bed, forms: Mapping[str, Form]) -> Timed:
        ratio = 1.0 - 0.05 * sum(form.integer for form in forms.values())
        return Timed(ratio=ratio, error=1e-4, ms=(2.0 * ratio,), original_ms=(2.0,))

    monkeypatch.setattr(Bed, "time", time)
    monkeypatch.setattr(campaign, "N_MODELS", 10)


def test_trials_get_the_whole_prediction_searchers_a_sum_and_points_both(
    tiny_task: Callable[..., Task], tmp_path: Path, planted: None
) -> None:
    run = tmp_path / "run"
    front = paredown.search(tiny_task(*ON_ORT, "hardware.latency='measured'", "budget.trials=2"), out=run, workers=0)
    table = LatencyTable.load(run / "latency.json")
    opened = open_run(run)
    for trial in opened.trials:
        found = trial.metrics["latency_ms"]
        assert found.source == "predicted"
        assignment = {} if trial.kind == "original" else opened.space.assignment(trial.candidate)
        n_int8 = sum(s.weight_bits < 32 and s.activation_bits == 8 for s in assignment.values())
        assert found.value == pytest.approx(2.0 * (1.0 - 0.05 * n_int8), rel=0.02)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
    verified = [point for point in front.points if point.verified]
    assert verified
    for point in verified:
        assert point.metrics["latency_ms"].source == "measured"
        assert point.metrics["latency_predicted_ms"].source == "predicted"
    assert table.original_ms == pytest.approx(2.0)
    facts, space = opened.facts(), opened.space
    anatomy = facts.anatomy
    assert anatomy is not None
    rng = np.random.default_rng(0)
    rows, rest = facts.costs["latency_ms"], facts.fixed["latency_ms"]
    assert min(min(row) for row in rows) >= 0.0
    for _ in range(20):
        levels = [int(rng.integers(n)) for n in space.n_levels]
        assignment = {f: g.levels[n] for g, n in zip(space.groups, levels, strict=True) for f in g.layers}
        whole = table.predict(forms_of(anatomy, assignment)).value
        assert rest + sum(row[n] for row, n in zip(rows, levels, strict=True)) == pytest.approx(whole, rel=0.02)


def table_of(model: str) -> LatencyTable:
    layout = Layout(layers=(LayerClass(fqn="fc", name="fc", share=1.0, rows=4, columns=4),), wiring=Wiring())
    forms = [Form(kept_rank=1), Form(kept_rank=2), Form(rounded=True), Form(integer=True, rounded=True)]
    return LatencyTable(
        model=model, runtime="onnxruntime", threads=1, machine={}, layout=layout, original_ms=2.0,
        measured=tuple(MeasuredModel(forms=(form,), ratio=0.9, error=0.01) for form in forms),
        scales=dict.fromkeys(NAMES, 0.1),
    )  # fmt: skip


def test_a_table_that_was_measured_before_is_taken_and_one_of_another_model_refused(
    tiny_task: Callable[..., Task], tmp_path: Path
) -> None:
    table_of("mine").save(tmp_path / "there.json")
    task = tiny_task("hardware.runtime='onnxruntime'", f"hardware.latency_table='{tmp_path / 'there.json'}'")

    def taken(model: str, folder: str) -> LatencyTable | None:
        (tmp_path / folder).mkdir(exist_ok=True)
        problem: Any = SimpleNamespace(task=task, model_digest=model, devices=())
        unused: Any = None
        return latency_table(
            problem, unused, unused, tmp_path / folder, measure=lambda *_: pytest.fail("it was measured")
        )

    first = taken("mine", "run")
    assert first is not None
    assert first.original_ms == 2.0
    (tmp_path / "there.json").unlink()
    assert taken("mine", "run") == first  # a resumed run has its own copy
    (tmp_path / "other").mkdir()
    table_of("mine").save(tmp_path / "other" / "latency.json")
    with pytest.raises(InputError, match="is of the model 'mine', and the task has 'other'"):
        taken("other", "other")


def test_without_a_table_and_unasked_latency_is_modelled(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    paredown.search(tiny_task("budget.trials=1"), out=tmp_path / "run", workers=0)
    assert all(t.metrics["latency_ms"].source == "modelled" for t in open_run(tmp_path / "run").trials)


def test_a_runtime_that_cannot_be_predicted_is_refused_with_what_to_do(
    tiny_task: Callable[..., Task], tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match="needs the runtime onnxruntime or openvino, got torch"):
        paredown.search(tiny_task("hardware.latency='measured'"), out=tmp_path / "run", workers=0)
