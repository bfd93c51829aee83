"""The exporters write a layer in the form that the profiles give for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from paredown.compressors import Anatomy, LayerSpec, compress, trace_anatomy
from paredown.evaluators import lowered_as
from paredown.evaluators.runtimes import Lowered, dynamic_from, narrow_rule, runs_dynamic
from paredown.hardware_profiles import list_profiles, load_profile

RUNTIMES = ("onnxruntime", "openvino", "torch")
SHAPES = ((512, 256), (511, 256), (1400, 100), (384, 384), (768, 768), (767, 768), (10, 16000))
"""(out, in): 131,072 weights, fewer, more, rows that no block divides, 384 and 768 channels, one side alone wide."""


def specs() -> Iterator[LayerSpec]:
    for bits, group in ((2, 0), (3, 64), (4, 24), (4, 48), (5, 0), (8, 32)):
        yield LayerSpec(weight_bits=bits, group_size=group)
    yield LayerSpec(weight_bits=4, weight_format="int_asym", group_size=32)
    yield LayerSpec(weight_bits=4, group_size="tensor")
    yield LayerSpec(weight_bits=4, weight_format="nf4")
    yield LayerSpec(weight_bits=4, sparsity=0.5)
    yield LayerSpec(weight_bits=4, rank=0.25)
    yield LayerSpec(weight_bits=4, group_size="32x16")
    for bits, group in ((8, 0), (4, 0), (8, 32)):
        yield LayerSpec(weight_bits=bits, group_size=group, activation_bits=8, activation_scheme="dynamic")


def exported(
    layer_shape: tuple[int, int], spec: LayerSpec, weight: torch.Tensor, anatomy: Anatomy, runtime: str
) -> int:
    """Bits of the weight as it leaves PyTorch."""
    if runs_dynamic(spec, layer_shape, None if runtime == "openvino" else dynamic_from(runtime)):
        return 8
    if runtime == "torch" or spec.changes_activation:
        return 32
    narrow = narrow_rule(runtime).of(compress(weight, spec, anatomy[""]))
    return 32 if narrow is None else Lowered(fqn="", narrow=narrow).narrow.bits  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", SHAPES)
def test_modelled_as_exported(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    anatomy = trace_anatomy(layer, torch.randn(1, shape[1]))
    names = [name for name in list_profiles() if name.startswith("x86-64") and name.endswith(RUNTIMES)]
    assert len(names) == 7
    weight = layer.weight.detach()
    found = {(spec, r): exported(shape, spec, weight, anatomy, r) for spec in specs() for r in RUNTIMES}
    for name in names:
        profile = load_profile(name)
        for (spec, runtime), bits in found.items():
            if runtime == profile.runtime:
                assert lowered_as(anatomy[""], spec, profile).weight_bits == bits, (name, spec.label())


def test_all_profiles_of_a_runtime_say_the_same() -> None:
    assert narrow_rule("onnxruntime").bits == (4,)
    assert narrow_rule("openvino").bits == (4, 8)
    assert {narrow_rule(r).from_size for r in RUNTIMES[:2]} == {131_072}
    assert (dynamic_from("onnxruntime"), dynamic_from("torch")) == (384, 768)
