"""The evaluation context: everything that a worker needs to evaluate any candidate of a problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration
    from ...evaluators import Metric, OutputDistance, Reference, Split
    from ..space import Structured
    from ..task import Plugins, RepairSection
    from ..values import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationContext:
    """The model, data and calibration that an evaluation needs. Each worker gets it once.

    split          the search split (validation), in random order
    reference      outputs of the original on the search split, kept or computed when they are read
    batch_size     samples of one pass: the task's, or fewer where the outputs are large
    distance       distance of the outputs that are compared with the original's
    store          folder of the compressed variants
    plugins        modules of the user, which a worker imports first
    repair         the repairs that follow compression
    repair_inputs  calibration batches for the repairs; empty if there are none
    structured     coupled sets and blocks that can be removed; None if the task removes nothing
    """

    model: nn.Module
    anatomy: Anatomy
    calibration: Calibration
    space: SearchSpace
    split: Split
    reference: Reference
    metric: Metric
    distance: OutputDistance
    store: Path
    batch_size: int
    plugins: Plugins
    repair: RepairSection
    repair_inputs: tuple[Any, ...] = ()
    structured: Structured | None = None

    @property
    def divergence(self) -> str:
        """Kind of the distance: "kl" or "mse"; of several outputs, that of the first."""
        return self.distance.kind

    @property
    def class_axis(self) -> int | None:
        """Axis of the (first) output on which the classes lie; -1: the last; None: no classes were found."""
        return self.distance.class_axis

    @property
    def kl_axis(self) -> int:
        """Axis over which "kl" is summed. `prepare` refuses "kl" where none was found."""
        return -1 if self.class_axis is None else self.class_axis
