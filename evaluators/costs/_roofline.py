"""Latency and throughput modelled from a device's profile, for a device that is not here. An estimate, marked as one.

The roofline of Williams, Waterman and Patterson (2009), layer by layer: each takes the longer of its arithmetic and its
traffic, and an overhead for each kernel. Where we differ: the arithmetic runs at the rate of the kernel that *really*
runs (`profile.lower`); the bytes come from the level of memory that holds them; channels are padded to what the kernels
work in; and on a device of many cores a layer with few tiles leaves most of them idle.

It costs microseconds a layer. It is good for an order and for comparing candidates, not for milliseconds: what is no
compressible layer (norms, softmax, attention's products, additions) is left out, caches are taken to be warm, and what
the runtime fuses is not known. docs/hardware.md says how far off that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import TYPE_CHECKING

from ..values import Measurement
from ._lowered import is_depthwise, lowered_as
from ._static import factor_macs, specs_of

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo, LayerSpec
    from ...hardware_profiles import HardwareProfile, Lowered


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRoofline:
    """Time of one layer by the roofline, for the whole batch.

    n_macs  multiply-accumulates that run, without padding
    bytes   level of memory -> bytes moved from and to it
    """

    lowered: Lowered
    n_macs: float
    bytes: Mapping[str, float]
    compute_ms: float
    traffic_ms: float
    overhead_ms: float

    @property
    def ms(self) -> float:
        return max(self.compute_ms, self.traffic_ms) + self.overhead_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledLatency:
    """Modelled latency of one batch.

    layers       milliseconds of each layer by fqn
    lowered      form in which each layer runs
    boundary_ms  conversions of the number format between consecutive layers; 0 if they were not requested
    profile      name of the profile
    """

    profile: str
    layers: Mapping[str, float]
    lowered: Mapping[str, Lowered]
    batch: int = 1
    boundary_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        return sum(self.layers.values()) + self.boundary_ms

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return 1000.0 * self.batch / self.total_ms

    def measurement(self) -> Measurement:
        """Sum in milliseconds, with `source` "modelled". It has no interval, as its error is unknown."""
        return Measurement(value=self.total_ms, unit="ms", source="modelled")


def modelled_latency_ms(
    anatomy: Anatomy,
    assignment: Mapping[str, LayerSpec] | None,
    profile: HardwareProfile,
    *,
    batch: int = 1,
    threads: int = 1,
    boundaries: bool = False,
) -> ModelledLatency:
    """Latency of a batch by the roofline (see the module).

    Every layer is costed as what the runtime *really runs*: 3-bit weights that run as INT8 cost what INT8 costs, and a
    weight-only format that runs as FP32 saves nothing.

    threads     cores of a cpu that work on the model; other devices always use all that they have
    boundaries  whether a change of the activations' width from one layer to the next costs the profile's boundary
                overhead, in the order in which layers run. The search leaves it out: it is no sum over layers

    Raises `ConfigError` where `assignment` names a layer that the model has not.
    """
    specs = specs_of(anatomy, assignment)
    parts = {
        layer.fqn: roofline(anatomy, layer, specs[layer.fqn], profile, batch=batch, threads=threads)
        for layer in anatomy.layers
    }
    lowered = {fqn: part.lowered for fqn, part in parts.items()}
    return ModelledLatency(
        profile=profile.name,
        layers={fqn: part.ms for fqn, part in parts.items()},
        lowered=lowered,
        batch=batch,
        boundary_ms=_boundaries_ms([part.lowered for part in parts.values()], profile) if boundaries else 0.0,
    )


def roofline(
    anatomy: Anatomy, layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile, *, batch: int = 1, threads: int = 1
) -> LayerRoofline:
    """Roofline of one layer of the model.

    The anatomy gives the size of the whole model: its weights pass through the caches once for each inference. So they
    come from the level that holds *all* of them.
    """
    lowered = lowered_as(layer, spec, profile)
    products = factor_macs(layer, spec.rank if lowered.low_rank else 1.0, spec.rank_form)
    kept = (1.0 - spec.sparsity) if lowered.sparse else 1.0
    moved = _bytes_moved(anatomy, layer, lowered, products, profile, batch=batch, threads=threads)
    return LayerRoofline(
        lowered=lowered,
        n_macs=sum(products) * kept * batch,
        bytes={level: n for level, n, _ in moved},
        compute_ms=_compute_ms(layer, spec, lowered, products, profile, batch=batch, threads=threads) * kept,
        traffic_ms=sum(n / bandwidth for _, n, bandwidth in moved) * 1e-6,
        overhead_ms=profile.layer_overhead_us.value * 1e-3 * len(products) * layer.n_calls,
    )


def _compute_ms(
    layer: LayerInfo, spec: LayerSpec, lowered: Lowered, products: tuple[int, ...], profile: HardwareProfile, *,
    batch: int, threads: int,
) -> float:  # fmt: skip
    if not layer.macs:
        return 0.0
    rate = profile.rate_gmac_s(lowered.rate, threads=threads) * 1e6  # a millisecond
    if is_depthwise(layer):
        return sum(products) * batch / rate
    total = 0.0
    groups = layer.groups if len(products) == 1 else 1
    for rows, columns, positions in _product_shapes(layer, spec, products):
        out, inner = _padded(rows, profile.channels_multiple), _padded(columns, profile.channels_multiple)
        if profile.tile is None:
            total += positions * batch * out * inner * groups
            continue
        tiles = ceil(positions * batch / profile.tile.positions) * ceil(out / profile.tile.channels) * groups
        # a wave of tiles takes as long with one busy core as with all of them
        waves, cores = ceil(tiles / profile.cores), profile.cores
        total += waves * cores * profile.tile.positions * profile.tile.channels * inner
    return total / rate


def _product_shapes(layer: LayerInfo, spec: LayerSpec, products: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(outputs, inner length, positions) of each matrix product, of one group, in the order in which they run."""
    out, inner = layer.matrix_shape
    if len(products) == 1:
        return [(max(1, out // layer.groups), inner, layer.macs // layer.n_weights)]
    from ...compressors.lowrank import part_shapes  # that package needs torch

    shapes = reversed(part_shapes(spec.rank_form, spec.rank, layer.weight_shape).values())
    return [(*shape, n // (shape[0] * shape[1])) for shape, n in zip(shapes, products, strict=True)]


def _padded(n: int, multiple: int) -> int:
    return ceil(n / multiple) * multiple


def _bytes_moved(
    anatomy: Anatomy,
    layer: LayerInfo,
    lowered: Lowered,
    products: tuple[int, ...],
    profile: HardwareProfile,
    *,
    batch: int,
    threads: int,
) -> list[tuple[str, float, float]]:
    """(level, bytes, 10⁹ bytes a second) of the weights and of the activations, once each, in the widths that run.

    What a layer hands on is counted in the width of what it takes. Of an embedding only the rows that are looked up.
    """
    out = prod(layer.output_shape) * layer.n_calls * batch * lowered.activation_bits / 8
    if layer.kind == "embedding":
        weights = out
        held = out
    else:
        share = sum(products) / layer.macs if layer.macs else 1.0
        weights = layer.n_weights * share * lowered.weight_bits / 8 * layer.n_calls
        held = max(anatomy.n_params, layer.n_weights) * lowered.weight_bits / 8
        out += prod(layer.input_shape) * layer.n_calls * batch * lowered.activation_bits / 8
    return _merged(
        [
            (weights, profile.level_of(held, threads=threads)),
            (out, profile.level_of(out, threads=threads)),
        ]
    )


def _merged(parts: list[tuple[float, tuple[str, float]]]) -> list[tuple[str, float, float]]:
    moved: dict[str, tuple[float, float]] = {}
    for n_bytes, (level, bandwidth) in parts:
        moved[level] = moved.get(level, (0.0, 0.0))[0] + n_bytes, bandwidth
    return [(level, n_bytes, bandwidth) for level, (n_bytes, bandwidth) in moved.items()]


def _boundaries_ms(lowered: list[Lowered], profile: HardwareProfile) -> float:
    """Time of format conversions. The model takes and returns FP32, so a chain of INT8 layers has two boundaries."""
    if profile.boundary_overhead_us is None or not lowered:
        return 0.0
    widths = [32, *(one.activation_bits for one in lowered), 32]
    changes = sum(a != b for a, b in pairwise(widths))
    return changes * profile.boundary_overhead_us.value * 1e-3
