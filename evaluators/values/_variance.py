"""Variance of very many numbers, some at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_AT_ONCE = 1 << 22
"""Numbers that are widened to double precision at a time: 32 MiB."""


@dataclass(slots=True)
class RunningVariance:
    """Count, mean and sum of squared deviations of all numbers added so far, in double precision (Chan et al. 1979)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        """Add the numbers of a tensor of any shape."""
        for part in values.reshape(-1).split(_AT_ONCE):
            if not part.numel():
                continue
            part = part.double()
            n, mean = part.numel(), float(part.mean())
            squares = float((part - mean).square().sum())
            total, apart = self.n + n, mean - self.mean
            self.squares += squares + apart * apart * self.n * n / total
            self.mean += apart * n / total
            self.n = total

    @property
    def value(self) -> float:
        """Variance over the count; NaN where nothing was added."""
        return self.squares / self.n if self.n else float("nan")
