"""A model and its splits as a task wants them, where no other benchmark has them in that shape."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "quantization"))
from quantbench.subjects import SUBJECTS


def resnet8_model() -> nn.Module:
    return SUBJECTS["resnet8"]().model


def resnet8_splits() -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    """CIFAR-10 as that net takes it; the three parts have no sample in common."""
    subject = SUBJECTS["resnet8"]()
    parts: dict[str, Tensor | tuple[Tensor, Tensor]] = {"calibration": subject.calibration}
    for split in (subject.search, subject.report):
        assert isinstance(split.inputs, Tensor)
        assert split.targets is not None
        parts[split.name] = split.inputs, split.targets
    return parts
