"""Static costs of a compressed model: multiply-accumulates and bit operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...compressors import FLOAT_BITS, LayerSpec
from ...errors import ConfigError
from ..values import Measurement

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Exact count for one sample. layers: the share of each layer by fqn, in the anatomy's order."""

    unit: str
    layers: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.layers.values())

    def measurement(self) -> Measurement:
        return Measurement(value=float(self.total), unit=self.unit)


def macs(anatomy: Anatomy, assignment: Mapping[str, LayerSpec] | None = None) -> Cost:
    """Multiply-accumulates of one sample, by layer.

    Low rank r of an (out, n) weight turns out·n into r·(out + n) at each position; other forms are counted part by
    part, and a residual, which runs as one product, as the whole. Zeros that follow no pattern change
    nothing: no kernel here skips them. A layer that `assignment` does not name is left alone. Only the compressible
    layers are counted (the product of queries and keys, for one, is not).
    Raises `ConfigError` where `assignment` names a layer that the model has not.
    """
    specs = specs_of(anatomy, assignment)
    counts = {layer.fqn: sum(spec_macs(layer, specs[layer.fqn])) for layer in anatomy.layers}
    return Cost(unit="MAC", layers=counts)


def bops(anatomy: Anatomy, assignment: Mapping[str, LayerSpec] | None = None) -> Cost:
    """Bit operations of one sample, by layer: MACs × weight bits × activation bits (Baskin et al. 2018, without their
    accumulator term). FP32 counts as 32 × 32.

    Of the products of a low-rank layer all but the first read what another has made, which stays in FP32: they count
    weight bits × 32. See `macs` for the rest.
    """
    specs = specs_of(anatomy, assignment)
    return Cost(unit="BOP", layers={layer.fqn: _layer_bops(layer, specs[layer.fqn]) for layer in anatomy.layers})


def spec_macs(layer: LayerInfo, spec: LayerSpec) -> tuple[int, ...]:
    """MACs of each product that a layer consists of, in the order in which they run: one, or one for each part."""
    return factor_macs(layer, spec.rank, spec.rank_form)


def factor_macs(layer: LayerInfo, rank: float, form: str = "channel") -> tuple[int, ...]:
    """MACs as `spec_macs` gives them, of a rank (share of the full one) in a form; 1.0 is the whole weight."""
    if rank >= 1.0 or layer.macs == 0 or form == "residual":
        return (layer.macs,)
    from ...compressors.lowrank import part_macs  # that package needs torch

    return tuple(reversed(part_macs(form, rank, layer).values()))


def specs_of(anatomy: Anatomy, assignment: Mapping[str, LayerSpec] | None) -> dict[str, LayerSpec]:
    """Spec for every layer: that of `assignment`, else the neutral one."""
    given = dict(assignment or {})
    known = set(anatomy.fqns) | set(anatomy.unused)
    if unknown := [fqn for fqn in given if fqn not in known]:
        raise ConfigError(
            f"the assignment names {', '.join(unknown[:3])}, which this model has not; its layers are "
            f"{', '.join(anatomy.fqns[:6])}{', …' if len(anatomy.fqns) > 6 else ''}"
        )
    return {fqn: given.get(fqn, LayerSpec()) for fqn in anatomy.fqns}


def _layer_bops(layer: LayerInfo, spec: LayerSpec) -> int:
    first, *second = spec_macs(layer, spec)
    return spec.weight_bits * (first * spec.activation_bits + sum(second) * FLOAT_BITS)
