"""`torch.export` with a free batch, and what is done where a model fixes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paredown.errors import InputError
from paredown.evaluators.runtimes import batch_size, chunks, export_program, get_runtime, with_batch


class Counts(nn.Module):
    """`len(x)` is a plain number to everything but a look at the bytecode."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(x), -1), x], 1)


class OneByOne(nn.Module):
    """Works for one sample only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 6) * 2.0


class Pairs(nn.Module):
    """Works for two samples only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 6) * 2.0


class Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": x.sum(), "logits": x + 1.0}


def first_axis(model: nn.Module, inputs: Tensor) -> int | None:
    program = export_program(model.eval(), inputs)
    (node,) = (n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    size = node.meta["val"].shape[0]
    return size if isinstance(size, int) else None


def test_the_batch_is_free_even_if_the_example_is_one_sample() -> None:
    assert first_axis(nn.Linear(6, 2), torch.ones(1, 6)) is None


def test_the_batch_is_free_where_the_model_asks_for_its_length() -> None:
    assert first_axis(Counts(), torch.ones(4, 6)) is None


def test_a_model_for_one_sample_is_exported_for_one() -> None:
    assert first_axis(OneByOne(), torch.ones(4, 6)) == 1


def test_a_model_for_its_example_only_is_exported_for_that() -> None:
    assert first_axis(Pairs(), torch.ones(2, 6)) == 2


def test_a_recurrent_model_is_exported_without_a_word() -> None:
    """`nn.LSTM` assigns to its own list of weights while it is traced, of which PyTorch warns; warnings are errors."""
    export_program(nn.LSTM(3, 4), torch.ones(5, 2, 3))


def test_the_model_is_left_without_a_hook() -> None:
    model = nn.Linear(6, 2)
    export_program(model, torch.ones(2, 6))
    assert not model._forward_hooks


def test_the_tensors_of_a_dictionary_keep_their_names() -> None:
    found = export_program(Dictionary(), torch.ones(2, 3)).module()(torch.ones(5, 3))
    assert torch.equal(found["logits"], torch.full((5, 3), 2.0))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("model", [OneByOne(), Pairs()])
def test_a_fixed_batch_serves_any_number_of_samples(name: str, model: nn.Module, tmp_path: Path) -> None:
    runtime = get_runtime(name)
    path = runtime.export(model.eval(), {}, {}, None, torch.ones(2, 6), tmp_path)
    x = torch.arange(30.0).reshape(5, 6)
    assert torch.equal(runtime.load(path, threads=1).run(x), 2.0 * x)


def test_with_batch_cuts_and_fills() -> None:
    x, mask = torch.arange(6.0).reshape(3, 2), torch.ones(7)
    few, same = with_batch((x, mask), 2)
    assert torch.equal(few, x[:2])
    assert same is mask  # its first axis is not the sample
    filled = with_batch({"x": x}, 5)["x"]
    assert torch.equal(filled, x[[0, 1, 2, 2, 2]])


def test_chunks_cover_every_sample_once() -> None:
    x = torch.arange(7)
    pieces = [(piece.tolist(), n) for piece, n in chunks(x, 3)]
    assert pieces == [([0, 1, 2], 3), ([3, 4, 5], 3), ([6, 6, 6], 1)]


@pytest.mark.parametrize("inputs", [(), torch.tensor(1.0), torch.ones(0, 3), ("text",)])
def test_inputs_without_a_sample_are_refused(inputs: object) -> None:
    with pytest.raises(InputError, match="whose first axis is the sample"):
        batch_size(inputs)  # type: ignore[arg-type]
