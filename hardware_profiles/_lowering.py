"""What a runtime makes of a layer: seldom what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["linear", "conv1d", "conv2d", "embedding"]
KINDS: tuple[str, ...] = get_args(Kind)
FLOAT_BITS = 32

Bits = Annotated[int, Field(ge=1, le=32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What really runs.

    weight_bits, activation_bits  of the kernel; 32 is FP32
    sparse    whether zeros save work
    low_rank  whether the two factors run as two products (else their product runs as one)
    kernel    what runs, by the runtime's own name for it
    rate      key of the profile's `rates_gmac_s`
    native    whether this is what was asked for. False: a format narrower or sparser than what runs saves bytes at most
    """

    weight_bits: int
    activation_bits: int
    sparse: bool
    low_rank: bool
    kernel: str
    rate: str
    native: bool


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Match(_Closed):
    """Which layers a rule is about: those that fit every line that is given. A line that is left out fits all."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)] | None = None
    weight_bits: Annotated[tuple[Bits, ...], Field(min_length=1, strict=False)] | None = None
    activation_bits: Annotated[tuple[Bits, ...], Field(min_length=1, strict=False)] | None = None
    sparse: bool | None = Field(default=None, description="whether the layer has zeros (a sparsity above 0)")
    low_rank: bool | None = Field(default=None, description="whether the layer is factorized (a rank below 1)")

    def fits(self, kind: str, weight_bits: int, activation_bits: int, sparse: bool, low_rank: bool) -> bool:
        return (
            (self.kinds is None or kind in self.kinds)
            and (self.weight_bits is None or weight_bits in self.weight_bits)
            and (self.activation_bits is None or activation_bits in self.activation_bits)
            and (self.sparse is None or sparse == self.sparse)
            and (self.low_rank is None or low_rank == self.low_rank)
        )


class RunsAs(_Closed):
    """How the runtime runs them."""

    weight_bits: Bits
    activation_bits: Bits
    sparse: bool = Field(default=False, description="whether zeros save work")
    low_rank: bool = Field(description="whether a factorized layer runs as two products")
    kernel: str = Field(min_length=1, description="the runtime's own name for what runs")
    rate: str = Field(min_length=1, description="key of rates_gmac_s")


class Rule(_Closed):
    """One line of the lowering. The first rule that fits decides."""

    when: Match = Match()
    runs_as: RunsAs
    note: str = ""


def apply_rule(rule: Rule, *, weight_bits: int, activation_bits: int, sparse: bool, low_rank: bool) -> Lowered:
    to = rule.runs_as
    is_sparse, is_low_rank = sparse and to.sparse, low_rank and to.low_rank
    asked = (weight_bits, activation_bits, sparse, low_rank)
    return Lowered(
        weight_bits=to.weight_bits,
        activation_bits=to.activation_bits,
        sparse=is_sparse,
        low_rank=is_low_rank,
        kernel=to.kernel,
        rate=to.rate,
        native=asked == (to.weight_bits, to.activation_bits, is_sparse, is_low_rank),
    )
