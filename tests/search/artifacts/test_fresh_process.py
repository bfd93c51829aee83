"""What is said of an artifact that a fresh process cannot load or run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paredown.evaluators import Split
from paredown.search.artifacts import REFERENCE, Loaded, measure_fresh
from paredown.search.task import Plugins


def _measure(folder: Path, plugins: Plugins | None = None) -> dict[str, Loaded]:
    artifact = folder / "model.safetensors"
    artifact.write_bytes(b"")
    return measure_fresh(
        {REFERENCE: artifact, "t1": artifact}, runtime="torch", split=Split("report", torch.ones(2, 3), None),
        batch_size=2, threads=1, folder=folder / "fresh", model_source=None, plugins=plugins,
    )  # fmt: skip


def test_an_original_that_cannot_be_loaded_is_every_ones_reason(tmp_path: Path) -> None:
    found = _measure(tmp_path)
    for loaded in found.values():
        assert loaded.reason is not None
        assert "the runtime 'torch' needs model_factory" in loaded.reason


@pytest.mark.parametrize("last", ["the device took fright", ""])
def test_the_last_words_of_a_process_that_died_are_kept(tmp_path: Path, last: str) -> None:
    (tmp_path / "dies.py").write_text(f"import os\nprint({last!r}, flush=True)\nos._exit(3)\n")
    found = _measure(tmp_path, Plugins(references=("dies.py",), base_dir=tmp_path))
    says = "the process ended with code 3" + (f": {last}" if last else "")
    assert {loaded.reason for loaded in found.values()} == {says}
