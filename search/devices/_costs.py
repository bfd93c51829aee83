"""What candidates cost on devices, without an evaluation: rows of groups and levels, and the measurements of sums.

A task may name several profiles. The costs on the first have plain names (`latency_ms`), those on another bear its name
(`latency_ms@raspberry-pi-5-onnxruntime`): all of them are sums over the groups, and cost no forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...evaluators import Measurement
from ..task import ISA, default_profile
from ..values import MODELLED, is_structural

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerSpec
    from ...evaluators import ActivationGraph
    from ...hardware_profiles import HardwareProfile
    from ..task import Task
    from ..values import SearchSpace

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRows:
    """By metric: per group and level; what is paid whatever is chosen; and all of the original."""

    costs: Mapping[str, Rows]
    fixed: Mapping[str, float]
    original: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One profile, as a task looks at it.

    names           the metrics of `MODELLED` that are wanted
    graph           of the activations, where the memory is wanted
    grid_g_per_kwh  of the grid, where carbon is wanted
    """

    profile: HardwareProfile
    names: tuple[str, ...] = ("latency_ms",)
    batch: int = 1
    threads: int = 1
    graph: ActivationGraph | None = None
    grid_g_per_kwh: float | None = None

    def costs(self, anatomy: Anatomy, fqns: Sequence[str], spec: LayerSpec) -> dict[str, float]:
        """Of these layers, all treated so; without the activations' memory."""
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
        """Of a whole candidate, the activations' memory included. A layer that is not named is left alone."""
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
        """Raises `InputError` where the profile has no energies and they are wanted."""
        from ...compressors import LayerSpec
        from ...evaluators.memory import other_weight_bytes

        if any(is_structural(group.name) for group in space.groups):
            raise InputError(
                "what a run with removed channels, heads or blocks costs on another device cannot be told from its "
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
        """The memory that a whole candidate needs; empty where it is not wanted."""
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
        """A guess at the peak as a sum: what it is with every group at its narrowest, and what each level adds to that
        alone. Two that add at different moments are counted twice."""
        from ...evaluators import lowered_as

        def width(layers: Sequence[str], spec: LayerSpec) -> int:
            """As it runs: 8-bit activations of a layer whose weights stay in FP32 may run in FP32 too."""
            return sum(lowered_as(anatomy[fqn], spec, self.profile).activation_bits for fqn in layers)

        reduce_space: dict[str, LayerSpec] = {}
        for group in space.groups:
            least = min(group.levels, key=lambda spec: width(group.layers, spec))
            reduce_space |= dict.fromkeys(group.layers, least)
        base = self.exact(anatomy, reduce_space)["peak_activation_bytes"]
        rows = []
        for group in space.groups:
            added = []
            for spec in group.levels:
                alone = {**reduce_space, **dict.fromkeys(group.layers, spec)}
                added.append(self.exact(anatomy, alone)["peak_activation_bytes"] - base)
            rows.append(added)
        costs["peak_activation_bytes"], fixed["peak_activation_bytes"] = rows, base
        if "memory_bytes" in self.names:
            fixed["memory_bytes"] += base
            for row, added in zip(costs["memory_bytes"], rows, strict=True):
                row[:] = [a + b for a, b in zip(row, added, strict=True)]


def devices_of(task: Task, profiles: Sequence[HardwareProfile], graph: ActivationGraph | None) -> tuple[Device, ...]:
    names, hardware = wanted(task), task.hardware
    made = Device(
        profile=profiles[0], names=names, batch=hardware.batch, threads=hardware.threads, graph=graph,
        grid_g_per_kwh=hardware.grid_g_per_kwh,
    )  # fmt: skip
    return tuple(replace(made, profile=profile) for profile in profiles)


def wanted(task: Task) -> tuple[str, ...]:
    """The device's costs that the task asks for: the latency always."""
    asked = {*task.objective_names(), *task.limits}
    if "throughput" in asked:
        asked.add("ms_per_sample")
    if "memory_bytes" in asked:
        asked.add("peak_activation_bytes")
    if "co2_g_per_million" in asked:
        asked.add("energy_mj")
    return tuple(name for name in MODELLED if name == "latency_ms" or name in asked)


_ALSO_CALLED = {"arm64": "aarch64", "AMD64": "x86_64"}
"""By macOS and Windows."""


def is_here(profile: HardwareProfile, machine: Mapping[str, Any]) -> bool:
    """Whether what runs on this machine says anything of the profile's device: a cpu of this architecture.

    machine  as `environment` gives it
    """
    name = machine["architecture"]
    return profile.kind == "cpu" and profile.architecture in ("unknown", _ALSO_CALLED.get(name, name))


def describe_profile_mismatch(
    profile: HardwareProfile, runtime: str, machine: Mapping[str, Any], *, by_default: bool = False
) -> list[str]:
    """What a person should know of a profile that does not fit the machine or the runtime.

    by_default  nobody named it, so that it says nothing of where the model will run
    """
    here = is_here(profile, machine)
    if by_default and not here:
        line = (
            f"the default profile {profile.name} is of {profile.architecture}, and this machine is "
            f"{machine['architecture']}: what is modelled is another machine's; name a profile in [hardware]"
        )
        return [line]
    if not here:
        line = (
            f"the device of the profile {profile.name} ({profile.device}, {profile.runtime}) is not here: its latency "
            f"stays modelled and is not measured; quality is verified on {runtime} here"
        )
        return [line]
    lines = []
    missing = [name for name in profile.isa if name in ISA and name not in machine["instruction_sets"]]
    if missing and machine["instruction_sets"]:  # where none is known, nothing can be said
        lines.append(
            f"the profile {profile.name} assumes {', '.join(missing)}, which this CPU has not: what is modelled from "
            "it is another machine's, and what is measured is this one's"
        )
        if not profile.saturates and (fitting := default_profile(runtime, machine)) != f"x86-64-{runtime}":
            lines[-1] += f". 8-bit weights overflow this CPU's integer kernels; with {fitting} they have 7"
    lines += _of_another_cpu(profile, machine)
    if profile.runtime != runtime:
        lines.append(
            f"the profile {profile.name} is of the runtime {profile.runtime}, and the task's is {runtime}: what is "
            "modelled and what is measured are different things"
        )
    return lines


def _of_another_cpu(profile: HardwareProfile, machine: Mapping[str, Any]) -> list[str]:
    """A profile that was measured says on which CPU. One with the same name may still be another (virtual machines tell
    a vendor's and no more), which its instruction sets give away."""
    if not profile.cpu:
        return []
    here, more = machine["processor"], set(machine["instruction_sets"]) - set(profile.isa)
    if profile.cpu == here and not more:
        return []
    difference = f"this one is a {here}"
    if profile.cpu == here:
        difference = f"this one of that name also has {', '.join(sorted(more))}"
    line = (
        f"the figures of the profile {profile.name} were measured on another CPU than this: on a {profile.cpu}, and "
        f"{difference}; `paredown profile --runtime {profile.runtime} --out FILE` measures this one"
    )
    return [line]


FAR_OFF = 2.0
"""A modelled latency that is wrong by more than this factor is told, where the profile claims to be measured here."""


def describe_latency_mismatch(profile: HardwareProfile, said: Measurement, took: Measurement) -> str | None:
    """What a person should know where a profile that was measured does not foresee what the original took here."""
    if not profile.cpu or said.source != "modelled" or took.source != "measured" or min(said.value, took.value) <= 0:
        return None
    if max(said.value / took.value, took.value / said.value) <= FAR_OFF:
        return None
    return (
        f"the original took {took.value:.3g} ms, and the profile {profile.name} says {said.value:.3g} ms: either it "
        "was not measured on this machine as it is now, or most of this model's time is not in layers that it knows; "
        '[hardware] latency = "measured" predicts from the model itself'
    )


def _part(anatomy: Anatomy, fqns: Sequence[str]) -> Anatomy:
    """These layers alone, in a model that is as large as before (its weights share the caches)."""
    return replace(anatomy, layers=tuple(anatomy[fqn] for fqn in fqns), unused=(), groups=())
