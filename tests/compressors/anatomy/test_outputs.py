"""Outputs of a model in any structure: names, order, slices, and the way back."""

from __future__ import annotations

import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from paredown.compressors.anatomy import (
    NamedOutputs,
    Outputs,
    compared_tensors,
    flat_outputs,
    joined,
    outputs_of,
    own_scales,
    packed,
    primary,
)
from paredown.errors import InputError

A, B, C = torch.randn(3, 2), torch.randn(3, 4, 5), torch.arange(3)


@dataclass(frozen=True)
class Detection:
    boxes: Tensor
    scores: Tensor
    label: str = "cat"


Pair = namedtuple("Pair", ["boxes", "scores"])

STRUCTURES: list[tuple[Any, tuple[str, ...]]] = [
    ((A, B), ("output_0", "output_1")),
    ([A, B], ("output_0", "output_1")),
    ({"boxes": A, "scores": B}, ("boxes", "scores")),
    (OrderedDict(b=B, a=A), ("b", "a")),
    (Detection(A, B), ("boxes", "scores")),
    (Pair(A, B), ("boxes", "scores")),
    ({"features": [A, B], "ids": C}, ("features.0", "features.1", "ids")),
    ((A, {"x": (B, C)}), ("output_0", "output_1.x.0", "output_1.x.1")),
    ({"a": A, "none": None, "n": 3, "b": B}, ("a", "b")),
]


def several(value: object) -> NamedOutputs:
    outputs = outputs_of(value)
    assert isinstance(outputs, NamedOutputs)
    return outputs


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, Detection):
        return type(other) is Detection and same(vars(one), vars(other))
    return bool(one == other)


@pytest.mark.parametrize(("value", "names"), STRUCTURES)
def test_names_follow_the_structure_and_the_structure_comes_back(value: Any, names: tuple[str, ...]) -> None:
    outputs = several(value)
    assert outputs.names == names
    assert same(value, outputs.structure())
    assert same(value, pickle.loads(pickle.dumps(outputs)).structure())
    assert same(outputs[1:].structure(), several(value)[1:].structure())
    assert len(outputs[1:]) == 2


@pytest.mark.parametrize("value", [A, (A,), [A], {"logits": A}, (A, None), {"logits": A, "cache": object()}])
def test_one_tensor_is_returned_as_such(value: object) -> None:
    assert outputs_of(value) is A


@pytest.mark.parametrize("value", [None, (), {}, 3.0, (None, "x")])
def test_no_tensor_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="must return a tensor"):
        outputs_of(value)


def test_auxiliary_fields_of_transformers_are_no_outputs() -> None:
    outputs = pytest.importorskip("transformers").modeling_outputs
    found = outputs.Seq2SeqLMOutput(loss=A.sum(), logits=B, past_key_values=((A, A),), encoder_last_hidden_state=B)
    assert outputs_of(found) is B
    named = several(outputs.BaseModelOutputWithPooling(last_hidden_state=B, pooler_output=A, attentions=(B,)))
    assert named.names == ("last_hidden_state", "pooler_output")
    structure = named.structure()
    assert structure.last_hidden_state is B
    assert structure["pooler_output"] is A
    assert structure[0] is B


def test_batches_are_joined_without_what_a_batch_lacks() -> None:
    whole = several({"a": A, "b": B})
    parts: list[Outputs] = [whole[:2], whole[2:]]
    assert same(several({"a": A, "b": B}).structure(), joined(parts).structure())  # type: ignore[union-attr]
    assert joined([whole[:2].only(["a"]), whole[2:].only(["a"])]).names == ("a",)  # type: ignore[union-attr]


def test_a_runtime_gives_tensors_in_order_and_gets_the_names_of_the_model() -> None:
    model = several(Detection(A, B))
    found = flat_outputs([A + 1, B + 1], ["out", "out_1"])
    assert isinstance(found, NamedOutputs)
    like = found.like(model)
    assert like.names == ("boxes", "scores")
    assert isinstance(like.structure(), Detection)
    with pytest.raises(InputError, match=r"expected 2 outputs \(boxes, scores\), got 3"):
        several((A, B, C)).like(model)


def test_whole_numbers_are_not_compared_and_the_first_of_floating_point_is_read() -> None:
    outputs = several({"ids": C, "boxes": A, "logits": B})
    assert list(compared_tensors(outputs)) == ["boxes", "logits"]
    assert primary(outputs) is B  # a model that names its logits means them
    assert primary(outputs, "boxes") is A
    assert primary(several({"ids": C, "boxes": A, "scores": B})) is A


def test_packed_squares_are_the_mean_over_the_outputs() -> None:
    one = several({"boxes": 100 * A, "scores": B})
    other = several({"boxes": 100 * A + torch.randn(3, 2), "scores": B + torch.randn(3, 4, 5)})
    scales = own_scales(one)
    wanted = [
        (one.tensors[name] - other.tensors[name]).square().mean() / one.tensors[name].var(correction=0)
        for name in one.names
    ]
    found = (packed(one, scales) - packed(other, scales)).square().mean()
    assert float(found) == pytest.approx(float(sum(wanted)) / 2, rel=1e-5)
