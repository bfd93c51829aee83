"""A run on another device: the same trials and qualities, with that device's costs. Nothing is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..._command import command
from ...errors import InputError
from ..devices import Device, DeviceRows, limits_elsewhere
from ..values import MODELLED, Completed, Failed, Trial, base_name, static_measurements

if TYPE_CHECKING:
    from ...compressors import Anatomy
    from ...evaluators import Measurement
    from ..run import StoredRun
    from ..values import Limits, SearchSpace

_FOLLOW = ("throughput", "co2_g_per_million")
_MACHINE = ("latency", "speedup", "eager_ms", "aa_floor", "throughput_per_s", "best_batch", "peak_memory_bytes")
"""Prefixes of the names of metrics that are measured on a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """The costs of a run's space on another device.

    name            name of the hardware profile
    rows            costs per group and level
    grid_g_per_kwh  carbon intensity of the grid; None where carbon is not computed
    """

    name: str
    device: Device
    rows: DeviceRows
    anatomy: Anatomy
    space: SearchSpace
    grid_g_per_kwh: float | None

    @classmethod
    def of(cls, run: StoredRun, profile: str | Path) -> OnDevice:
        """Compute the costs of a run's space on another device.

        profile  name of one of the run's own profiles; else the name or file of any profile

        Raises `ProfileError` if there is no such profile, and `InputError` for a run that did not keep the model's
        anatomy.
        """
        from ...hardware_profiles import load_profile

        facts, hardware = run.facts(), run.task.hardware
        own = [*facts.profiles]
        found = load_profile(run.task.profiles[own.index(str(profile))] if profile in own else profile)
        if facts.anatomy is None:
            raise InputError(
                f"{run.path} was made by a paredown that did not keep the model's anatomy, without which no latency "
                f"can be modelled for {found.name}; `{command('resume', run.path)}` adds it"
            )
        device = Device(
            profile=found, names=tuple(name for name in MODELLED if name in facts.costs), batch=hardware.batch,
            threads=hardware.threads, graph=facts.activations,
            grid_g_per_kwh=hardware.grid_g_per_kwh,
        )  # fmt: skip
        return cls(
            name=found.name, device=device, rows=device.rows(facts.anatomy, facts.space), anatomy=facts.anatomy,
            space=facts.space, grid_g_per_kwh=hardware.grid_g_per_kwh,
        )  # fmt: skip

    def trials(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials; the modelled costs of completed and failed ones are replaced by those on this device."""
        return [self._on_device(trial) if isinstance(trial, Completed | Failed) else trial for trial in trials]

    def _on_device(self, trial: Completed | Failed) -> Completed | Failed:
        if trial.kind == "original":
            totals = dict(self.rows.original)
        else:
            totals = {
                name: self.rows.fixed[name] + sum(row[i] for row, i in zip(rows, trial.candidate.levels, strict=True))
                for name, rows in self.rows.costs.items()
            } | self.device.exact(self.anatomy, self.space.assignment(trial.candidate))
        kept = {name: m for name, m in trial.metrics.items() if base_name(name) not in (*MODELLED, *_FOLLOW)}
        return replace(trial, metrics={**kept, **static_measurements(totals, self.grid_g_per_kwh)})

    def limits(self, run: StoredRun) -> Limits:
        """Return the run's limits; a share of the original is a share of the original's cost on this device."""
        return limits_elsewhere(run.task, run.facts().limits, self.rows.original)


def without_machine(metrics: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Return the metrics of a verified point without those that depend on the machine."""
    return {
        name: m
        for name, m in metrics.items()
        if not name.startswith(_MACHINE) and base_name(name) not in (*MODELLED, *_FOLLOW)
    }
