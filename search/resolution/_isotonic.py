"""Isotonic regression to a non-increasing function, by pooling adjacent violators (Ayer et al. 1955)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._arrays import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Falling:
    """A non-increasing function: linear between the points, constant beyond.

    x, y  (blocks,); x rises and y falls
    """

    x: FloatArray
    y: FloatArray

    @classmethod
    def fit(cls, x: FloatArray, y: FloatArray) -> Falling:
        """Fit by least squares over all non-increasing functions, with each block of equal values at its mean x.

        x, y  (n,), n at least 1, in any order
        """
        order = np.lexsort((y, x))
        blocks: list[tuple[float, float, int]] = []  # sums of x and y, and how many
        for left, value in zip(x[order].tolist(), y[order].tolist(), strict=True):
            block = (left, value, 1)
            while blocks and blocks[-1][1] * block[2] <= block[1] * blocks[-1][2]:
                before = blocks.pop()
                block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
            blocks.append(block)
        n = np.array([block[2] for block in blocks], dtype=np.float64)
        return cls(x=np.array([b[0] for b in blocks]) / n, y=np.array([b[1] for b in blocks]) / n)

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(np.interp(x, self.x, self.y), dtype=np.float64)
