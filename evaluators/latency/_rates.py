"""Rates of a roofline from timed layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ._figures import KernelFigure

LEAST_POSITIONS = 8
"""Least uses of each weight: a layer with fewer waits for memory, and says nothing about arithmetic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerClass:
    """Layers that share kernels. `suffix`: end of the keys of their rates in a profile."""

    operator: str
    depthwise: bool
    suffix: str

    @property
    def name(self) -> str:
        return f"{self.operator} depthwise" if self.depthwise else self.operator

    def of(self, kernels: Sequence[KernelFigure], form: str) -> list[KernelFigure]:
        """Layers of the class that can run in this form."""
        return [
            k
            for k in kernels
            if (k.operator, k.depthwise, k.form) == (self.operator, self.depthwise, form) and k.ms is not None
        ]


CLASSES = (
    LayerClass(operator="conv2d", depthwise=False, suffix=""),
    LayerClass(operator="conv2d", depthwise=True, suffix="_depthwise"),
    LayerClass(operator="linear", depthwise=False, suffix="_linear"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Rate of a class. gmac_s: the median over `n` layers; low, high: the slowest and the fastest of them."""

    gmac_s: float
    low: float
    high: float
    n: int


def rate_of(kernels: Sequence[KernelFigure], kernel_us: float, *, kept: float = 1.0) -> Rate | None:
    """Rate of these layers without the launch of their kernel, which a roofline adds by itself; None of none.

    kernel_us  of a kernel whose work is next to nothing; at most half of a layer's time is taken off for it
    kept       share of the dense layer's products that the kernel does

    The median, and not the best: what one layer reaches at its best is no promise for the others.
    """
    busy = [k for k in kernels if k.positions >= LEAST_POSITIONS] or list(kernels)
    reached = sorted(
        kept * k.gmac_s * k.ms / max(k.ms - kernel_us / 1e3, k.ms / 2) for k in busy if k.ms and k.gmac_s is not None
    )
    if not reached:
        return None
    return Rate(gmac_s=median(reached), low=reached[0], high=reached[-1], n=len(reached))
