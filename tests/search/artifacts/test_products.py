"""Attention's products in a search, from the space to the verified artifact."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.search import Task, search


class Attentive(nn.Module):
    """Sixteen numbers as four tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 8) for _ in range(3))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(x.shape[0], 4, 4)
        seen = functional.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens))
        output: Tensor = self.head(seen.flatten(1))
        return output


def test_what_is_chosen_is_what_is_exported(tmp_path: Path) -> None:
    data = {
        "data": {"factory": "tiny.py:data"},
        "quality": {"max_loss": 1.0},
        "space": {"weight_bits": [8, 32], "activation_bits": [8], "activation_scope": ["product"]},
        "hardware": {"runtime": "openvino", "latency_seconds": 0.02},
        "budget": {"trials": 2},
        "mlflow": {"enabled": False},
    }
    torch.manual_seed(3)
    task = Task.from_dict(data, base_dir=Path(__file__).parents[1] / "tiny")
    front = search(task, model=Attentive().eval(), out=tmp_path / "run", workers=0)
    assert all(point.verified for point in front.points), [point.note for point in front.points]
    layers = [point.config["layers"] for point in front.points if point.config["layers"]]
    assert layers
    for each in layers:
        assert [fqn for fqn, spec in each.items() if spec.get("activation_scope") == "product"] == ["q", "k", "v"]
