"""Costs of zeros and factors on a device: only those that its runtime exploits count."""

from __future__ import annotations

import pytest

from paredown.compressors import Anatomy, LayerInfo, LayerSpec
from paredown.evaluators import lowered_as, macs, modelled_latency_ms
from paredown.evaluators.memory import running_weight_bytes
from paredown.evaluators.prediction import forms_of
from paredown.hardware_profiles import load_profile

FC = LayerInfo(fqn="fc", kind="linear", weight_shape=(256, 256), macs=65536, input_shape=(256,), output_shape=(256,))
CONV = LayerInfo(
    fqn="conv", kind="conv2d", weight_shape=(32, 32, 3, 3), macs=9216 * 64, input_shape=(32, 8, 8),
    output_shape=(32, 8, 8),
)  # fmt: skip
NET = Anatomy(layers=(FC, CONV), groups=(("fc",), ("conv",)), n_params=65536 + 9216)
INT8 = {"weight_bits": 8, "activation_bits": 8}


def ms(profile: str, **spec: object) -> float:
    return modelled_latency_ms(NET, {"fc": LayerSpec.from_dict(spec)}, load_profile(profile)).layers["fc"]


def test_two_of_four_saves_time_where_a_profile_has_a_rule_about_it_and_nowhere_else() -> None:
    for pattern, sparse in (("2:4", True), ("4:8", False), ("", False), ("1x4", False), ("row", False)):
        spec = LayerSpec(**INT8, sparsity=0.5, pattern=pattern)
        lowered = lowered_as(FC, spec, load_profile("nvidia-a100-tensorrt"))
        assert (lowered.sparse, lowered.native) == (sparse, sparse), pattern
        assert not lowered_as(FC, spec, load_profile("x86-64-openvino")).sparse
    assert ms("nvidia-a100-tensorrt", **INT8, sparsity=0.5, pattern="2:4") <= ms("nvidia-a100-tensorrt", **INT8)


@pytest.mark.parametrize("pattern", ["", "2:4", "16x1", "column"])
def test_zeros_that_a_runtime_does_not_use_cost_what_the_dense_weight_costs(pattern: str) -> None:
    for profile in ("x86-64-openvino", "x86-64-onnxruntime", "x86-64-torch"):
        assert ms(profile, sparsity=0.5, pattern=pattern) == ms(profile)
        spec = LayerSpec(sparsity=0.5, pattern=pattern)
        assert running_weight_bytes(NET, {"fc": spec}, load_profile(profile))["fc"] == 4 * 65536
    assert macs(NET, {"fc": LayerSpec(sparsity=0.5, pattern=pattern)}).layers["fc"] == 65536


def test_a_residual_saves_bytes_and_no_time_and_says_so() -> None:
    spec = LayerSpec(weight_bits=4, rank=0.1, rank_form="residual")
    for name in ("x86-64-openvino", "nvidia-a100-tensorrt"):
        lowered = lowered_as(FC, spec, load_profile(name))
        assert not lowered.low_rank
        assert not lowered.native
        assert "no time" in lowered.note
        assert ms(name, weight_bits=4, rank=0.1, rank_form="residual") == ms(name, weight_bits=4)
    assert macs(NET, {"fc": spec}).layers["fc"] == 65536
    assert forms_of(NET, {"fc": spec})["fc"].is_plain


def test_chains_are_counted_part_by_part() -> None:
    positions = 64
    expected = {
        "channel": (16 * 288 + 32 * 16) * positions,
        "input": (16 * 32 + 32 * 16 * 9) * positions,
        "spatial": (24 * 96 + 32 * 24 * 3) * positions,
        "tucker2": (8 * 32 + 8 * 8 * 9 + 32 * 8) * positions,
    }
    shares = {"channel": 0.5, "input": 0.5, "spatial": 0.25, "tucker2": 0.25}
    profile = load_profile("x86-64-openvino")
    whole = modelled_latency_ms(NET, {}, profile).layers["conv"]
    for form, n in expected.items():
        spec = LayerSpec(rank=shares[form], rank_form=form)
        assert macs(NET, {"conv": spec}).layers["conv"] == n, form
        assert lowered_as(CONV, spec, profile).low_rank
        assert running_weight_bytes(NET, {"conv": spec}, profile)["conv"] == 4 * n / positions
        assert modelled_latency_ms(NET, {"conv": spec}, profile).layers["conv"] != whole
