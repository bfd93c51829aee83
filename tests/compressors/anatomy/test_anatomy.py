"""An anatomy as JSON: what is written is read again, and what is not one is refused by name."""

from __future__ import annotations

import json

import pytest

from paredown.compressors import Anatomy, trace_anatomy
from paredown.errors import InputError
from paredown.testing._models import AWKWARD


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "nothing"])
def test_it_comes_back_the_same(name: str) -> None:
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    again = Anatomy.from_dict(json.loads(json.dumps(anatomy.to_dict())))
    assert again == anatomy
    assert hash(again) == hash(anatomy)  # all the way down of tuples, not of lists


def test_a_key_that_is_unknown_or_missing_is_named() -> None:
    layer = {"fqn": "fc", "kind": "linear", "weight_shape": [2, 3]}
    assert Anatomy.from_dict({"layers": [layer]})["fc"].matrix_shape == (2, 3)
    with pytest.raises(InputError, match="unknown key 'colour' in a stored LayerInfo; it has fqn, kind"):
        Anatomy.from_dict({"layers": [{**layer, "colour": 1}]})
    with pytest.raises(InputError, match="missing key 'layers' in a stored Anatomy"):
        Anatomy.from_dict({"n_params": 3})


def test_the_keys_of_runs_that_an_earlier_version_stored_are_read() -> None:
    layer = {"fqn": "conv", "kind": "conv2d", "weight_shape": [2, 3, 1, 1], "sum_after": "bn", "relu_behind": True}
    read = Anatomy.from_dict({"layers": [layer]})["conv"]
    assert (read.residual_output, read.relu_before_mean) == ("bn", True)
