"""Models and splits as a task wants them. The search split is part of neither the calibration nor the report split."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "quantization"))
from quantbench import subjects
from quantbench.subjects import sources


def stories_model() -> nn.Module:
    return subjects.stories().model


def stories_splits() -> dict[str, Tensor]:
    """Windows of 512 tokens; calibration and report those of the subject, 48 others to search on."""
    subject = subjects.stories()
    with np.load(sources.ASSETS / "tinystories" / "tokens_dev.npz", allow_pickle=False) as archive:
        tokens = torch.from_numpy(archive[archive.files[0]].astype(np.int64))
    windows = tokens[: len(tokens) // subjects.WINDOW * subjects.WINDOW].reshape(-1, subjects.WINDOW)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(windows)))
    report = subject.report.inputs
    assert isinstance(report, Tensor)
    return {"calibration": subject.calibration, "search": windows[order[192 : 192 + 48]], "report": report}
