"""Positions that masks of every form leave real."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paredown.compressors.anatomy import continued, output_positions, positions
from paredown.errors import InputError

REAL = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
"""Padding on the right, on the left, and none."""
N, T = REAL.shape
CAUSAL = torch.ones(T, T).tril().bool()


def additive(mask: Tensor, low: float) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, low)


def causal(*, opened: str) -> Tensor:
    """Causal masks (N, 1, T, T) with the columns of padding closed; rows that read nothing are `opened`."""
    mask = CAUSAL & REAL[:, None, :]
    if opened == "all":
        mask = mask | ~mask.any(dim=2, keepdim=True)
    elif opened == "self":
        mask = mask | (torch.eye(T).bool() & ~mask.any(dim=2, keepdim=True))
    return mask[:, None]


TWO = {"bool": REAL, "int": REAL.long(), "float": REAL.float(), "additive": additive(REAL, -1e4)}
MORE = {
    "extended": REAL[:, None, None, :],
    "columns": REAL[:, None, :].expand(N, T, T),
    "both": REAL[:, None, :] & REAL[:, :, None],
    "causal": causal(opened="no"),
    "causal, opened": causal(opened="all"),
    "causal, itself": causal(opened="self"),
    "heads": causal(opened="no").expand(N, 3, T, T),
}


@pytest.mark.parametrize("form", TWO)
def test_a_mask_of_two_axes_says_it_itself(form: str) -> None:
    found = positions({"input_ids": torch.zeros(N, T), "attention_mask": TWO[form]})
    assert found is not None
    assert torch.equal(found, REAL)


@pytest.mark.parametrize("form", MORE)
@pytest.mark.parametrize("low", [None, 0, -1e4, float("-inf"), torch.finfo(torch.float32).min])
def test_a_mask_of_more_axes_is_reduced(form: str, low: float | None) -> None:
    mask = MORE[form] if low is None else MORE[form].long() if low == 0 else additive(MORE[form], low)
    found = positions({"attention_mask": mask})
    assert found is not None
    assert torch.equal(found, REAL)


def test_padding_masks_of_torch_mean_the_opposite() -> None:
    found = positions({"x": torch.zeros(N, T), "src_key_padding_mask": ~REAL}, "src_key_padding_mask")
    assert found is not None
    assert torch.equal(found, REAL)


def test_a_mask_has_a_name_or_a_place() -> None:
    assert positions(torch.zeros(N, T)) is None
    assert positions({"x": torch.zeros(N, T), "keep": REAL}) is None
    for inputs, name in (({"x": torch.zeros(N, T), "keep": REAL}, "keep"), ((torch.zeros(N, T), REAL), "1")):
        found = positions(inputs, name)
        assert found is not None
        assert torch.equal(found, REAL)
    with pytest.raises(InputError, match=r"mask = 'kept' names no tensor among the inputs, which are keep, x"):
        positions({"x": torch.zeros(N, T), "keep": REAL}, "kept")
    with pytest.raises(InputError, match="which are a tuple of 2"):
        positions((torch.zeros(N, T), REAL), "keep")
    with pytest.raises(InputError, match=r"must be \(N, T\)"):
        positions({"attention_mask": torch.ones(N)})


def test_a_decoder_has_its_own_mask() -> None:
    inputs = {"input_ids": torch.zeros(N, 2), "attention_mask": torch.ones(N, 2), "decoder_input_ids": REAL.long()}
    assert output_positions(inputs) is None
    inputs["decoder_attention_mask"] = REAL.long()
    source, target = positions(inputs), output_positions(inputs)
    assert source is not None
    assert target is not None
    assert source.all()
    assert torch.equal(target, REAL)


BLOCKS = torch.tensor([0, 0, 1, 1, 1])
PACKED = {
    "position_ids": {"position_ids": torch.tensor([[0, 1, 0, 1, 2]])},
    "blocks": {"attention_mask": (CAUSAL & (BLOCKS[:, None] == BLOCKS))[None, None]},
    "additive blocks": {"attention_mask": additive((CAUSAL & (BLOCKS[:, None] == BLOCKS))[None, None], -1e9)},
    "blocks both ways": {"attention_mask": (BLOCKS[:, None] == BLOCKS)[None]},
    "numbers": {"attention_mask": BLOCKS[None] + 1},
}


@pytest.mark.parametrize("form", PACKED)
def test_documents_of_a_packed_sequence_are_apart(form: str) -> None:
    found = continued(PACKED[form])
    assert found is not None
    assert found.tolist() == [[False, True, False, True, True]]
    real = positions(PACKED[form])
    assert real is None or bool(real.all())


def test_one_document_is_continued_everywhere() -> None:
    assert continued({"input_ids": torch.zeros(1, T)}) is None
    assert continued({"attention_mask": REAL.long()}) is None
    found = continued({"attention_mask": CAUSAL[None]})
    assert found is not None
    assert found.tolist() == [[False, True, True, True, True]]
