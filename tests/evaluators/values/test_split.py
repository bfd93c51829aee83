"""Splits: what is refused, what is kept in order, when two samples are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from paredown.errors import InputError
from paredown.evaluators import Split


def _split(n: int = 5) -> Split:
    return Split("search", torch.arange(n * 3.0).reshape(n, 3), torch.arange(n))


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_batches_are_the_split_in_order(n: int, batch_size: int) -> None:
    split = _split(n)
    assert isinstance(split.inputs, Tensor)
    assert split.targets is not None
    batches = list(split.batches(batch_size))
    assert [len(targets) for _, targets in batches if targets is not None][:-1] == [batch_size] * (len(batches) - 1)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches if isinstance(inputs, Tensor)]), split.inputs)
    assert torch.equal(torch.cat([targets for _, targets in batches if targets is not None]), split.targets)


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(4, 2), torch.ones(4)),
        {"ids": torch.zeros(4, 2), "mask": torch.ones(4, 2)},
    ],
)
def test_tuples_and_dicts_are_cut_in_every_part(inputs: Any) -> None:
    split = Split("search", inputs)
    assert len(split) == 4
    taken = split.take(3).inputs
    parts = taken.values() if isinstance(taken, dict) else taken
    assert {len(part) for part in parts} == {3}
    assert type(taken) is type(inputs)
    assert [targets for _, targets in split.batches(2)] == [None, None]


def test_take_is_a_view_and_never_more_than_there_is() -> None:
    split = _split(5)
    assert split.take(9) is split
    taken = split.take(2)
    assert isinstance(taken.inputs, Tensor)
    assert isinstance(split.inputs, Tensor)
    assert taken.inputs.data_ptr() == split.inputs.data_ptr()
    assert split.select(torch.tensor([3, 0])).targets.tolist() == [3, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(0, 3), None, "the search split is empty"),
        (torch.tensor(1.0), None, "inputs of the search split is a scalar"),
        ((), None, "has no inputs"),
        ({}, None, "has no inputs"),
        ([1.0, 2.0], None, "must be a tensor, got list"),
        ({"x": [1.0]}, None, r"inputs\['x'\] of the search split must be a tensor, got list"),
        (torch.zeros(3, 2), torch.zeros(4), "inputs 3, targets 4"),
        ((torch.zeros(3), torch.zeros(2)), None, r"inputs\[0\] 3, inputs\[1\] 2"),
    ],
)
def test_what_is_no_split_is_refused(inputs: Any, targets: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Split("search", inputs, targets)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        _split().take(0)
    with pytest.raises(InputError, match="batch size must be at least 1, got 0"):
        list(_split().batches(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool])
def test_sample_digests_tell_samples_apart(dtype: torch.dtype) -> None:
    inputs = torch.tensor([[0, 1], [1, 1], [0, 1], [1, 0]]).to(dtype)
    first, second, third, fourth = Split("search", inputs).sample_digests()
    assert first == third
    assert len({first, second, fourth}) == 3


def test_sample_digests_are_of_the_inputs_alone() -> None:
    one = _split(4)
    other = Split("report", one.inputs, torch.zeros(4))
    assert one.sample_digests() == other.sample_digests()
    assert one.select(torch.tensor([2])).sample_digests() == one.sample_digests()[2:3]
    flat = Split("search", torch.zeros(1, 4)).sample_digests()
    assert flat != Split("search", torch.zeros(1, 2, 2)).sample_digests()
    pair = Split("search", (torch.zeros(1, 2), torch.ones(1, 2))).sample_digests()
    assert pair != Split("search", (torch.ones(1, 2), torch.zeros(1, 2))).sample_digests()


def test_the_digest_is_of_inputs_targets_and_order() -> None:
    split = _split(4)
    assert split.digest == Split("report", split.inputs, split.targets).digest
    assert split.digest == _split(5).take(4).digest
    assert split.digest != split.select(torch.tensor([1, 0, 2, 3])).digest
    assert split.digest != Split("search", split.inputs, torch.zeros(4, dtype=torch.int64)).digest
    transposed = torch.arange(12.0).reshape(3, 4).t()
    assert Split("search", transposed).digest == Split("search", transposed.contiguous()).digest


def test_it_says_its_shapes() -> None:
    assert repr(_split(2)) == "Split('search', inputs (2, 3), targets (2,))"
