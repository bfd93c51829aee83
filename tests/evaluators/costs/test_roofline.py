"""The roofline beyond its simplest case: levels of memory, cores, batches, tiles, padding, boundaries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import Anatomy, LayerInfo, LayerSpec
from paredown.evaluators import lowered_as, modelled_latency_ms, roofline
from paredown.hardware_profiles import HardwareProfile, list_profiles, load_profile

INT8 = LayerSpec(weight_bits=8, activation_bits=8)
CONV = LayerInfo(
    fqn="conv", kind="conv2d", weight_shape=(10, 6, 3, 3), macs=10 * 54 * 64, input_shape=(6, 8, 8),
    output_shape=(10, 8, 8),
)  # fmt: skip
DEPTHWISE = LayerInfo(
    fqn="dw", kind="conv2d", weight_shape=(16, 1, 3, 3), groups=16, macs=16 * 9 * 64, input_shape=(16, 8, 8),
    output_shape=(16, 8, 8),
)  # fmt: skip
GROUPED = LayerInfo(
    fqn="grouped", kind="conv2d", weight_shape=(16, 4, 3, 3), groups=4, macs=16 * 36 * 64, input_shape=(16, 8, 8),
    output_shape=(16, 8, 8),
)  # fmt: skip
ANATOMY = Anatomy(layers=(CONV, DEPTHWISE, GROUPED), n_params=2000)


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "kind": "modelled", "source": "a test", "date": "2026-01-01"}


def profile(**changes: Any) -> HardwareProfile:
    """1 GMAC/s in FP32, 4 in INT8, 0.5 for a depthwise one; 1 GB/s, 10 µs a kernel, 5 µs a boundary."""
    eight = {"weight_bits": 8, "activation_bits": 8, "low_rank": False, "kernel": "int8"}
    float_ = {"weight_bits": 32, "activation_bits": 32, "low_rank": True, "kernel": "fp32", "rate": "fp32"}
    return HardwareProfile.from_dict(
        {
            "schema_version": 2, "name": "round", "device": "d", "kind": "cpu", "architecture": "x86_64", "isa": [],
            "cores": 4, "runtime": "r", "bandwidth_gb_s": figure(1.0), "layer_overhead_us": figure(10.0),
            "boundary_overhead_us": figure(5.0),
            "rates_gmac_s": {"fp32": figure(1.0), "int8": figure(4.0), "slow": figure(0.5)},
            "lowering": [
                {"when": {"depthwise": True, "weight_bits": [8]}, "runs_as": {**eight, "rate": "slow"}},
                {"when": {"weight_bits": [8], "activation_bits": [8]}, "runs_as": {**eight, "rate": "int8"}},
                {"runs_as": float_},
            ],
            **changes,
        }
    )  # fmt: skip


def ms(layer: LayerInfo, spec: LayerSpec, on: HardwareProfile, **how: int) -> float:
    return roofline(ANATOMY, layer, spec, on, **how).ms


def test_a_depthwise_convolution_runs_at_its_own_rate() -> None:
    part = roofline(ANATOMY, DEPTHWISE, INT8, profile())
    assert part.lowered.rate == "slow"
    assert part.compute_ms == pytest.approx(16 * 9 * 64 / 0.5e6)
    assert lowered_as(GROUPED, INT8, profile()).rate == "int8"  # groups alone do not make it depthwise


def test_low_rank_is_two_kernels_where_it_runs_and_one_where_it_does_not() -> None:
    spec = LayerSpec(rank=0.5)
    part = roofline(ANATOMY, CONV, spec, profile())
    assert part.n_macs == 64 * 5 * (54 + 10)
    assert part.compute_ms == pytest.approx(64 * 5 * 64 / 1e6)
    assert part.overhead_ms == pytest.approx(0.020)
    eight = LayerSpec(rank=0.5, weight_bits=8, activation_bits=8)
    assert roofline(ANATOMY, CONV, eight, profile()).overhead_ms == pytest.approx(0.010)


def test_channels_are_padded_to_what_kernels_work_in() -> None:
    part = roofline(ANATOMY, CONV, LayerSpec(), profile(channels_multiple=8))
    assert part.compute_ms == pytest.approx(64 * 16 * 56 / 1e6)  # 10 -> 16 outputs, 54 -> 56 products
    assert part.n_macs == CONV.macs  # what is asked for is what is counted
    part = roofline(ANATOMY, GROUPED, LayerSpec(), profile(channels_multiple=8))
    assert part.compute_ms == pytest.approx(64 * 4 * 8 * 40 / 1e6)  # of each of four groups: 4 -> 8, 36 -> 40


def test_few_tiles_leave_most_cores_idle() -> None:
    tile = {"positions": 32, "channels": 16, "source": "a test"}
    on = profile(kind="gpu", cores=100, tile=tile)
    part = roofline(ANATOMY, CONV, LayerSpec(), on)
    assert part.compute_ms == pytest.approx(32 * 16 * 54 / 1e6)  # two tiles, one wave: as long as one tile on one core
    assert roofline(ANATOMY, CONV, LayerSpec(), on, batch=50).compute_ms == pytest.approx(part.compute_ms)
    assert roofline(ANATOMY, CONV, LayerSpec(), on, batch=51).compute_ms == pytest.approx(2 * part.compute_ms)


def test_bytes_come_from_the_level_that_holds_the_whole_models_weights() -> None:
    caches = [
        {"level": "l1", "bytes": figure(3000.0), "bandwidth_gb_s": figure(100.0)},
        {"level": "l2", "bytes": figure(9000.0), "bandwidth_gb_s": figure(10.0)},
    ]
    part = roofline(ANATOMY, CONV, INT8, profile(caches=caches))
    assert part.bytes == {"l1": 540 + 384 + 640}  # 2,000 parameters in INT8, and 1,024 activations
    part = roofline(ANATOMY, CONV, LayerSpec(), profile(caches=caches))
    assert part.bytes == {"l2": (540 + 384 + 640) * 4}  # 8,000 bytes of parameters; 4,096 of activations
    assert part.traffic_ms == pytest.approx(6256 / 10 * 1e-6)
    large = Anatomy(layers=ANATOMY.layers, n_params=10_000)
    assert set(roofline(large, CONV, LayerSpec(), profile(caches=caches)).bytes) == {"memory", "l2"}


def test_more_threads_help_arithmetic_and_not_overhead() -> None:
    one, two = (ms(CONV, LayerSpec(), profile(scaling=figure(0.5)), threads=n) for n in (1, 2))
    assert two - 0.010 == pytest.approx((one - 0.010) / 1.5)


def test_a_batch_shares_overheads_and_weights() -> None:
    one = modelled_latency_ms(ANATOMY, None, profile())
    many = modelled_latency_ms(ANATOMY, None, profile(), batch=64)
    assert many.total_ms < 64 * one.total_ms
    assert many.throughput > one.throughput == pytest.approx(1000.0 / one.total_ms)


def test_boundaries_are_counted_where_they_are_asked_for() -> None:
    mixed = {"dw": INT8}
    plain = modelled_latency_ms(ANATOMY, mixed, profile())
    bounded = modelled_latency_ms(ANATOMY, mixed, profile(), boundaries=True)
    assert bounded.total_ms == pytest.approx(plain.total_ms + 2 * 0.005)
    whole = modelled_latency_ms(ANATOMY, dict.fromkeys(ANATOMY.fqns, INT8), profile(), boundaries=True)
    assert whole.boundary_ms == pytest.approx(2 * 0.005)  # at the model's ends
    assert modelled_latency_ms(ANATOMY, None, profile(), boundaries=True).boundary_ms == 0.0


@given(
    name=st.sampled_from(list_profiles()), layer=st.sampled_from(ANATOMY.layers), batch=st.integers(1, 64),
    bits=st.sampled_from([4, 8, 32]), threads=st.integers(1, 8),
)  # fmt: skip
def test_on_every_device_time_is_positive_and_more_work_takes_no_less(
    name: str, layer: LayerInfo, batch: int, bits: int, threads: int
) -> None:
    on, spec = load_profile(name), LayerSpec(weight_bits=bits, activation_bits=8)
    now = ms(layer, spec, on, batch=batch, threads=threads)
    assert 0 < now <= ms(layer, spec, on, batch=2 * batch, threads=threads) * 1.000001
    assert now >= ms(layer, spec, on, batch=batch, threads=threads + 1) * 0.999999
    assert now <= ms(layer, LayerSpec(), on, batch=batch, threads=threads) * 1.000001  # the narrow one is never slower
