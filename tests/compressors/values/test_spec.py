"""`LayerSpec` as a value: what it accepts, how it is written down."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import ACTIVATION_BITS, FORMAT_BITS, LayerSpec
from paredown.errors import InputError, SpecError

FORMATS = [(name, bits) for name, widths in FORMAT_BITS.items() for bits in (*widths, 32)]


def _spec(stored, **rest):
    return LayerSpec(weight_format=stored[0], weight_bits=stored[1], **rest)


specs = st.builds(
    _spec,
    st.sampled_from(FORMATS),
    group_size=st.sampled_from([0, 8, 64, "tensor"]),
    scale_bits=st.sampled_from([16, 32]),
    activation_scheme=st.sampled_from(["affine", "symmetric", "dynamic"]),
    activation_bits=st.sampled_from(ACTIVATION_BITS),
    sparsity=st.floats(0.0, 1.0, exclude_max=True),
    rank=st.floats(0.0, 1.0, exclude_min=True),
    weight_method=st.sampled_from(["affine", "other"]),
)


@given(specs)
def test_a_spec_survives_json(spec):
    assert LayerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(specs)
def test_weight_only_leaves_the_activation_alone(spec):
    alone = spec.weight_only
    assert not alone.changes_activation
    assert alone.changes_weight == spec.changes_weight
    both = {**alone.to_dict(), **spec.activation_only.to_dict()}
    assert LayerSpec.from_dict(both) == spec
    assert not spec.activation_only.changes_weight


def test_the_default_is_neutral_and_writes_nothing():
    assert LayerSpec().is_neutral
    assert LayerSpec().to_dict() == {}
    assert LayerSpec().label() == "fp32"


def test_labels():
    assert LayerSpec(weight_bits=4, activation_bits=8, sparsity=0.5, rank=0.25).label() == "w4 a8 s50 r25"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight_bits", 9, "weight_bits must be one of 2, 3, 4, 5, 6, 7, 8, 16 or 32, got 9"),
        ("weight_bits", True, "got True"),
        ("weight_bits", 4.0, "got 4.0"),
        ("weight_bits", 16, "'int' must be 2, 3, 4, 5, 6, 7, 8 or 32, got 16; formats of 16 bits are fp16, bf16"),
        ("activation_bits", 5, "activation_bits must be one of 4, 6, 8 or 32, got 5"),
        ("weight_format", "int7", "weight_format must be one of int, int_asym, .* or adaptive, got 'int7'"),
        ("group_size", 7, "a number of weights from 8 to 4096, a block such as .* got 7"),
        ("group_size", "row", "got 'row'"),
        ("group_size", True, "got True"),
        ("scale_bits", 8, "scale_bits must be one of 16 or 32, got 8"),
        ("activation_scheme", "static", "must be one of affine, symmetric or dynamic, got 'static'"),
        ("sparsity", 1.0, r"sparsity must be in \[0, 1\), got 1.0"),
        ("sparsity", float("nan"), "got nan"),
        ("rank", 0.0, r"rank must be in \(0, 1\], got 0.0"),
        ("rank", "half", "got 'half'"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(SpecError, match=message):
        LayerSpec(**{field: value})


@pytest.mark.parametrize(("name", "bits", "widths"), [("nf4", 3, "4 or 32"), ("palette", 8, "2, 3, 4, 5, 6 or 32")])
def test_a_width_that_the_format_does_not_have_lists_those_that_it_has(name, bits, widths):
    message = f"weight_bits of the format '{name}' must be {widths}, got {bits}; formats of {bits} bits are int, "
    with pytest.raises(SpecError, match=message):
        LayerSpec(weight_bits=bits, weight_format=name)


def test_unknown_keys_and_wrong_types_are_named():
    with pytest.raises(SpecError, match=r"unknown key 'bits'.*known are weight_bits"):
        LayerSpec.from_dict({"bits": 4})
    with pytest.raises(SpecError, match="weight_method must be the name of a method, got 3"):
        LayerSpec.from_dict({"weight_method": 3})
    assert issubclass(SpecError, InputError)


def test_the_values_are_there_without_torch():
    code = "import sys, paredown.compressors as c; c.LayerSpec(); c.Anatomy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=_environment()).returncode == 0


def test_every_public_name_can_be_had():
    import paredown.compressors
    import paredown.compressors.storage

    for module in (paredown.compressors, paredown.compressors.storage):
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = module.nonsense


def _environment():
    import os
    from pathlib import Path

    import paredown

    return {**os.environ, "PYTHONPATH": str(Path(paredown.__file__).parents[1])}


def test_the_label_names_what_is_not_plain():
    spec = LayerSpec(weight_bits=3, weight_format="palette", group_size=64, scale_bits=16, weight_method="gptq")
    assert spec.label() == "w3-palette/64h:gptq"
    assert LayerSpec(weight_bits=16, weight_format="bf16").label() == "w16-bf16"
    assert LayerSpec(weight_bits=4, group_size="tensor", activation_bits=6).label() == "w4/tensor a6"
    assert LayerSpec(activation_bits=8, activation_scheme="dynamic").label() == "a8-dynamic"


def test_what_an_integer_kernel_sees():
    assert LayerSpec(weight_bits=3, activation_bits=4).kernel_bits == (3, 8)
    assert LayerSpec(weight_bits=3, group_size="tensor").kernel_bits == (3, 32)
    assert LayerSpec(weight_bits=4, weight_format="nf4", activation_bits=8).kernel_bits == (32, 8)
    assert LayerSpec(weight_bits=4, group_size=64).kernel_bits == (32, 32)
    assert LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="dynamic").kernel_bits == (8, 8)
    assert LayerSpec(weight_bits=8, activation_bits=6, activation_scheme="dynamic").kernel_bits == (8, 32)
    assert LayerSpec(weight_bits=4, group_size=64, activation_bits=8, activation_scheme="dynamic").kernel_bits == (
        32,
        32,
    )
    assert LayerSpec().kernel_bits == (32, 32)


def test_the_label_names_a_method_that_is_not_built_in():
    assert LayerSpec(weight_bits=4, activation_bits=8, weight_method="mine").label() == "w4:mine a8"
    assert LayerSpec(sparsity=0.5, rank=0.25, rank_method="tucker").label() == "s50 r25:tucker"
    assert LayerSpec(activation_bits=8, activation_method="p99").label() == "a8:p99"
    assert LayerSpec(weight_method="mine").label() == "fp32"  # nothing is done, by whatever method
