"""A search of a model with large outputs: they are not kept, and every figure is the one that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.evaluators.values import RecomputedOutputs, ReferenceOutputs
from paredown.evaluators.values import _reference as module
from paredown.search import Front, Task, search
from paredown.search.artifacts import _measure, _stored_outputs
from paredown.search.problem import prepare

_BYTES = 10 * 4
"""Outputs of one sample."""


def _task(**data: Any) -> Task:
    given = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "batch_size": 64, **data},
        "quality": {"max_loss": 1.0},
        "space": {"weight_bits": [4, 8], "activation_bits": [32]},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "budget": {"trials": 3},
        "mlflow": {"enabled": False},
    }
    return Task.from_dict(given, base_dir=Path(__file__).parents[1] / "tiny")


def _small_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "KEPT_BYTES", 0)
    patch.setattr(module, "BATCH_BYTES", 16 * _BYTES)
    patch.setattr(_measure, "_STORED_BYTES", 1)


def test_batches_are_smaller_and_a_note_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(_task(), store=tmp_path / "one")
    assert isinstance(whole.context.reference, ReferenceOutputs)
    assert whole.context.batch_size == 64
    _small_limits(monkeypatch)
    small = prepare(_task(), store=tmp_path / "two")
    assert isinstance(small.context.reference, RecomputedOutputs)
    assert small.context.batch_size == 16
    assert any("16 samples run at a time, not 64: the outputs of one take" in line for line in small.notes)
    assert small.quality["accuracy"].value == whole.quality["accuracy"].value


def test_the_front_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = search(_task(), out=tmp_path / "kept", workers=0)
    _small_limits(monkeypatch)
    again = search(_task(), out=tmp_path / "again", workers=0)
    assert _figures(again) == pytest.approx(_figures(kept), rel=1e-5, abs=1e-7)
    assert not list((tmp_path / "again").rglob(".fresh"))


def test_outputs_are_stored_in_files_of_some_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = torch.arange(90.0).reshape(9, 10)
    monkeypatch.setattr(_stored_outputs, "_PIECE_BYTES", 3 * _BYTES)
    batches = [outputs[:2], outputs[2:4], outputs[4:5], outputs[5:]]
    _stored_outputs.write_outputs(batches, tmp_path, "t1")
    _stored_outputs.write_outputs([outputs[:1] + 1], tmp_path, "t10")
    stored = _stored_outputs.StoredOutputs.of(tmp_path, "t1")
    assert [len(piece) for piece in stored.pieces()] == [4, 5]
    assert torch.equal(torch.cat([piece for piece in stored.pieces() if isinstance(piece, torch.Tensor)]), outputs)
    stored.remove()
    assert [file.name for file in tmp_path.iterdir()] == ["t10.000000.safetensors"]


def _figures(front: Front) -> dict[str, float]:
    names = ("accuracy", "divergence", "bytes", "file_bytes", "runtime_apart")
    assert len(front.points) > 1
    assert all(point.verified for point in front.points)
    return {f"{point.id} {name}": point.metrics[name].value for point in front.points for name in names}
