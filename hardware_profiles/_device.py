"""The parts of a device: caches, tiles, energy, and operators whose time was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ._figure import Closed, Figure
from ._lowering import Kind

Level = Literal["l1", "l2", "l3", "l4", "memory"]


class Cache(Closed):
    """One level of fast memory: a cache, or on-chip memory that software fills.

    bandwidth_gb_s  of one core of a cpu; of the whole device otherwise. Without it, the level is not reckoned with
    """

    level: Literal["l1", "l2", "l3", "l4"]
    bytes: Figure
    shared_by: int = Field(default=1, ge=1, description="cores that share one of these")
    bandwidth_gb_s: Figure | None = None


class Tile(Closed):
    """The tile that one core of a gpu or npu computes at a time: output positions by output channels.

    A layer with fewer tiles than the device has cores leaves the rest of them idle.
    """

    positions: int = Field(ge=1)
    channels: int = Field(ge=1)
    source: str = Field(min_length=1)


class Alignment(Closed):
    """Layers whose kernels want their channels to be a multiple of a number: with others they are slow, or run in
    another kernel. What prunes channels rounds to it.

    channels  the number, a whole one
    """

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)] | None = None
    depthwise: bool | None = Field(default=None, description="whether each channel is convolved by itself")
    channels: Figure

    def fits(self, kind: str, *, depthwise: bool) -> bool:
        return (self.kinds is None or kind in self.kinds) and self.depthwise in (None, depthwise)


class Energy(Closed):
    """Energy of one multiply-accumulate, by the keys of `rates_gmac_s`; of moving a byte, by the level that it comes
    from; and what the device draws while it only waits."""

    pj_per_mac: dict[str, Figure]
    pj_per_byte: dict[Level, Figure] = Field(min_length=1)
    idle_w: Figure | None = None


class Operator(Closed):
    """A measured operator: this kind, at these shapes, in this format, took so long.

    shape   a key in words, e.g. "2d 16x16x3x3 s1 in 16x32x32"; whoever measures and whoever looks up agree on it
    format  e.g. "fp32", "w8 a8"
    ms      the 10th percentile of n timed runs
    """

    kind: Kind
    shape: str = Field(min_length=1)
    format: str = Field(min_length=1)
    ms: Annotated[float, Field(gt=0)]
    n: int = Field(ge=1)
    source: str = Field(min_length=1)
