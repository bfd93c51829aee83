"""The problem of a search: everything that stands before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..devices import Device, is_here
from ..values import Objective, SearchSpace
from ._context import EvaluationContext

if TYPE_CHECKING:
    from types import ModuleType

    from ...compressors import Anatomy
    from ...evaluators import Measurement, Split
    from ...hardware_profiles import HardwareProfile
    from ..space import ParameterPlace
    from ..task import Splits, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything that stands before the first trial. `prepare` makes it.

    context             what a worker needs for an evaluation
    quality             quality and divergence of the original on the search split
    splits              search, report and calibration split of the task
    calibration_inputs  a sample, for exporters that trace the model
    devices             one for each profile that the task names; the first leads the search
    objectives          objectives of the task, the quality first
    guide               objectives that the searcher minimises: those of the task, with the divergence in place of the
                        quality unless the task says otherwise
    modules             modules of the task's own code, which are sent by value to processes that cannot import them
    model_source        how a fresh process builds the model; None if the model was handed over as an object
    model_digest        digest of the weights before anything was changed
    places              what becomes of each large parameter
    notes               lines on weights that were made plain, and on levels whose statistics are missing
    """

    task: Task
    context: EvaluationContext
    quality: Mapping[str, Measurement]
    splits: Splits
    calibration_inputs: Any
    devices: tuple[Device, ...]
    objectives: tuple[Objective, ...]
    guide: tuple[Objective, ...]
    modules: Sequence[ModuleType]
    model_source: Mapping[str, Any] | None
    model_digest: str
    places: tuple[ParameterPlace, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def report(self) -> Split:
        """The report split (test), which the search never sees."""
        return self.splits.report

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the model."""
        return self.context.anatomy

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.context.space

    @property
    def profile(self) -> HardwareProfile:
        """The hardware profile of the device that leads the search."""
        return self.devices[0].profile

    @property
    def times_here(self) -> bool:
        """True if a latency measured on this machine is a latency of the device that leads the search."""
        from ..task import environment

        return self.task.hardware.profile is None or is_here(self.profile, environment())
