"""What the shipped profiles say of their devices, and how a profile is made and looked into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.hardware_profiles import HardwareProfile, ProfileError, Treatment, list_profiles, load_profile

GPUS = [name for name in list_profiles() if name.startswith("nvidia")]


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "kind": "measured", "source": "a test", "date": "2026-01-01"}


def made(**changes: Any) -> HardwareProfile:
    runs_as = {"weight_bits": 32, "activation_bits": 32, "low_rank": True, "kernel": "k", "rate": "fp32"}
    return HardwareProfile.from_dict(
        {
            "schema_version": 2, "name": "made", "device": "d", "kind": "cpu", "architecture": "x86_64", "isa": [],
            "cores": 8, "runtime": "r", "rates_gmac_s": {"fp32": figure(10.0)}, "bandwidth_gb_s": figure(5.0),
            "layer_overhead_us": figure(1.0), "lowering": [{"runs_as": runs_as}], **changes,
        }
    )  # fmt: skip


CACHES = [
    {"level": "l1", "bytes": figure(1000.0), "bandwidth_gb_s": figure(100.0)},
    {"level": "l2", "bytes": figure(8000.0), "shared_by": 4, "bandwidth_gb_s": figure(50.0)},
    {"level": "l3", "bytes": figure(1e6), "shared_by": 8},
]


def test_a_profile_of_ones_own_is_saved_and_loaded(tmp_path: Path) -> None:
    operator = {"kind": "conv2d", "shape": "2d 16x16x3x3", "format": "w8 a8", "ms": 0.02, "n": 60, "source": "here"}
    mine = made(caches=CACHES, operators=[operator], numa_nodes=2, patterns=["2:4"])
    path = mine.save(tmp_path / "mine.json")
    assert load_profile(path) == mine
    assert json.loads(path.read_text())["operators"][0]["ms"] == 0.02


def test_cores_of_a_cpu_add_up_and_another_device_always_uses_all() -> None:
    cpu = made(scaling=figure(0.5), efficiency={"fp32": figure(0.8)})
    assert cpu.rate_gmac_s("fp32") == 8.0
    assert cpu.rate_gmac_s("fp32", threads=3) == pytest.approx(8.0 * 2.0)
    assert cpu.rate_gmac_s("fp32", threads=100) == pytest.approx(8.0 * 4.5)  # it has eight
    assert made(kind="gpu").rate_gmac_s("fp32") == 80.0


def test_bytes_come_from_the_nearest_level_that_holds_them() -> None:
    profile = made(caches=CACHES, bandwidth_all_gb_s=figure(12.0))
    assert profile.level_of(1000.0) == ("l1", 100.0)
    assert profile.level_of(1001.0) == ("l2", 50.0)
    assert profile.level_of(9000.0) == ("memory", 5.0)  # l3 has no bandwidth, so nothing can be said of it
    assert profile.level_of(2000.0, threads=2) == ("l1", 200.0)
    assert profile.level_of(9000.0, threads=8) == ("l2", 400.0)
    assert profile.level_of(1e9, threads=2) == ("memory", 10.0)
    assert profile.level_of(1e9, threads=8) == ("memory", 12.0)
    assert made(kind="gpu", caches=CACHES).level_of(900.0) == ("l1", 100.0)


@given(n_bytes=st.floats(1, 1e12), threads=st.integers(1, 64))
def test_more_bytes_never_come_faster(n_bytes: float, threads: int) -> None:
    for name in list_profiles():
        profile = load_profile(name)
        assert (
            profile.level_of(2 * n_bytes, threads=threads)[1] <= profile.level_of(n_bytes, threads=threads)[1] * 1.001
        )


def test_energy_of_a_byte_is_that_of_the_next_farther_level_that_has_a_figure() -> None:
    energy = {"pj_per_mac": {"fp32": figure(1.0)}, "pj_per_byte": {"l2": figure(3.0), "memory": figure(9.0)}}
    profile = made(energy=energy)
    assert [profile.pj_per_byte(level) for level in ("l1", "l2", "l3", "memory")] == [3.0, 3.0, 9.0, 9.0]
    assert made().pj_per_byte("memory") is None


@pytest.mark.parametrize("name", list_profiles())
def test_each_has_energies_for_what_it_runs(name: str) -> None:
    profile = load_profile(name)
    assert profile.energy is not None
    assert profile.energy.idle_w is not None
    assert profile.pj_per_byte("memory") is not None


@pytest.mark.parametrize("name", list_profiles())
def test_int8_is_never_slower_than_floating_point(name: str) -> None:
    profile = load_profile(name)
    narrow, wide = (
        profile.lower(Treatment(kind="conv2d", weight_bits=8, activation_bits=8)),
        profile.lower(Treatment(kind="conv2d")),
    )
    assert profile.rate_gmac_s(narrow.rate) >= profile.rate_gmac_s(wide.rate)


def test_datasheets_are_quoted_as_they_are() -> None:
    """Whole devices, in operations a second: what the makers print."""
    tops = {
        "nvidia-a100-tensorrt": {"int8": 624, "fp16": 312, "tf32": 156, "fp32": 19.5},
        "nvidia-h100-tensorrt": {"int8": 1978.9, "fp8": 1978.9, "fp16": 989.4, "fp32": 67},
        "nvidia-h200-tensorrt": {"int8": 1978.9, "fp8": 1978.9, "fp16": 989.4, "fp32": 67},
        "nvidia-jetson-orin-tensorrt": {"int8": 85, "fp32": 5.3},
        "tpu-like": {"int8": 91.75},
    }
    for name, rates in tops.items():
        profile = load_profile(name)
        for rate, value in rates.items():
            whole = profile.rates_gmac_s[rate].value * profile.cores * 2 / 1000
            assert whole == pytest.approx(value, rel=1e-3), (name, rate)
    assert load_profile("nvidia-h200-tensorrt").bandwidth_gb_s.value == 4800


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_skips_zeros_in_pairs_only(name: str) -> None:
    profile = load_profile(name)
    spec = {"weight_bits": 8, "activation_bits": 8, "sparsity": 0.5}
    wide = (512, 512)
    assert not profile.lower(Treatment(kind="linear", **spec, channels=wide)).sparse
    paired = profile.lower(Treatment(kind="linear", **spec, pattern="2:4", channels=wide))
    assert (paired.sparse, paired.native, paired.rate) == (True, True, "int8_2:4")
    assert not profile.lower(
        Treatment(kind="linear", **spec, pattern="2:4", channels=(512, 520))
    ).sparse  # not a multiple of 32
    assert not profile.lower(Treatment(kind="linear", **spec, pattern="4:8", channels=wide)).sparse
    for narrow in ((512, 224), (224, 512)):  # its makers see it win from 256 on
        dense = profile.lower(Treatment(kind="linear", **spec, pattern="2:4", channels=narrow))
        assert (dense.sparse, dense.native, dense.rate) == (False, False, "int8")
    assert not profile.lower(
        Treatment(kind="linear", **spec, pattern="2:4")
    ).sparse  # of a layer whose width nobody knows


def test_formats_and_groups_are_told_apart() -> None:
    hopper, ampere = load_profile("nvidia-h100-tensorrt"), load_profile("nvidia-a100-tensorrt")
    eight = {"weight_bits": 8, "activation_bits": 8}
    assert hopper.lower(Treatment(kind="linear", **eight, weight_format="fp8_e4m3")).rate == "fp8"
    assert ampere.lower(Treatment(kind="linear", **eight, weight_format="fp8_e4m3")).rate == "int8"
    assert (
        hopper.lower(Treatment(kind="linear", weight_bits=16, activation_bits=16, weight_format="fp16")).rate == "fp16"
    )
    assert hopper.lower(Treatment(kind="linear", weight_bits=4, group_size=128)).kernel == "INT4 weight-only GEMM"
    assert hopper.lower(Treatment(kind="linear", weight_bits=4)).kernel == "TF32 tensor core"


@pytest.mark.parametrize("name", ["arm-cortex-m7-cmsis-nn", "x86-64-onnxruntime", "nvidia-h100-tensorrt"])
def test_a_depthwise_convolution_has_a_kernel_of_its_own(name: str) -> None:
    profile = load_profile(name)
    dense, depthwise = (
        profile.lower(Treatment(kind="conv2d", weight_bits=8, activation_bits=8, depthwise=each))
        for each in (False, True)
    )
    assert profile.rate_gmac_s(depthwise.rate) < profile.rate_gmac_s(dense.rate)


@pytest.mark.parametrize("name", list_profiles())
def test_depthwise_convolutions_of_onnx_runtime_on_x86_want_eight_channels(name: str) -> None:
    profile = load_profile(name)
    asks = name.startswith("x86-64") and profile.runtime == "onnxruntime"
    for kind in ("conv1d", "conv2d"):
        assert profile.alignment_of(kind, depthwise=True) == (8 if asks else 1)
        assert profile.alignment_of(kind) == 1
    assert profile.alignment_of("linear") == 1


@pytest.mark.parametrize(("value", "said"), [(2.5, "must be a whole number, got 2.5"), (1, "must be at least 2")])
def test_an_alignment_is_a_number_of_channels(value: float, said: str) -> None:
    data = load_profile("x86-64-onnxruntime").to_dict()
    data["alignment"][0]["channels"]["value"] = value
    with pytest.raises(ProfileError, match=said):
        HardwareProfile.from_dict(data)


def test_a_microcontroller_keeps_four_bits_packed() -> None:
    profile = load_profile("arm-cortex-m7-cmsis-nn")
    four, six = (profile.lower(Treatment(kind="conv2d", weight_bits=bits, activation_bits=8)) for bits in (4, 6))
    assert (four.weight_bits, four.native, six.weight_bits, six.native) == (4, True, 8, False)
    assert four.rate == six.rate
    assert profile.storage_bytes is not None
