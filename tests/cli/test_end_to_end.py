"""The commands one after another, as a person gives them, on a task that runs in seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.cli import main

TINY = Path(__file__).parents[1] / "search" / "tiny" / "tiny.py"

TASK = """
[model]
factory = "tiny.py:model"
[data]
factory = "tiny.py:data"
calibration = 40
search = 160
report = 200
[space]
weight_bits = [2, 4, 8, 32]
[hardware]
runtime = "onnxruntime"
latency_seconds = 0.02
[search]
table_samples = 32
[budget]
trials = 8
"""

Call = Callable[..., tuple[int, str, str]]


def _metric(name: str) -> list[str]:
    return ["search", "{task}", "-o", f'quality.metric="tiny.py:{name}"', "-o", "quality.maximise=true"]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    shutil.copy(TINY, folder)
    (folder / "task.toml").write_text(TASK)
    return folder / "task.toml"


@pytest.fixture(scope="module")
def run(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["search", str(task), "--out", str(out), "--workers", "0"]) == 0
    return out


def _json(text: str) -> Any:
    return json.loads(text)


def test_front_and_status(call: Call, run: Path) -> None:
    code, out, _ = call("front", run, "--json")
    front = _json(out)
    assert code == 0
    assert {p["kind"] for p in front["points"]} >= {"original", "uniform"}
    assert {o["name"] for o in front["objectives"]} == {"accuracy", "bytes"}
    for point in front["points"]:
        assert point["metrics"]["accuracy"]["split"] == "report"
        assert set(point["metrics"]["bytes"]) == {"value", "low", "high", "unit", "source", "split"}
    code, out, _ = call("status", run, "--json")
    assert code == 0
    assert _json(out)["trials"]["mixed"] == 8
    code, out, err = call("front", run)
    assert code == 0
    assert "original" in out
    assert "verified" in err  # the legend is not data


def test_explain_adds_up(call: Call, run: Path) -> None:
    points = _json(call("front", run, "--all", "--json")[1])["points"]
    point = next(p for p in points if p["kind"] == "mixed")
    code, out, _ = call("explain", run, point["id"], "--json")
    layers = _json(out)
    layers = layers["layers"] if isinstance(layers, dict) else layers
    assert code == 0
    original = next(p for p in points if p["kind"] == "original")["metrics"]["bytes"]["value"]
    saved = sum(layer["bytes_saved"] for layer in layers)
    assert original - saved == point["metrics"]["bytes"]["value"]


@pytest.mark.parametrize("format", ["paredown", "onnx", "pt2"])
def test_export_then_verify(call: Call, run: Path, tmp_path: Path, format: str) -> None:
    point = next(p["id"] for p in _json(call("front", run, "--json")[1])["points"] if p["kind"] != "original")
    out = tmp_path / "artifact"
    code, _, err = call("export", run, "--point", point, "--format", format, "--out", out)
    assert code == 0, err
    code, text, err = call("verify", out, "--task", run, "--json")
    assert code == 0, err
    found = _json(text)
    assert found["ok"]
    assert found["claims"]["accuracy"]["value"] == pytest.approx(found["measured"]["accuracy"]["value"])
    code, _, err = call("export", run, "--point", point, "--format", format, "--out", out)
    assert (code, "is not empty" in err) == (2, True)


def test_a_config_is_exported_edited_and_applied(call: Call, run: Path, task: Path, tmp_path: Path) -> None:
    point = next(p["id"] for p in _json(call("front", run, "--json")[1])["points"] if p["kind"] == "uniform")
    assert call("export", run, "--point", point, "--format", "config", "--out", tmp_path / "c")[0] == 0
    path = tmp_path / "c" / "config.json"
    config = json.loads(path.read_text())
    config["layers"]["first"] = {"weight_bits": 3, "sparsity": 0.25}  # not in the task's space; a hand may write it
    path.write_text(json.dumps(config))
    code, _, err = call("apply", path, "--task", task, "--out", tmp_path / "applied")
    assert code == 0, err
    assert call("verify", tmp_path / "applied", "--task", task)[0] == 0
    code, _, err = call("verify", tmp_path / "applied")
    assert (code, "give the task that you trust with --task" in err) == (2, True)
    config["layers"]["frist"] = config["layers"].pop("first")
    path.write_text(json.dumps(config))
    code, _, err = call("apply", path, "--task", task, "--out", tmp_path / "wrong")
    assert code == 2
    assert "did you mean 'first'" in err
    assert not (tmp_path / "wrong").exists()


def test_a_flipped_byte_is_named_and_refused(call: Call, run: Path, tmp_path: Path) -> None:
    point = next(p["id"] for p in _json(call("front", run, "--json")[1])["points"] if p["kind"] == "uniform")
    out = tmp_path / "artifact"
    call("export", run, "--point", point, "--format", "onnx", "--out", out)
    model = next(out.glob("*.onnx"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    code, stdout, err = call("verify", out)
    assert code == 2
    assert model.name in err
    assert "does not match its checksum" in err
    assert err.count("\n") == 1
    assert stdout == ""


def test_a_flipped_byte_in_the_store_is_named_and_refused(call: Call, task: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("search", task, "--out", out, "--workers", 0, "--trials", 1)[0] == 0
    victim = max((tmp_path / "store").rglob("*.safetensors"), key=lambda p: (p.stat().st_size, p.name))
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(bytes(data))
    code, _, err = call("search", task, "--out", tmp_path / "second", "--workers", 0, "--trials", 1)
    assert code == 2
    assert victim.name in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["search", "none.toml"], 2, "none.toml"),
        (["resume", "nowhere"], 2, "no run at nowhere"),
        (["status", "nowhere"], 2, "no run at nowhere"),
        (["front", "nowhere"], 2, "no run at nowhere"),
        (["verify", "nowhere"], 2, "no artifact at nowhere"),
        (["apply", "none.json", "--task", "{task}", "--out", "{out}"], 2, "no such config: none.json"),
        (["search", "{task}", "-o", "space.weigth_bits=[4]"], 2, "weight_bits"),
        (["search", "{task}", "-o", "budget.trials=0"], 2, "trials"),
        (["search", "{task}", "--workers", "-1"], 2, "workers"),
        (["search", "{task}", "--trials", "-3"], 2, "trials"),
        (["search", "{task}", "--budget", "0"], 2, "0"),
        (["search", "{task}", "--searcher", "psychic"], 2, "psychic"),
        (["search", "{task}", "-o", "hardware.runtime=abacus"], 2, "abacus"),
        (["search", "{task}", "-o", "hardware.profile=nokia"], 2, "nokia"),
        (["search", "{task}", "-o", "quality.metric=charm"], 2, "charm"),
        (_metric("nan_metric"), 2, "nan"),
        (_metric("scalar_metric"), 2, "expected shape (160,), got ()"),
        (["export", "{run}", "--point", "t999", "--format", "onnx", "--out", "{out}"], 2, "no point 't999'"),
        (["export", "{run}", "--point", "../../etc", "--format", "onnx", "--out", "{out}"], 2, "no point"),
        (["export", "{run}", "--point", "accuracy>=2", "--format", "onnx", "--out", "{out}"], 3, "nearest is t"),
        (["export", "{run}", "--point", "t1", "--format", "gif", "--out", "{out}"], 2, "gif"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_a_code(
    call: Call, task: Path, run: Path, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    out = tmp_path / "out"
    arguments = [a.format(task=task, run=run, out=out) for a in arguments]
    if arguments[0] == "search":
        arguments += ["--out", str(out)]
    got, stdout, err = call(*arguments)
    assert got == code, err
    assert says.lower() in err.lower()
    assert stdout == ""
    assert len(err.strip().splitlines()) <= 3
    assert "Traceback" not in err
