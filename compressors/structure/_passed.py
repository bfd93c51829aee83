"""Replacement of a dropped block."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def passed(n: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the hidden state, a block's first argument, in the form of the block's output (see `Removal.skipped`)."""
    state: Tensor = args[0] if args else next(iter(kwargs.values()))
    return state if n == 0 else (state, *([None] * (n - 1)))


class Passed(nn.Module):
    """Dropped residual block: the identity, with any further arguments ignored.

    It keeps the block's attributes of plain values, as models read such attributes (`layer.attention_type`).
    """

    def __init__(self, n: int, block: nn.Module) -> None:
        super().__init__()
        for name, value in vars(block).items():
            if not name.startswith("_") and isinstance(value, (bool, int, float, str)):
                setattr(self, name, value)
        self.n_answers = n

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return passed(self.n_answers, args, kwargs)
