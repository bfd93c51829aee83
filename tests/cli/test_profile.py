"""`paredown profile`: what it prints and writes. The measuring is faked."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from paredown.cli import main
from paredown.evaluators import latency
from paredown.evaluators.latency import KernelFigure, MachineFigure, MachineFigures
from paredown.hardware_profiles import HardwareProfile, Treatment, load_profile
from paredown.search import Task, open_run, search
from paredown.search.task import environment


def figures(**changes: Any) -> MachineFigures:
    figure = MachineFigure(value=118.0, unit="GMAC/s", source="measured", date="2026-01-01")
    launch = MachineFigure(value=1.0, unit="µs", source="measured", date="2026-01-01")
    layer: dict[str, Any] = {"operator": "linear", "shape": "9 x 8 -> 8", "channels": (8, 8), "positions": 9}
    ran = {"n": 60, "source": "measured with a runtime", "date": "2026-01-01"}
    kernels = (
        KernelFigure(**layer, form="fp32", ms=0.2, speedup=1.0, verdict="tie", gmac_s=1.5, kernel="Gemm", **ran),
        KernelFigure(**layer, form="int8", ms=0.1, speedup=2.0, verdict="faster", gmac_s=3.0, kernel="QGemm", **ran),
        KernelFigure(**layer, form="w4"),
    )
    given: dict[str, Any] = {
        "cpu": "a CPU", "architecture": platform.machine(), "isa": ("avx2",), "cores": (1,), "n_cores": 2,
        "numa_nodes": (0,), "n_numa_nodes": 1, "caches": (), "memory_bytes": None, "runtime": "onnxruntime",
        "runtime_version": "1", "threads": 1, "runtime_threads": 1, "rates_gmac_s": {"linear int8": figure},
        "bandwidth_gb_s": {}, "overhead_us": {"kernel": launch},
        "scaling": None, "kernels": kernels, "natively": {"int8": True, "w4": False}, "seconds": 1.0,
        "date": "2026-01-01",
    }  # fmt: skip
    return MachineFigures(**given | changes)


def test_the_profile_is_written_and_the_figures_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def measure(runtime: str, **options: Any) -> MachineFigures:
        asked.update(options, runtime=runtime)
        return figures()

    monkeypatch.setattr(latency, "measure_machine", measure)
    out = tmp_path / "machine.json"
    assert main(["profile", "--runtime", "onnxruntime", "--threads", "2", "--out", str(out)]) == 0
    assert (asked["runtime"], asked["threads"], len(asked["shapes"])) == ("onnxruntime", 2, len(latency.STANDARD))
    profile = load_profile(out)
    assert (profile.cpu, profile.runtime) == ("a CPU", "onnxruntime")
    assert profile.lower(Treatment(kind="linear", weight_bits=4, activation_bits=8, channels=(8, 8))).kernel == "QGemm"
    said = capsys.readouterr()
    assert said.out == ""
    assert "linear int8: 118 GMAC/s" in said.err
    assert "runs faster than FP32 here, for some layer at least: int8" in said.err
    assert "linear, INT8: QGemm; measured: 2.00 times as fast as FP32" in said.err
    assert f'next: [hardware] profile = "{out}"' in said.err
    assert "w4" not in said.err.split("linear int8")[0]  # what has no figure has no row


def test_json_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(latency, "measure_machine", lambda runtime, **options: figures())
    assert main(["profile", "--runtime", "onnxruntime", "--base", "x86-64-openvino", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cpu"] == "a CPU"
    keys = {
        "schema_version", "date", "seconds", "cpu", "isa", "cores", "numa_nodes", "caches_bytes", "runtime",
        "runtime_version", "threads", "runtime_threads", "rates_gmac_s", "bandwidth_gb_s", "overhead_us", "kernels",
        "natively",
    }  # fmt: skip
    assert keys <= set(document)  # docs/json.md promises them
    profile = HardwareProfile.from_dict(document["profile"])
    assert profile.boundary_overhead_us == load_profile("x86-64-openvino").boundary_overhead_us


def test_a_search_uses_the_profile_and_says_what_was_measured(tmp_path: Path, repository: Path) -> None:
    """From figures to a file to a front: the profile's figures are measured, a latency that follows from them not."""
    here = environment()
    mine = figures(cpu=here["processor"], isa=tuple(here["instruction_sets"]), runtime="torch")
    profile = latency.machine_profile(mine, load_profile("x86-64-torch"), name="mine")
    assert (profile.rates_gmac_s["fp32_linear"].kind, profile.rates_gmac_s["fp32"].kind) == ("measured", "modelled")
    task = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [8, 32]}, "quality": {"max_loss": 1.0}, "search": {"table_samples": 32},
        "hardware": {
            "runtime": "torch", "latency_seconds": 0.02, "profile": str(profile.save(tmp_path / "machine.json"))
        },
        "objectives": {"names": ["accuracy", "latency_ms"]}, "budget": {"trials": 2}, "mlflow": {"enabled": False},
    }  # fmt: skip
    tiny = repository / "tests" / "search" / "tiny"
    front = search(Task.from_dict(task, base_dir=tiny), out=tmp_path / "run", workers=0)
    assert front.profile == "mine"
    for point in front.points:
        assert point.search_metrics["latency_ms"].source == "modelled"
        if point.verified:
            assert point.metrics["latency_ms"].source == "measured"
    notes = open_run(tmp_path / "run").state.notes
    assert not any("another CPU" in note for note in notes)


def test_a_runtime_that_cannot_be_measured_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--runtime", "torch"]) == 2
    assert "openvino or onnxruntime, got 'torch'" in capsys.readouterr().err
