"""`paredown profile`: what it prints and writes. The measuring is faked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paredown.cli import main
from paredown.evaluators import latency
from paredown.evaluators.latency import KernelFigure, MachineFigure, MachineFigures


def figures(**changes: Any) -> MachineFigures:
    figure = MachineFigure(value=118.0, unit="GMAC/s", source="measured", date="2026-01-01")
    kernels = (
        KernelFigure(
            operator="linear", shape="1 x 8 -> 8", form="int8", ms=0.1, speedup=2.0, gmac_s=3.0, kernel="QGemm"
        ),
        KernelFigure(operator="linear", shape="1 x 8 -> 8", form="w4", ms=None, speedup=None, gmac_s=None, kernel=""),
    )
    return MachineFigures(
        cpu="a CPU", isa=("avx2",), cores=(1,), numa_nodes=(0,), caches_bytes={}, runtime="onnxruntime",
        runtime_version="1", threads=1, runtime_threads=1, rates_gmac_s={"linear int8": figure}, bandwidth_gb_s={},
        overhead_us={}, kernels=kernels, natively={"int8": True, "w4": False}, seconds=1.0, date="2026-01-01",
    )  # fmt: skip


def test_figures_are_written_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def measure(runtime: str, **options: Any) -> MachineFigures:
        asked.update(options, runtime=runtime)
        return figures()

    monkeypatch.setattr(latency, "measure_machine", measure)
    out = tmp_path / "figures.json"
    assert main(["profile", "--runtime", "onnxruntime", "--threads", "2", "--out", str(out)]) == 0
    assert (asked["runtime"], asked["threads"], len(asked["shapes"])) == ("onnxruntime", 2, len(latency.STANDARD))
    assert MachineFigures.from_dict(json.loads(out.read_text())) == figures()
    said = capsys.readouterr()
    assert said.out == ""
    assert "linear int8: 118 GMAC/s" in said.err
    assert "runs faster than FP32 here, for some layer at least: int8" in said.err
    assert "QGemm" in said.err
    assert "w4" not in said.err.split("linear int8")[0]  # what has no figure has no row


def test_json_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(latency, "measure_machine", lambda runtime, **options: figures())
    assert main(["profile", "--runtime", "onnxruntime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cpu"] == "a CPU"


def test_a_runtime_that_cannot_be_measured_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--runtime", "torch"]) == 2
    assert "openvino or onnxruntime, got 'torch'" in capsys.readouterr().err
