"""Artifacts for elsewhere: what is claimed of them, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from paredown.errors import InputError
from paredown.search import Task, apply_config, verify_artifact
from paredown.search.artifacts import MANIFEST, read_artifact

W4 = {"schema_version": 1, "layers": {fqn: {"weight_bits": 4} for fqn in ("first", "second", "last")}}


def test_what_is_loaded_here_is_measured_but_for_the_time(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    task = tiny_task()
    out = apply_config(W4, task, tmp_path / "out", format="compressed-tensors")
    artifact = read_artifact(out)
    assert (artifact.format, artifact.runtime, artifact.main) == (
        "compressed-tensors",
        "torch",
        "huggingface/config.json",
    )
    assert artifact.claims["accuracy"].source == "measured"
    assert artifact.claims["latency_ms"].source == "modelled"
    assert "speedup" not in artifact.claims
    checked = verify_artifact(out, task=task)
    assert checked["ok"]
    assert "latency_ms" not in checked["measured"]


def test_what_nothing_here_can_run_has_no_claims(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    out = apply_config(W4, tiny_task(), tmp_path / "out", format="torchao-config")
    assert sorted(file.name for file in out.iterdir()) == ["export-notes.json", "torchao.json"]
    assert json.loads((out / "export-notes.json").read_text())["written_as"]["first"] == "IntxWeightOnlyConfig"
    with pytest.raises(InputError, match=rf"expected a folder with {MANIFEST}"):
        verify_artifact(out)


def test_bare_weights_of_a_model_from_python_are_refused(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'compressed-tensors' holds weights only"):
        apply_config(W4, tiny_task(), tmp_path / "out", format="compressed-tensors", model=nn.Linear(16, 10))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["onnx", "openvino", "tensorrt-onnx", "compressed-tensors"])
def test_scales_of_several_rows_leave_as_dense_weights(
    tiny_task: Callable[..., Task], tmp_path: Path, format: str
) -> None:
    config = {"schema_version": 2, "layers": {"second": {"weight_bits": 4, "group_size": "8x8"}}}
    out = apply_config(config, tiny_task(), tmp_path / "out", format=format)
    assert read_artifact(out).agreement.startswith("outputs within")
