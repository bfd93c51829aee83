"""Peak signal-to-noise ratio, from the squared error of the whole data set."""

from __future__ import annotations

import math

from torch import Tensor

from ._metric import Metric
from ._mse import n_numbers, squared_error_rows


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    return squared_error_rows("psnr", outputs, targets)


def psnr(*, data_range: float = 1.0) -> Metric:
    """Make PSNR in dB: 10 log10(data_range² / mean squared error), the mean over all numbers of the split.

    data_range  greatest less least possible value: 1, or 255
    """
    if not data_range > 0:
        raise ValueError(f"data_range must be more than 0, got {data_range:g}")

    def decibels(error: float) -> float:
        return math.inf if error <= 0 else 10.0 * math.log10(data_range**2 / error)

    return Metric(
        name="psnr",
        maximise=True,
        per_sample=_per_sample,
        unit="dB",
        finish=decibels,
        weight=n_numbers,
        divergence="mse",
        masks=True,
    )


PSNR = psnr()
