"""A table is data: it comes back as it went, and what is none is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import InputError
from paredown.evaluators.prediction import NAMES, Edge, Form, LatencyTable, LayerClass, Layout, MeasuredModel, Wiring

INT8 = Form(integer=True, rounded=True)


@pytest.fixture
def table() -> LatencyTable:
    layers = tuple(LayerClass(fqn=f"l{n}", name="same", share=1 / 3, rows=8, columns=8) for n in range(3))
    edges = tuple(Edge(writer=f"l{n}", reader=f"l{n + 1}", through="Relu") for n in range(2))
    layout = Layout(layers=layers, wiring=Wiring(edges=edges, tensors=(("l0", "l1"),)))
    rows = [
        ((INT8, Form(), Form()), 0.9),
        ((INT8,) * 3, 0.7),
        ((Form(), INT8, INT8), 0.8),
        ((Form(kept_rank=2),) * 3, 1.1),
    ]
    return LatencyTable(
        model="digest", runtime="openvino", threads=1, machine={"cpu": "a CPU"}, layout=layout, original_ms=2.0,
        measured=tuple(
            MeasuredModel(forms=forms, ratio=ratio, error=0.002, ms=(2 * ratio,), original_ms=(2.0,))
            for forms, ratio in rows
        ),
        scales=dict.fromkeys(NAMES, 0.1) | {"noise": 0.002}, seconds=3.0, date="2026-01-01",
    )  # fmt: skip


def test_it_comes_back_and_predicts_the_same(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.to_dict() == table.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]
    forms = {"l1": INT8}
    assert again.predict(forms) == table.predict(forms)


def test_a_prediction_is_in_milliseconds_of_the_original(table: LatencyTable) -> None:
    found = table.predict(dict.fromkeys(("l0", "l1", "l2"), INT8))
    assert (found.unit, found.source, found.n) == ("ms", "predicted", 4)
    assert found.value == pytest.approx(1.4, rel=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert table.predict(dict.fromkeys(("l0", "l1", "l2"), INT8), original_ms=4.0).value == pytest.approx(
        2 * found.value
    )
    assert table.predict({}).value == pytest.approx(2.0)


def test_its_quality_is_of_models_left_out(table: LatencyTable) -> None:
    quality = table.quality()
    assert quality.n == 4
    assert 0.0 < quality.mape <= quality.worst
    assert quality.noise == pytest.approx(0.002 / 0.85, rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"runtime": None}, "the key 'runtime' is missing"),
        ({"schema_version": 7}, "schema_version must be 1, got 7"),
        ({"original_ms": 0.0}, "original_ms must be positive, got 0.0"),
        ({"scales": {"noise": 1.0}}, "scales must be lone, kind"),
        ({"measured": []}, "at least 4 measured models are needed, got 0"),
        ({"layers": [{"fqn": "l0"}]}, "table: .*missing"),
    ],
)
def test_what_is_no_table_is_refused(table: LatencyTable, change: dict[str, Any], message: str) -> None:
    data = {key: value for key, value in {**table.to_dict(), **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        LatencyTable.from_dict(data, source="table")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ratio", -1.0, "a ratio must be positive"),
        ("forms", ["int8"], "a measured model has 1 forms, and there are 3 layers"),
        ("forms", ["int8", "int8", "int4"], "a layer's form must be like fp32"),
    ],
)
def test_a_measured_model_that_cannot_be_is_refused(table: LatencyTable, key: str, value: Any, message: str) -> None:
    data = table.to_dict()
    data["measured"][0][key] = value
    with pytest.raises(InputError, match=message):
        LatencyTable.from_dict(data)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text(json.dumps([1]))
    for name, message in (("bad", "is no JSON"), ("list", "must be a JSON object, got list"), ("none", "cannot read")):
        with pytest.raises(InputError, match=message):
            LatencyTable.load(tmp_path / f"{name}.json")


def test_it_is_of_one_model_runtime_and_number_of_threads(table: LatencyTable) -> None:
    right = {"model": "digest", "runtime": "openvino", "threads": 1}
    table.check(**right)  # type: ignore[arg-type]
    for key, wrong in (("model", "other"), ("runtime", "onnxruntime"), ("threads", 2)):
        with pytest.raises(InputError, match=f"is of the {key} .* and the task has {wrong!r}"):
            table.check(**{**right, key: wrong})  # type: ignore[arg-type]
    assert dataclasses.is_dataclass(table)
