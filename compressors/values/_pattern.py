"""Positions where a sparse weight may have zeros, as a value.

The weight of a layer is a matrix (out, in * kernel); a pattern runs along outputs and *input channels*, at each
position of the kernel by itself, as sparse kernels want it (TensorRT: of every four input channels two, for each
output channel and position).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from ...errors import SpecError

_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")
_BLOCK = re.compile(r"([1-9]\d*)x([1-9]\d*)")
_WORDS = ("row", "column")
_LARGEST = 4096


@dataclass(frozen=True, slots=True)
class Pattern:
    """Parsed form of a pattern's text.

    kind  ""        zeros stand anywhere
          "n:m"     of every m input channels n survive
          "block"   n outputs x m input channels live or die together
          "row"     each output has as many zeros as every other
          "column"  each input (of each position of the kernel) has
    """

    kind: str = ""
    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: object) -> Pattern:
        """Read a pattern's text. Raises `SpecError` naming the known patterns."""
        if not isinstance(text, str):
            raise SpecError(f"pattern must be a string such as '2:4', got {text!r}")
        return _parsed(text)

    @property
    def share(self) -> float | None:
        """Share of zeros that the pattern itself fixes; None where any share is allowed."""
        return 1.0 - self.n / self.m if self.kind == "n:m" else None

    def misfit(self, rows: int, inputs: int) -> str | None:
        """Reason why the pattern does not fit a matrix of (rows, inputs) channels, as a clause; None if it fits."""
        if self.kind == "n:m" and inputs % self.m:
            return f"{self.n}:{self.m} needs a multiple of {self.m} input channels, and here are {inputs}"
        if self.kind == "block" and (rows % self.n or inputs % self.m):
            return (
                f"blocks of {self.n}x{self.m} need a multiple of {self.n} outputs and of {self.m} input channels, and "
                f"here are {rows} and {inputs}"
            )
        return None

    def n_zeros(self, share: float, shape: tuple[int, int]) -> int:
        """Number of weights dropped from a matrix (rows, columns) that the pattern fits.

        The count is rounded to whole units: weights, blocks, or weights per row or column. At least one unit survives
        (in each row or column where these are balanced), so no layer is ever emptied.
        """
        rows, columns = shape
        if self.kind == "n:m":
            return rows * columns // self.m * (self.m - self.n)
        if self.kind == "block":
            return _floored(share, rows * columns // (self.n * self.m)) * self.n * self.m
        if self.kind == "row":
            return rows * _floored(share, columns)
        if self.kind == "column":
            return columns * _floored(share, rows)
        return _floored(share, rows * columns)


def _floored(share: float, n: int) -> int:
    return max(0, min(n - 1, round(share * n)))


@cache
def _parsed(text: str) -> Pattern:
    if text == "" or text in _WORDS:
        return Pattern(kind=text)
    if (match := _N_OF_M.fullmatch(text)) and int(match[1]) < int(match[2]) <= _LARGEST:
        return Pattern(kind="n:m", n=int(match[1]), m=int(match[2]))
    if (
        (match := _BLOCK.fullmatch(text))
        and int(match[1]) * int(match[2]) > 1
        and max(map(int, match.groups())) <= _LARGEST
    ):
        return Pattern(kind="block", n=int(match[1]), m=int(match[2]))
    raise SpecError(
        f"pattern must be '' (zeros anywhere), 'N:M' with N < M (of every M input channels N survive: '2:4'), a block "
        f"of outputs x inputs ('1x4', '4x4', '16x1'), 'row' or 'column', got {text!r}"
    )


ANYWHERE = Pattern()
