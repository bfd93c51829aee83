"""Energy of an inference from a device's profile, where no counter can be read. An estimate, and marked as one.

Each multiply-accumulate at its kernel's energy, each byte at that of the level it comes from (Horowitz 2014 has the
idea and the figures for 45 nm), and what the device draws anyway for as long as the inference takes.
Left out: what is no compressible layer, the host beside an accelerator, conversion losses of the supply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from ..costs import LayerRoofline, roofline, specs_of
from ..values import Measurement

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerSpec
    from ...hardware_profiles import Energy, HardwareProfile

_MJ_PER_PJ = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledEnergy:
    """Modelled energy of one sample. layers: millijoules of each layer by fqn; profile: its name."""

    profile: str
    layers: Mapping[str, float]

    @property
    def total_mj(self) -> float:
        return sum(self.layers.values())

    def measurement(self) -> Measurement:
        return Measurement(value=self.total_mj, unit="mJ", source="modelled")


def modelled_energy_mj(
    anatomy: Anatomy,
    assignment: Mapping[str, LayerSpec] | None,
    profile: HardwareProfile,
    *,
    batch: int = 1,
    threads: int = 1,
) -> ModelledEnergy:
    """Millijoules of one sample, in a batch of this size.

    Raises `InputError` for a profile without energies, `ConfigError` for a layer that the model has not.
    """
    if profile.energy is None:
        raise InputError(
            f"the hardware profile {profile.name} has no energies, so that energy_mj cannot be modelled; give it an "
            "`energy` section (paredown schema profile), or leave energy_mj out of objectives and limits"
        )
    specs = specs_of(anatomy, assignment)
    layers = {}
    for layer in anatomy.layers:
        part = roofline(anatomy, layer, specs[layer.fqn], profile, batch=batch, threads=threads)
        layers[layer.fqn] = _layer_mj(part, profile, profile.energy, threads) / batch
    return ModelledEnergy(profile=profile.name, layers=layers)


def _layer_mj(part: LayerRoofline, profile: HardwareProfile, energy: Energy, threads: int) -> float:
    arithmetic = part.n_macs * energy.pj_per_mac[part.lowered.rate].value
    traffic = sum(n_bytes * (profile.pj_per_byte(level) or 0.0) for level, n_bytes in part.bytes.items())
    cores = profile.cores_used(threads) if profile.kind == "cpu" else 1
    idle_w = energy.idle_w.value * cores if energy.idle_w is not None else 0.0
    return (arithmetic + traffic) * _MJ_PER_PJ + idle_w * part.ms  # watts times milliseconds are millijoules
