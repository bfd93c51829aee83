"""Errors of the user's own model, data and metric: told as theirs, with the call, the shapes and what helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paredown.compressors import forward
from paredown.errors import TaskError
from paredown.search import Task
from paredown.search.problem import prepare
from paredown.search.problem._user_errors import described, user_errors

NET = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.conv = nn.Conv1d(4, 8, 3, padding=1)
        self.fc = nn.Linear(48, 5)

    def forward(self, x):
        x = F.relu(self.conv(self.embed(x).transpose(1, 2)))
        return self.fc({reshape})

def data():
    torch.manual_seed(0)
    x = torch.randint(0, 10, (120, 6))
    {spoil}
    return x, torch.randint(0, 5, (120,))

def metric(outputs, targets):
    return {score}
"""


@pytest.fixture
def problem(tmp_path: Path) -> Callable[..., object]:
    def make(
        reshape: str = "x.flatten(1)", spoil: str = "pass", score: str = "(outputs.argmax(1) == targets).float()",
        batch_size: int = 32, space: dict[str, object] | None = None,
    ) -> object:  # fmt: skip
        (tmp_path / "net.py").write_text(NET.format(reshape=reshape, spoil=spoil, score=score))
        task = {
            "model": {"factory": "net.py:Net"},
            "data": {
                "factory": "net.py:data", "batch_size": batch_size, "calibration": 40, "search": 40, "report": 40
            },
            "quality": {"metric": "net.py:metric", "maximise": True},
            "space": {"weight_bits": [4, 32], "activation_bits": [8, 32], **(space or {})},
            "hardware": {"runtime": "torch"},
        }  # fmt: skip
        return prepare(Task.from_dict(task, base_dir=tmp_path), store=tmp_path / "store")

    return make


def test_a_forward_for_one_sample_only(problem: Callable[..., object]) -> None:
    with pytest.raises(TaskError) as caught:
        problem("x.reshape(1, 48)")
    assert str(caught.value) == (
        "the model's forward at batch 32 (Net, inputs int64 (32, 6)) raised RuntimeError: shape '[1, 48]' is invalid "
        "for input of size 1536 (net.py line 15); each sample runs alone: set [data] batch_size = 1, or write the "
        "forward for any batch"
    )
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("space", [{}, {"structure": ["channels"]}])
def test_the_advice_helps(problem: Callable[..., object], space: dict[str, object]) -> None:
    problem("x.reshape(1, -1)" if space else "x.reshape(1, 48)", batch_size=1)


@pytest.mark.parametrize(
    ("reshape", "spoil", "parts"),
    [
        ("x.flatten(1).squeeze().flatten(1)", "pass", ["at batch 1 (", "it runs at batch 2", "let it run at batch 1"]),
        ("x.flatten(1)[:, 1:]", "pass", ["at batch 1 (", "mat1 and mat2", "correct the model, or the inputs"]),
        # one sample alone; which batch it falls into depends on the seed of the split
        ("x.flatten(1)", "x[45, 2] = 10", ["batch ", "IndexError", "of this batch fails alone too", "data.factory"]),
        ("x.flatten(1)", "x[:, 2] = 10", ["at batch 1 (", "IndexError", "correct the model, or the inputs"]),
        (
            "x.flatten(1) if len(x) < 2 else torch.empty(2**60)",
            "pass",
            ["at batch 32 (", "smaller [data] batch_size"],
        ),
    ],
)
def test_what_helps(problem: Callable[..., object], reshape: str, spoil: str, parts: list[str]) -> None:
    with pytest.raises(TaskError) as caught:
        problem(reshape, spoil)
    message = str(caught.value)
    assert message.startswith("the model's forward at batch ")
    assert "\n" not in message
    for part in (*parts, "(Net, inputs int64 ("):
        assert part in message


def test_a_metric_that_raises(problem: Callable[..., object]) -> None:
    with pytest.raises(TaskError, match=r"metric metric raised RuntimeError: .* on outputs of the original model, flo"):
        problem(score="(outputs.argmax(1) == targets[:3]).float()")


def test_a_dataset_that_raises(problem: Callable[..., object]) -> None:
    methods = "{'__len__': lambda self: 120, '__getitem__': lambda self, i: (x[:2], i)[i]}"
    with pytest.raises(TaskError, match=r"sample 2 of the data dataset raised IndexError: .*; correct the dataset"):
        problem(spoil=f"return type('Rows', (torch.utils.data.Dataset,), {methods})()")


def test_an_error_of_ours_is_not_told_as_theirs() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a hook of ours")

    def hooked() -> None:
        handle = model.register_forward_hook(broken)
        try:
            forward(model, torch.rand(8, 3))
        finally:
            handle.remove()

    model = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="a hook of ours"), user_errors(8):
        hooked()
    with pytest.raises(ZeroDivisionError), user_errors(8):
        1 / 0  # noqa: B018


class Pair(nn.Module):
    def forward(self, *, ids: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
        return F.one_hot(ids.reshape(1, 4), 3) * mask.unsqueeze(-1) * scale


def test_inputs_by_name_and_what_has_no_batch_axis() -> None:
    inputs = {"ids": torch.ones(8, 4).long(), "mask": torch.ones(8, 4), "scale": torch.tensor(2.0)}
    shapes = r"inputs \{ids: int64 \(8, 4\), mask: float32 \(8, 4\), scale: float32 \(\)\}"
    with pytest.raises(TaskError, match=shapes), user_errors(8):
        forward(Pair(), inputs)
    with pytest.raises(TaskError, match="this step needs several at once"), user_errors(1):
        forward(Pair(), inputs)


def test_shapes_of_any_structure() -> None:
    nested = (torch.zeros(2, 3), [torch.zeros(1).long(), None], "x")
    assert described(nested) == "(float32 (2, 3), (int64 (1,), none), str)"
