"""What stands in for a block that was dropped."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def passed(n: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden state, which is a block's first argument, as the block would have answered (see `Removal.skipped`)."""
    state: Tensor = args[0] if args else next(iter(kwargs.values()))
    return state if n == 0 else (state, *([None] * (n - 1)))


class Passed(nn.Module):
    """A dropped residual block: the identity, whatever else the block is given. What the block said of itself in plain
    values it goes on to say: models look at such things (`layer.attention_type`)."""

    def __init__(self, n: int, block: nn.Module) -> None:
        super().__init__()
        for name, value in vars(block).items():
            if not name.startswith("_") and isinstance(value, (bool, int, float, str)):
                setattr(self, name, value)
        self.n_answers = n

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return passed(self.n_answers, args, kwargs)
