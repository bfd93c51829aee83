"""A profile from figures: what was measured says so, what was not keeps its source, and rules promise what was seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paredown.evaluators.latency import (
    CacheFacts,
    KernelFigure,
    MachineFigure,
    MachineFigures,
    machine_profile,
    nearest_profile,
    rate_of,
)
from paredown.hardware_profiles import HardwareProfile, Lowered, Treatment, load_profile

DATE = "2026-11-26"


def figure(value: float, unit: str = "GB/s") -> MachineFigure:
    return MachineFigure(value=value, unit=unit, source="measured with a runtime", date=DATE)


def layer(operator: str, width: int, form: str = "fp32", faster: float = 1.0, **more: Any) -> KernelFigure:
    """1 ms at 10 GMAC/s in FP32, of which a microsecond is overhead; `faster` times that in its own kernel."""
    verdict = "tie" if abs(faster - 1) < 0.03 else "faster" if faster > 1 else "slower"
    told: dict[str, Any] = {
        "depthwise": False, "channels": (width, width), "positions": 64, "kernel": f"{operator} {form}", **more
    }  # fmt: skip
    return KernelFigure(
        operator=operator, shape=f"{width} wide", form=form, ms=1.0 / faster, n=60, speedup=faster, verdict=verdict,
        gmac_s=10.0 * faster, source="measured with a runtime", date=DATE, **told,
    )  # fmt: skip


def figures(kernels: Sequence[KernelFigure], **changes: Any) -> MachineFigures:
    given: dict[str, Any] = {
        "cpu": "Some CPU @ 3 GHz", "architecture": "x86_64", "isa": ("avx2", "avx512_vnni"), "cores": (3,),
        "n_cores": 4, "numa_nodes": (1,), "n_numa_nodes": 2, "memory_bytes": 8 << 30, "runtime": "openvino",
        "caches": (
            CacheFacts(name="L1d", bytes=48 << 10, shared_by=1), CacheFacts(name="L1i", bytes=32 << 10, shared_by=1),
            CacheFacts(name="L2", bytes=2 << 20, shared_by=1), CacheFacts(name="L3", bytes=32 << 20, shared_by=4),
        ),
        "runtime_version": "1", "threads": 1, "runtime_threads": 1, "rates_gmac_s": {}, "natively": {},
        "bandwidth_gb_s": {
            "copy 16 kB": figure(200.0), "triad 16 kB": figure(999.0), "copy 256 kB": figure(100.0),
            "copy 16 MB": figure(50.0), "copy 128 MB": figure(12.5),
        },
        "overhead_us": {"session": figure(9.0, "µs"), "kernel": figure(1.0, "µs")}, "scaling": None,
        "seconds": 1.0, "date": DATE,
    }  # fmt: skip
    return MachineFigures(kernels=tuple(kernels), **given | changes)


DEPTHWISE = {"depthwise": True, "channels": (1, 1)}
PLAIN = [
    *(layer("conv2d", width) for width in (16, 64, 128)),
    layer("conv2d", 64, **DEPTHWISE, kernel="depthwise fp32"),
    *(layer("linear", width) for width in (64, 512)),
]


def made(*kernels: KernelFigure, base: str = "x86-64-openvino", **changes: Any) -> HardwareProfile:
    return machine_profile(figures([*PLAIN, *kernels], **changes), load_profile(base))


def int8(profile: HardwareProfile, kind: str, width: int, *, depthwise: bool = False) -> Lowered:
    channels = (1, 1) if depthwise else (width, width)
    return profile.lower(Treatment(kind=kind, weight_bits=8, activation_bits=8, depthwise=depthwise, channels=channels))


def test_what_was_measured_says_so_and_the_rest_keeps_its_source(tmp_path: Path) -> None:
    base = load_profile("x86-64-openvino")
    profile = made()
    assert (profile.name, profile.cpu, profile.cores, profile.numa_nodes) == (
        "some-cpu-3-ghz-openvino", "Some CPU @ 3 GHz", 4, 2
    )  # fmt: skip
    measured = profile.rates_gmac_s["fp32"]
    assert (measured.kind, measured.date.isoformat()) == ("measured", DATE)
    assert measured.value == pytest.approx(10.0 / 0.999)  # without the microsecond that a kernel costs anyway
    assert profile.layer_overhead_us.value == 1.0
    levels = {cache.level: cache for cache in profile.caches}
    assert [(name, cache.bandwidth_gb_s.value) for name, cache in levels.items() if cache.bandwidth_gb_s] == [
        ("l1", 200.0), ("l2", 100.0), ("l3", base.caches[2].bandwidth_gb_s.value)  # type: ignore[union-attr]
    ]  # fmt: skip
    assert levels["l3"].bandwidth_gb_s == base.caches[2].bandwidth_gb_s  # 16 MB twice do not lie in 32
    assert (levels["l3"].bytes.value, levels["l3"].shared_by) == (32 << 20, 4)
    assert (profile.bandwidth_gb_s.value, profile.bandwidth_gb_s.kind) == (12.5, "measured")
    assert profile.energy is not None
    assert base.energy is not None
    for key, energy in profile.energy.pj_per_mac.items():
        assert energy.kind == "modelled", key
    assert profile.energy.pj_per_mac["fp32_linear"] == base.energy.pj_per_mac["fp32"]
    assert profile.boundary_overhead_us == base.boundary_overhead_us
    assert profile.scaling == base.scaling
    assert profile.bandwidth_all_gb_s == base.bandwidth_all_gb_s
    assert [operator.ms for operator in profile.operators] == [1.0] * len(PLAIN)
    assert profile.operators[0].source == f"measured with a runtime, {DATE}; ran conv2d fp32"
    assert HardwareProfile.from_dict(json.loads(profile.save(tmp_path / "m.json").read_text())) == profile
    scaled = made(threads=4, scaling=figure(0.7, "share"))
    assert scaled.scaling is not None
    assert (scaled.scaling.value, scaled.scaling.kind) == (0.7, "measured")


def test_memory_that_is_smaller_than_the_caches_is_not_memorys() -> None:
    profile = made(bandwidth_gb_s={"copy 16 MB": figure(50.0)})
    assert profile.bandwidth_gb_s == load_profile("x86-64-openvino").bandwidth_gb_s


def test_a_form_that_is_faster_everywhere_runs_as_such_at_its_own_rate() -> None:
    profile = made(*(layer("conv2d", width, "int8", 2.0) for width in (16, 64, 128)))
    lowered = int8(profile, "conv2d", 8)
    assert (lowered.kernel, lowered.weight_bits, lowered.native) == ("conv2d int8", 8, True)
    assert profile.rates_gmac_s[lowered.rate].kind == "measured"
    assert profile.rate_gmac_s(lowered.rate) == pytest.approx(20.0 / 0.998)
    three = profile.lower(Treatment(kind="conv2d", weight_bits=3, activation_bits=8, channels=(64, 64)))
    assert (three.weight_bits, three.native) == (8, False)
    weights_alone = profile.lower(Treatment(kind="conv2d", weight_bits=4, channels=(64, 64)))
    assert (weights_alone.weight_bits, weights_alone.kernel) == (32, "conv2d fp32")


def test_a_form_that_pays_from_some_width_on_says_from_which() -> None:
    profile = made(
        layer("conv2d", 16, "int8", 1.01), layer("conv2d", 64, "int8", 2.0), layer("conv2d", 128, "int8", 4.0)
    )  # fmt: skip
    assert int8(profile, "conv2d", 64).weight_bits == 8
    assert profile.rate_gmac_s(int8(profile, "conv2d", 64).rate) == pytest.approx(30.0, rel=0.01)
    narrow = int8(profile, "conv2d", 63)
    assert (narrow.weight_bits, narrow.kernel) == (32, "conv2d fp32")
    assert "1.01 times as fast as FP32, no gain to count on" in narrow.note


def test_a_form_that_is_slower_in_its_own_kernels_is_costed_as_slow_as_it_was() -> None:
    profile = made(
        layer("conv2d", 64, "int8", 0.5, **DEPTHWISE, kernel="depthwise int8"),
        layer("linear", 64, "int8", 0.8), layer("linear", 512, "int8", 2.0),
    )  # fmt: skip
    lowered = int8(profile, "conv2d", 64, depthwise=True)
    assert (lowered.kernel, lowered.weight_bits) == ("depthwise int8", 8)
    assert profile.rate_gmac_s(lowered.rate) == pytest.approx(5.0, rel=0.01)
    narrow, wide = (profile.rate_gmac_s(int8(profile, "linear", width).rate) for width in (64, 512))
    assert (narrow, wide) == (pytest.approx(8.0, rel=0.01), pytest.approx(20.0, rel=0.01))


def test_faster_in_the_same_kernel_is_no_form_of_its_own() -> None:
    """Whatever made it faster was not the format."""
    same = (
        layer("linear", 64, "int8", 1.5, kernel="linear fp32"),
        layer("linear", 512, "int8", 1.5, kernel="linear fp32"),
    )
    assert int8(made(*same), "linear", 512).weight_bits == 32


def test_zeros_are_believed_where_they_were_faster_and_not_otherwise() -> None:
    asked: dict[str, Any] = {"sparsity": 0.5, "pattern": "2:4", "channels": (512, 512)}
    none = made(layer("linear", 512, "2:4", 1.0, kernel="linear fp32"))
    assert not none.lower(Treatment(kind="linear", **asked)).sparse
    assert any("no gain to count on: 2:4 (1.00 times as fast)" in rule.note for rule in none.lowering)
    some = made(layer("linear", 512, "2:4", 1.6))
    lowered = some.lower(Treatment(kind="linear", **asked))
    assert (lowered.sparse, lowered.kernel) == (True, "linear 2:4")
    assert some.patterns == ("2:4",)
    # 10 GMAC/s of dense products 1.6 times as fast, and half of them are left
    assert some.rate_gmac_s(lowered.rate) == pytest.approx(0.5 * 16.0, rel=0.01)
    assert not some.lower(Treatment(kind="linear", sparsity=0.5, channels=(512, 512))).sparse


def test_weight_only_integers_run_where_the_exporters_write_them() -> None:
    profile = made(layer("linear", 64, "w4", 2.0), layer("linear", 512, "w4", 0.5))
    lower = profile.lower
    assert (
        lower(Treatment(kind="linear", weight_bits=4, group_size=32, channels=(512, 512), n_weights=512**2)).weight_bits
        == 4
    )
    assert (
        lower(Treatment(kind="linear", weight_bits=4, group_size=32, channels=(64, 64), n_weights=64**2)).weight_bits
        == 32
    )
    assert any(
        "exported by the shipped rules: w4 (0.50 to 2.00 times as fast)" in rule.note for rule in profile.lowering
    )


def test_kinds_that_were_not_measured_keep_their_rules() -> None:
    base, profile = load_profile("x86-64-openvino"), made()
    for kind in ("conv1d", "embedding", "lstm"):
        for asked in ({}, {"weight_bits": 8, "activation_bits": 8}):
            mine, theirs = profile.lower(Treatment(kind=kind, **asked)), base.lower(Treatment(kind=kind, **asked))
            assert dataclasses.replace(mine, rule=0) == dataclasses.replace(theirs, rule=0)
    dense_alone = machine_profile(figures([layer("conv2d", 16)]), base)
    assert int8(dense_alone, "conv2d", 8, depthwise=True).kernel == "Convolution (INT8, depthwise)"


def test_a_peak_and_an_efficiency_give_way_to_what_was_reached() -> None:
    profile = made(base="x86-64-amx-openvino")
    assert "fp32" not in profile.efficiency
    assert profile.rate_gmac_s("fp32") == pytest.approx(10.0 / 0.999)
    base = load_profile("x86-64-amx-openvino")
    assert profile.efficiency["int8"] == base.efficiency["int8"]  # of what was not measured


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"isa": ("avx2",)}, "x86-64-avx2-openvino"),
        ({"isa": ("avx2", "avx512_vnni"), "runtime": "onnxruntime"}, "x86-64-onnxruntime"),
        ({"isa": ("avx512_vnni", "amx_int8")}, "x86-64-amx-openvino"),
        ({"architecture": "aarch64", "isa": ("asimd",)}, "raspberry-pi-5-onnxruntime"),
    ],
)
def test_the_nearest_profile_is_one_that_comes_with_the_package(changes: dict[str, Any], name: str) -> None:
    assert nearest_profile(figures([], **changes)) == name
    assert load_profile(name).name == name


def test_a_rate_is_the_median_of_layers_that_have_work() -> None:
    """A layer that uses each weight once waits for memory; a launch takes half of a layer's time at most."""
    waits = dataclasses.replace(layer("linear", 9), positions=1, gmac_s=0.1)
    rate = rate_of([waits, layer("linear", 1), layer("linear", 2, faster=2.0), layer("linear", 3, faster=8.0)], 0.0)
    assert rate is not None
    assert (rate.gmac_s, rate.low, rate.high, rate.n) == (20.0, 10.0, 80.0, 3)
    launch = rate_of([layer("linear", 1)], 1e6)
    assert launch is not None
    assert launch.gmac_s == 20.0
    assert rate_of([], 1.0) is None
