"""Rules that map a treatment of a layer to the kernel that a runtime uses, which is often another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from ._figure import Closed

Kind = Literal[
    "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "embedding", "lstm", "gru", "attention"
]
KINDS: tuple[str, ...] = get_args(Kind)
FLOAT_BITS = 32

Bits = Annotated[int, Field(ge=1, le=32)]
Pattern = Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$", description="N:M, e.g. 2:4")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """A layer and its requested treatment: everything that a rule can look at.

    weight_format  "int" for integer codes on an even grid; else the format's own name ("fp8_e4m3")
    group_size     weights that share a scale along a row; 0: the whole row (or tensor) does
    pattern        "2:4" and the like; None: zeros stand anywhere
    depthwise      a convolution with as many groups as output channels
    rounded_output  False for a layer whose output goes into a sum in FP32
    dynamic        activations are rounded by ranges that are found when the layer runs, one for each token
    channels       (out, in) of one group; None: unknown, which counts as aligned and as narrow
    n_weights      weights of the layer; None: unknown, which counts as small
    """

    kind: str
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    weight_format: str = "int"
    group_size: int = 0
    sparsity: float = 0.0
    pattern: str | None = None
    rank: float = 1.0
    depthwise: bool = False
    rounded_output: bool = True
    dynamic: bool = False
    channels: tuple[int, int] | None = None
    n_weights: int | None = None

    @property
    def sparse(self) -> bool:
        return self.sparsity > 0.0

    @property
    def low_rank(self) -> bool:
        return self.rank < 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The kernel that a runtime uses.

    weight_bits, activation_bits  of the kernel; 32 is FP32
    sparse    whether zeros save work
    low_rank  whether the two factors run as two products (else their product runs as one)
    kernel    the runtime's own name of the kernel
    rate      key of the profile's `rates_gmac_s`
    native    whether the kernel runs the requested treatment. False: a format narrower or sparser than the kernel's
              saves bytes at most
    note      reason, from the rule that decided
    rule      position of that rule in `lowering`
    """

    weight_bits: int
    activation_bits: int
    sparse: bool
    low_rank: bool
    kernel: str
    rate: str
    native: bool
    note: str = ""
    rule: int = 0


def block_of(blocks: tuple[int, ...], group_size: int, columns: int, *, whole: bool) -> int | None:
    """Columns that share a scale in a kernel with these `blocks`: the longest block that no group's end cuts.

    group_size  columns of the weight that share a scale; 0: all of them
    whole       whether the row must be whole blocks; else its last one may be cut short
    Returns None where no block fits.
    """
    by_length = sorted(blocks, reverse=True)
    if group_size == 0 or group_size >= columns:
        found = next((block for block in by_length if columns % block == 0), None)
        if found is None and not whole:  # one group, whose last block is filled up
            return 32 if 32 in blocks else by_length[0]
        return found
    found = next((block for block in by_length if group_size % block == 0), None)
    return None if found is None or (whole and columns % found) else found


class Blocks(Closed):
    """Blocks in which a weight-only kernel shares scales; see `block_of`."""

    columns: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, strict=False)]
    whole: bool = Field(default=False, description="whether a row must be whole blocks")

    def of(self, group_size: int, columns: int) -> int | None:
        return block_of(self.columns, group_size, columns, whole=self.whole)


