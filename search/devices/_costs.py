"""Modelled costs of candidates on devices: rows of groups and levels, and costs of whole candidates.

A task may name several profiles. The costs on the first have plain names (`latency_ms`). Those on another have the name
of its profile behind them (`latency_ms@raspberry-pi-5-onnxruntime`). All but the memory are sums over the groups, and
none needs a forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import InputError
from ..values import MODELLED, is_structural

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerSpec
    from ...evaluators import ActivationGraph
    from ...hardware_profiles import HardwareProfile
    from ..task import Task
    from ..values import SearchSpace

Rows = tuple[tuple[float, ...], ...]
"""A cost per group and level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRows:
    """The costs on a device, by name of the metric.

    costs     per group and level
    fixed     the part that no decision changes
    original  the whole cost of the original
    """

    costs: Mapping[str, Rows]
    fixed: Mapping[str, float]
    original: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A hardware profile with the conditions of a task.

    names           the costs of `MODELLED` to compute
    batch           batch size of the throughput, the energy and the memory
    graph           graph of the activations; None where the memory is not computed
    grid_g_per_kwh  carbon intensity of the grid; None where carbon is not computed
    """

    profile: HardwareProfile
    names: tuple[str, ...] = ("latency_ms",)
    batch: int = 1
    threads: int = 1
    graph: ActivationGraph | None = None
    grid_g_per_kwh: float | None = None

    def costs(self, anatomy: Anatomy, fqns: Sequence[str], spec: LayerSpec) -> dict[str, float]:
        """Return the costs of the layers `fqns` when each has `spec`, without the memory of activations."""
        from ...evaluators import co2_g_per_million, modelled_energy_mj, modelled_latency_ms
        from ...evaluators.memory import running_weight_bytes

        part, given = _part(anatomy, fqns), dict.fromkeys(fqns, spec)
        found = {"latency_ms": modelled_latency_ms(part, given, self.profile, threads=self.threads).total_ms}
        if "ms_per_sample" in self.names:
            batched = modelled_latency_ms(part, given, self.profile, batch=self.batch, threads=self.threads)
            found["ms_per_sample"] = batched.total_ms / self.batch
        if "energy_mj" in self.names:
            energy = modelled_energy_mj(part, given, self.profile, batch=self.batch, threads=self.threads)
            found["energy_mj"] = energy.total_mj
            if "co2_g_per_million" in self.names and self.grid_g_per_kwh is not None:
                found["co2_g_per_million"] = co2_g_per_million(energy.total_mj, self.grid_g_per_kwh)
        if "memory_bytes" in self.names:
            stays = self.profile.storage_bytes is not None
            found["memory_bytes"] = 0.0 if stays else sum(running_weight_bytes(part, given, self.profile).values())
        return found

    def whole(self, anatomy: Anatomy, assignment: Mapping[str, LayerSpec]) -> dict[str, float]:
        """Return the costs of a whole candidate, with the memory of activations.

        assignment  fqn -> spec; a layer that is not named is left alone
        """
        from ...compressors import LayerSpec
        from ...evaluators.memory import other_weight_bytes

        alike: dict[LayerSpec, list[str]] = {}
        for fqn in anatomy.fqns:
            alike.setdefault(assignment.get(fqn, LayerSpec()), []).append(fqn)
        parts = [self.costs(anatomy, fqns, spec) for spec, fqns in alike.items()]
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        if "memory_bytes" in total and self.profile.storage_bytes is None:
            total["memory_bytes"] += other_weight_bytes(anatomy)
        return total | self.exact(anatomy, assignment)

    def rows(self, anatomy: Anatomy, space: SearchSpace) -> DeviceRows:
        """Return the costs of each group and level of the space.

        Raises `InputError` for a space that removes structures, and for a profile without the energies asked for.
        """
        from ...compressors import LayerSpec
        from ...evaluators.memory import other_weight_bytes

        if any(is_structural(group.name) for group in space.groups):
            raise InputError(
                "the costs of a run with removed channels, heads or blocks on another device cannot be read from its "
                "ledger yet; search with that profile in [hardware] profile"
            )
        neutral = LayerSpec()
        decided = {fqn for group in space.groups for fqn in group.layers}
        table = [[self.costs(anatomy, group.layers, spec) for spec in group.levels] for group in space.groups]
        fixed = self.costs(anatomy, [fqn for fqn in anatomy.fqns if fqn not in decided], neutral)
        if "memory_bytes" in self.names and self.profile.storage_bytes is None:
            fixed["memory_bytes"] += other_weight_bytes(anatomy)
        costs: dict[str, list[list[float]]] = {name: [[c[name] for c in row] for row in table] for name in fixed}
        if self.graph is not None:
            self._add_peaks(anatomy, space, costs, fixed)
        return DeviceRows(
            costs={name: tuple(tuple(row) for row in rows) for name, rows in costs.items()},
            fixed=fixed,
            original=self.whole(anatomy, {}),
        )

    def exact(self, anatomy: Anatomy, assignment: Mapping[str, LayerSpec]) -> dict[str, float]:
        """Return the memory that a whole candidate needs; empty if no memory is asked for."""
        if self.graph is None:
            return {}
        from ...evaluators import memory_bytes
        from ...evaluators.memory import activation_peak

        peak = activation_peak(anatomy, assignment, self.profile, self.graph, batch=self.batch).bytes
        found = {"peak_activation_bytes": float(peak)}
        if "memory_bytes" in self.names:
            found["memory_bytes"] = memory_bytes(anatomy, assignment, self.profile, self.graph, batch=self.batch)
        return found

    def _add_peaks(
        self, anatomy: Anatomy, space: SearchSpace, costs: dict[str, list[list[float]]], fixed: dict[str, float]
    ) -> None:
        """Add an estimate of the activation peak as a sum over the groups.

        Its fixed part is the peak with every group at its narrowest level. Its rows are the increases of the peak by
        each level alone. Two levels that add at different moments are counted twice.
        """
        from ...evaluators import lowered_as

        def width(layers: Sequence[str], spec: LayerSpec) -> int:
            """Return the activation bits at run time: a layer with FP32 weights may run 8-bit activations in FP32."""
            return sum(lowered_as(anatomy[fqn], spec, self.profile).activation_bits for fqn in layers)

        narrowest: dict[str, LayerSpec] = {}
        for group in space.groups:
            least = min(group.levels, key=lambda spec: width(group.layers, spec))
            narrowest |= dict.fromkeys(group.layers, least)
        base = self.exact(anatomy, narrowest)["peak_activation_bytes"]
        rows = []
        for group in space.groups:
            added = []
            for spec in group.levels:
                alone = {**narrowest, **dict.fromkeys(group.layers, spec)}
                added.append(self.exact(anatomy, alone)["peak_activation_bytes"] - base)
            rows.append(added)
        costs["peak_activation_bytes"], fixed["peak_activation_bytes"] = rows, base
        if "memory_bytes" in self.names:
            fixed["memory_bytes"] += base
            for row, added in zip(costs["memory_bytes"], rows, strict=True):
                row[:] = [a + b for a, b in zip(row, added, strict=True)]


def devices_of(task: Task, profiles: Sequence[HardwareProfile], graph: ActivationGraph | None) -> tuple[Device, ...]:
    """Return a device for each profile, with the costs and conditions of the task."""
    names, hardware = wanted(task), task.hardware
    made = Device(
        profile=profiles[0], names=names, batch=hardware.batch, threads=hardware.threads, graph=graph,
        grid_g_per_kwh=hardware.grid_g_per_kwh,
    )  # fmt: skip
    return tuple(replace(made, profile=profile) for profile in profiles)


def wanted(task: Task) -> tuple[str, ...]:
    """Return the names of the device costs that the task asks for. The latency is always among them."""
    asked = {*task.objective_names(), *task.limits}
    if "throughput" in asked:
        asked.add("ms_per_sample")
    if "memory_bytes" in asked:
        asked.add("peak_activation_bytes")
    if "co2_g_per_million" in asked:
        asked.add("energy_mj")
    return tuple(name for name in MODELLED if name == "latency_ms" or name in asked)


def _part(anatomy: Anatomy, fqns: Sequence[str]) -> Anatomy:
    """Return the anatomy of these layers alone, in a model as large as before: its weights share the caches."""
    return replace(anatomy, layers=tuple(anatomy[fqn] for fqn in fqns), unused=(), groups=())
