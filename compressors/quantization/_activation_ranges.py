"""Ranges of activations by the plain rules; that of least squared error, "affine", is in `_activation`.

minmax      everything that was seen (Jacob et al. 2018); the default
percentile  0.01 % of the values are clipped on each side where there are any (McKinstry et al. 2019)
entropy     the clip at which the histogram is nearest to its quantized form (Migacz 2017, TensorRT)
We differ   entropy: one clip for the magnitudes of both signs
Cost        each a pass over the sample of 32768 values; entropy 40 over a histogram
Did not help  entropy at 8 bits on CNNs, where it clips too much as often as it helps
"""

from __future__ import annotations

from torch import Tensor

from ..registry import ACTIVATION
from ._ranges import entropy_clip

_SHARE = 0.9999
_BINS = 2048


def activation_minmax(sample: Tensor, low: float, high: float, bits: int) -> tuple[float, float]:
    return low, high


def activation_percentile(sample: Tensor, low: float, high: float, bits: int) -> tuple[float, float]:
    """Range between two percentiles of the sample; all of it where a side is too small to have a percentile."""
    ordered = sample.sort().values
    n_clipped = int(len(ordered) * (1.0 - _SHARE))
    if n_clipped == 0 or high <= low:
        return low, high
    new_low, new_high = min(0.0, float(ordered[n_clipped])), max(0.0, float(ordered[-1 - n_clipped]))
    return (new_low, new_high) if new_low < new_high else (low, high)


def activation_entropy(sample: Tensor, low: float, high: float, bits: int) -> tuple[float, float]:
    if sample.numel() == 0 or high <= low:
        return low, high
    largest = max(-low, high)
    n_levels = 2**bits if low == 0.0 or high == 0.0 else 2 ** (bits - 1)
    scaled = (sample.abs() / largest).clamp(max=1.0)
    if not bool((scaled > 0).any()):
        return low, high
    clip = float(entropy_clip(scaled[None], n_levels, _BINS)[0]) * largest
    return max(low, -clip), min(high, clip)


ACTIVATION.register("minmax", activation_minmax)
ACTIVATION.register("percentile", activation_percentile)
ACTIVATION.register("entropy", activation_entropy)