class Match(Closed):
    """Conditions of a rule: a layer must fit every line that is given. A line that is left out fits all layers."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)] | None = None
    depthwise: bool | None = Field(default=None, description="whether each channel is convolved by itself")
    rounded_output: bool | None = Field(
        default=None, description="false: layers whose output goes into a sum without being quantized first"
    )
    weight_bits: Annotated[tuple[Bits, ...], Field(min_length=1, strict=False)] | None = None
    weight_formats: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="int (codes on an even grid), or a format's own name"
    )
    activation_bits: Annotated[tuple[Bits, ...], Field(min_length=1, strict=False)] | None = None
    dynamic: bool | None = Field(
        default=None,
        description="of a rule about activation_bits: whether their ranges are found when the layer runs (of each "
        "token); a rule that says nothing is about calibrated ones",
    )
    group_sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="weights that share a scale along a row; 0: the whole row does"
    )
    blocks: Blocks | None = Field(
        default=None,
        description="columns that share a scale in the kernel: layers whose groups (or whole rows) such blocks make up",
    )
    sparse: bool | None = Field(default=None, description="whether the layer has zeros (a sparsity above 0)")
    min_sparsity: float | None = Field(default=None, ge=0, lt=1, description="zeros, at least this share")
    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="N:M patterns of the zeros; a layer whose zeros stand anywhere does not fit"
    )
    low_rank: bool | None = Field(default=None, description="whether the layer is factorized (a rank below 1)")
    aligned: int | None = Field(default=None, ge=1, description="channels, out and in, are multiples of this")
    min_channels: int | None = Field(
        default=None,
        ge=1,
        description="channels, out and in, are at least this: for kernels that pay on wide layers alone",
    )
    min_weights: int | None = Field(
        default=None, ge=1, description="weights of the layer, at least: smaller ones lie in a cache, and are no faster"
    )

    def fits(self, asked: Treatment) -> bool:
        return (
            (self.kinds is None or asked.kind in self.kinds)
            and (self.depthwise is None or asked.depthwise == self.depthwise)
            and (self.rounded_output is None or asked.rounded_output == self.rounded_output)
            and (self.weight_bits is None or asked.weight_bits in self.weight_bits)
            and (self.weight_formats is None or asked.weight_format in self.weight_formats)
            and (self.activation_bits is None or self._fits_activation(asked))
            and (self.group_sizes is None or asked.group_size in self.group_sizes)
            and (self.sparse is None or asked.sparse == self.sparse)
            and (self.min_sparsity is None or asked.sparsity >= self.min_sparsity)
            and (self.patterns is None or asked.pattern in self.patterns)
            and (self.low_rank is None or asked.low_rank == self.low_rank)
            and (self.aligned is None or asked.channels is None or not any(c % self.aligned for c in asked.channels))
            and (self.min_channels is None or (asked.channels is not None and min(asked.channels) >= self.min_channels))
            and (self.min_weights is None or (asked.n_weights or 0) >= self.min_weights)
            and (self.blocks is None or self._fits_blocks(asked, self.blocks))
        )

    @staticmethod
    def _fits_blocks(asked: Treatment, blocks: Blocks) -> bool:
        return asked.channels is not None and blocks.of(asked.group_size, asked.channels[1]) is not None

    def _fits_activation(self, asked: Treatment) -> bool:
        if asked.activation_bits == FLOAT_BITS:
            return FLOAT_BITS in (self.activation_bits or ())
        return asked.activation_bits in (self.activation_bits or ()) and asked.dynamic == bool(self.dynamic)


class RunsAs(Closed):
    """Formats in which the runtime runs the layers of a rule."""

    weight_bits: Bits
    activation_bits: Bits
    sparse: bool = Field(
        default=False,
        description="whether zeros save work. With an N:M pattern the rate is that of the sparse kernel, counted in "
        "the multiply-accumulates that are left",
    )
    low_rank: bool = Field(description="whether a factorized layer runs as two products")
    kernel: str = Field(min_length=1, description="the runtime's own name for what runs")
    rate: str = Field(min_length=1, description="key of rates_gmac_s")


class Rule(Closed):
    """One line of the lowering. The first rule that fits decides."""

    when: Match = Match()
    runs_as: RunsAs
    note: str = ""


def apply_rule(rule: Rule, asked: Treatment, *, index: int = 0) -> Lowered:
    to = rule.runs_as
    sparse, low_rank = asked.sparse and to.sparse, asked.low_rank and to.low_rank
    wanted = (asked.weight_bits, asked.activation_bits, asked.sparse, asked.low_rank)
    return Lowered(
        weight_bits=to.weight_bits,
        activation_bits=to.activation_bits,
        sparse=sparse,
        low_rank=low_rank,
        kernel=to.kernel,
        rate=to.rate,
        native=wanted == (to.weight_bits, to.activation_bits, sparse, low_rank),
        note=rule.note,
        rule=index,
    )
