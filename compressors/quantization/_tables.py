"""Fixed tables of the formats with unequal steps: NF4, powers of two, additive powers of two, FP8.

A table is a sorted float32 vector whose largest magnitude is 1; a weight is `scale * table[index]`. Zero is in every
table, so that a dropped weight stays dropped.

nf4        quantiles of the normal distribution (Dettmers et al. 2023, "QLoRA", appendix E; the published constants)
pow2       0 and ±2^-k: a product is a shift (Zhou et al. 2017, "INQ"). One code of 2^b is not used
log        0 and ±2^(-k/2): the same, twice as fine and half as far down (Miyashita et al. 2016)
apot       0 and ± sums of two powers of two (Li et al. 2020, "Additive Powers-of-Two Quantization"); at 3 bits it is
           pow2, for two bits of magnitude are one term
fp8_*      the finite numbers of E4M3 and E5M2 (Micikevicius et al. 2022), divided by the largest
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

_TERMS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((1, 2, 3),),
    3: ((1, 2, 4), (3,)),
    4: ((1, 3, 5), (2, 4, 6)),
}
"""Bits of magnitude -> exponents of each term; a term may also be 0."""


@cache
def fixed_table(format: str, bits: int) -> Tensor:
    """Table (at most 2^bits,) float32, sorted; read-only."""
    if format == "nf4":
        return torch.tensor(_NF4)
    if format in ("pow2", "log"):
        step = 1.0 if format == "pow2" else 0.5
        return _mirrored([2.0 ** (-k * step) for k in range(2 ** (bits - 1) - 1)])
    if format == "apot":
        sums = {0.0}
        for term in _TERMS[bits - 1]:
            sums = {a + b for a in sums for b in (0.0, *(2.0**-k for k in term))}
        return _mirrored([value / max(sums) for value in sums if value > 0.0])
    return _fp8(torch.float8_e4m3fn if format == "fp8_e4m3" else torch.float8_e5m2)


def _mirrored(magnitudes: list[float]) -> Tensor:
    return torch.tensor(sorted([0.0, *magnitudes, *(-m for m in magnitudes)]), dtype=torch.float64).float()


def _fp8(dtype: torch.dtype) -> Tensor:
    values = torch.arange(256, dtype=torch.uint8).view(dtype).to(torch.float64)
    finite = torch.unique(values[torch.isfinite(values)] + 0.0)  # sorted; the two zeros are one, the positive
    table: Tensor = (finite / finite[-1]).float()
    return table
