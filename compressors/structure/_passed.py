"""What stands in for a block that was dropped."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def passed(n: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden state, which is a block's first argument, as the block would have answered (see `Removal.skipped`)."""
    state: Tensor = args[0] if args else next(iter(kwargs.values()))
    return state if n == 0 else (state, *([None] * (n - 1)))


class Passed(nn.Module):
    """A dropped residual block: the identity, whatever else the block is given."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return passed(self.n, args, kwargs)
