"""`paredown plan`, and what `apply` says of a format for elsewhere. The planning is faked."""

import json

import pytest

from paredown.cli import _artifact_commands, main
from paredown.digits import TASK_PATH
from paredown.errors import LimitsNotMet
from paredown.evaluators import Measurement
from paredown.search import Plan


@pytest.fixture
def planned(monkeypatch):
    """Calls of the faked `plan`, and what it gives: `.result`, an exception or a `Plan`."""

    class Calls(list):
        result = Plan(
            strategy="performance",
            config={"schema_version": 1, "layers": {"conv1": {"weight_bits": 4, "activation_bits": 8}, "head": {}}},
            metrics={
                "bytes": Measurement(value=12_345.0, unit="B"),
                "divergence": Measurement(value=0.0123, source="predicted"),
            },
            limits={"bytes": (None, 12_500.0)},
        )

    calls = Calls()

    def plan(task, **keywords):
        calls.append((task, keywords))
        if isinstance(calls.result, Exception):
            raise calls.result
        return calls.result

    monkeypatch.setattr("paredown.search.plan", plan, raising=False)
    return calls


def test_it_hands_on_what_was_asked_and_writes_the_config(planned, tmp_path, capsys):
    out = tmp_path / "config.json"
    arguments = ["--strategy", "performance", "--limit", "bytes<=25%", "--slack", "0.1", "--out", str(out)]
    assert main(["plan", "task.toml", *arguments]) == 0
    ((task, keywords),) = planned
    assert str(task) == "task.toml"
    assert (keywords["strategy"], keywords["limits"], keywords["slack"]) == ("performance", ["bytes<=25%"], 0.1)
    assert keywords["bits"] is keywords["threshold"] is None
    assert json.loads(out.read_text()) == planned.result.config
    shown = capsys.readouterr()
    assert "12.3 kB" in shown.out
    assert "w4 a8" in shown.out
    assert f"paredown apply {out} --task task.toml" in shown.err


def test_json_has_the_documented_keys(planned, repository, capsys):
    assert main(["plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    documented = (repository / "docs" / "json.md").read_text().partition("## `plan`")[2].partition("\n## ")[0]
    assert set(found) == {"strategy", "metrics", "limits", "errors", "config", "parameters", "notes", "original"}
    assert all(f"`{key}`" in documented for key in found)
    assert planned[0][0] == TASK_PATH
    assert planned[0][1]["strategy"] == "sensitivity"


def test_limits_that_nothing_keeps_have_an_exit_code_of_their_own(planned, capsys):
    planned.result = LimitsNotMet("bytes <= 10 is out of reach")
    assert main(["plan", "task.toml", "--limit", "bytes<=10"]) == 3
    assert "out of reach" in capsys.readouterr().err
    assert main(["plan", "task.toml", "--strategy", "best"]) == 2


def test_apply_says_what_was_not_expressed_and_not_run(monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "export-notes.json").write_text(json.dumps({"fallbacks": {"conv1": "dense weight"}}))
    monkeypatch.setattr("paredown.search.apply_config", lambda config, task, out, format, say: out)
    monkeypatch.setattr(_artifact_commands, "_agreement", lambda path: "agrees")
    arguments = ["apply", "c.json", "--task", "t.toml", "--out", str(out), "--format"]
    assert main([*arguments, "tensorrt-onnx"]) == 0
    said = capsys.readouterr().err
    assert "conv1: dense weight" in said
    assert "checked on onnxruntime here, not on its device" in said
    assert main([*arguments, "torchao-config"]) == 0
    said = capsys.readouterr().err
    assert "the artifact makes no claims" in said
    assert "paredown verify" not in said
