"""The nets, their calibration data with labels (never the report's), and channels that can be removed."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from paredown.compressors import Anatomy, trace_anatomy
from paredown.compressors.structure import CoupledSet, Structure, UnitEvidence, collect, find

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "quantization"))
from quantbench.subjects import SUBJECTS, Subject

NAMES = ("resnet20", "resnet8", "dscnn")
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Prunable:
    """evidence is collected with labels drawn from the model itself: the calibration data has none."""

    subject: Subject
    structure: Structure
    anatomy: Anatomy
    evidence: dict[str, UnitEvidence]

    @property
    def model(self) -> nn.Module:
        return self.subject.model

    @property
    def sets(self) -> tuple[CoupledSet, ...]:
        return self.structure.of_kind("channels")


def opened(name: str) -> Prunable:
    subject = SUBJECTS[name]()
    structure = find(subject.model, subject.calibration[:2], kinds=["channels"])
    batches = subject.calibration.split(16)
    return Prunable(
        subject=subject,
        structure=structure,
        anatomy=trace_anatomy(subject.model, subject.calibration[:1]),
        evidence=collect(subject.model, batches, structure.sets),
    )


def macs(model: nn.Module, inputs: Tensor) -> int:
    return trace_anatomy(model, inputs[:1]).macs


def reestimated(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose batch norms have the statistics of `inputs`, every batch alike (EagleEye, Li et al. 2020)."""
    model = copy.deepcopy(model)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in inputs.split(BATCH):
            model(batch)
    return model.eval()


def right(prunable: Prunable, model: nn.Module) -> Tensor:
    """(samples of the report split,) 1.0 where the model is right."""
    report = prunable.subject.report
    with torch.no_grad():
        outputs = torch.cat([model(inputs) for inputs, _ in report.batches(prunable.subject.batch_size)])
    assert report.targets is not None
    return (outputs.argmax(dim=1) == report.targets).double()
