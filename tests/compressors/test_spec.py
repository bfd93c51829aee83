"""`LayerSpec` as a value: what it accepts, how it is written down."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import ACTIVATION_BITS, WEIGHT_BITS, LayerSpec
from paredown.errors import InputError, SpecError

specs = st.builds(
    LayerSpec,
    weight_bits=st.sampled_from(WEIGHT_BITS),
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
    assert dataclasses.replace(alone, activation_bits=spec.activation_bits) == spec


def test_the_default_is_neutral_and_writes_nothing():
    assert LayerSpec().is_neutral
    assert LayerSpec().to_dict() == {}
    assert LayerSpec().label() == "fp32"


def test_labels():
    assert LayerSpec(weight_bits=4, activation_bits=8, sparsity=0.5, rank=0.25).label() == "w4 a8 s50 r25"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight_bits", 9, "weight_bits must be one of 2, 3, 4, 5, 6, 7, 8 or 32, got 9"),
        ("weight_bits", True, "got True"),
        ("weight_bits", 4.0, "got 4.0"),
        ("activation_bits", 4, "activation_bits must be one of 8 or 32, got 4"),
        ("sparsity", 1.0, r"sparsity must be in \[0, 1\), got 1.0"),
        ("sparsity", float("nan"), "got nan"),
        ("rank", 0.0, r"rank must be in \(0, 1\], got 0.0"),
        ("rank", "half", "got 'half'"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(SpecError, match=message):
        LayerSpec(**{field: value})


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


def test_the_label_names_a_method_that_is_not_built_in():
    assert LayerSpec(weight_bits=4, activation_bits=8, weight_method="mine").label() == "w4:mine a8"
    assert LayerSpec(sparsity=0.5, rank=0.25, rank_method="tucker").label() == "s50 r25:tucker"
    assert LayerSpec(activation_bits=8, activation_method="p99").label() == "a8:p99"
    assert LayerSpec(weight_method="mine").label() == "fp32"  # nothing is done, by whatever method
