"""`[data] mask` reaches every statistic of a task: padded data give the problem of the same texts without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.search import Candidate, Task
from paredown.search.evaluation import Worker
from paredown.search.problem import Problem, prepare

REAL, WIDTH, CLASSES = 5, 9, 4


class Tagger(nn.Module):
    """Tags of tokens, and one vector for each text: the mean over its real tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.head = nn.Embedding(9, 7), nn.Linear(7, 12), nn.Linear(12, CLASSES)

    def forward(self, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.up(self.embed(ids)))
        pooled = (x * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return self.head(x), pooled


def data(side: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Texts with targets of -100 at padded positions, and at each text's first token."""
    generator = torch.Generator().manual_seed(1)
    texts, tags = (torch.randint(0, most, (48, REAL), generator=generator) for most in (8, CLASSES))
    tags[:, 0] = -100
    if side == "none":
        return (texts, torch.ones_like(texts)), tags
    at = slice(0, REAL) if side == "right" else slice(WIDTH - REAL, WIDTH)
    ids, real, targets = torch.full((48, WIDTH), 8), torch.zeros(48, WIDTH).long(), torch.full((48, WIDTH), -100)
    ids[:, at], real[:, at], targets[:, at] = texts, 1, tags
    return (ids, real), targets


def problem(side: str, store: Path) -> Problem:
    given: dict[str, Any] = {"factory": f"{__file__}:data", "args": {"side": side}, "mask": "1", "batch_size": 8}
    task = Task.from_dict(
        {
            "data": {**given, "calibration": 16, "search": 16, "report": 16},
            "quality": {"metric": "accuracy"},
            "hardware": {"runtime": "torch"},
            "space": {
                "weight_bits": [3, 32], "activation_bits": [8, 32], "weight_method": ["gptq"],
                "sparsity": [0.0, 0.5], "sparsity_method": ["fisher"],
            },
            "budget": {"trials": 2},
        }
    )  # fmt: skip
    return prepare(task, store=store, model=Tagger())


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_task_with_padding_is_that_of_its_texts(side: str, tmp_path: Path) -> None:
    wanted, found = problem("none", tmp_path / "one"), problem(side, tmp_path / "two")
    assert found.quality["accuracy"].value == pytest.approx(wanted.quality["accuracy"].value)
    mine, theirs = found.context, wanted.context
    assert mine.distance.outputs[1].variance == pytest.approx(theirs.distance.outputs[1].variance)
    assert mine.space == theirs.space
    for fqn, one in theirs.calibration.ranges.items():
        other = mine.calibration.ranges[fqn]
        assert (other.low, other.high, other.n) == (pytest.approx(one.low), pytest.approx(one.high), one.n)
    candidate = Candidate(levels=tuple(len(group.levels) - 1 for group in mine.space.groups))
    results = [Worker(context).evaluate_low_fidelity(candidate, 16).metrics for context in (mine, theirs)]
    for name in ("accuracy", "divergence"):
        assert results[0][name].value == pytest.approx(results[1][name].value, rel=1e-4), name
    assert results[1]["divergence"].value > 0.0
