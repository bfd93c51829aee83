"""What `paredown doctor` finds, and says when something is missing."""

import json

import pytest

from paredown.cli import _doctor, main
from paredown.search.task import _machine as _environment


def test_doctor_on_this_machine(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for part in ("torch", "instruction sets", "usable cores", "memory", "onnxruntime", "ready", "paredown.search"):
        assert part in out


def test_json_keys(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {
        "ok", "problems", "machine", "packages", "extras", "runtimes", "folders", "telemetry_off_during_runs",
        "tracking_uri",
    }  # fmt: skip
    assert report["machine"]["usable_cores"] >= 1
    assert report["runtimes"]["torch"]["available"]


def without(monkeypatch, *names):
    real = _environment.version_of
    monkeypatch.setattr(_environment, "version_of", lambda name: None if name in names else real(name))


def test_a_missing_core_package_is_a_problem(monkeypatch, capsys):
    without(monkeypatch, "optuna")
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "optuna is not installed" in captured.err
    assert "missing" in captured.out


def test_a_missing_extra_is_none_and_says_how_to_get_it(monkeypatch, capsys):
    without(monkeypatch, "onnxruntime")
    assert main(["doctor", "--json"]) == 0
    extras = json.loads(capsys.readouterr().out)["extras"]
    assert extras["onnx"] == {"installed": False, "missing": ["onnxruntime"], "how": "pip install 'paredown[onnx]'"}
    assert main(["doctor"]) == 0
    assert "pip install 'paredown[onnx]'" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["text file", "broken link"])
def test_a_checkout_without_links_is_recognised(kind, tmp_path, monkeypatch):
    """What git leaves with core.symlinks=false is a text file with the link's target."""
    cli = tmp_path / "paredown" / "cli"
    cli.mkdir(parents=True)
    beside = tmp_path / "paredown" / "search"
    if kind == "text file":
        beside.write_text("../../search")
    else:
        beside.symlink_to("../../nowhere")
    monkeypatch.setattr(_doctor, "__file__", str(cli / "_doctor.py"))
    monkeypatch.setattr(_doctor, "find_spec", lambda name: None)
    state = _doctor._folder("search")
    assert ("pip install" if kind == "text file" else "not there") in state
    assert not state.startswith("ok")


def test_flags_of_a_processor(monkeypatch):
    monkeypatch.setattr(_environment, "_cpuinfo", lambda: {"flags": "fpu avx2 avx512_vnni amx_int8", "model name": "X"})
    assert _environment.environment()["instruction_sets"] == ["avx2", "avx512_vnni", "amx_int8"]
    monkeypatch.setattr(_environment, "_cpuinfo", lambda: {"Features": "fp asimd asimddp i8mm"})
    assert _environment.environment()["instruction_sets"] == ["asimd", "asimddp", "i8mm"]
    monkeypatch.setattr(_environment, "_cpuinfo", dict)
    assert _environment.environment()["instruction_sets"] == []
