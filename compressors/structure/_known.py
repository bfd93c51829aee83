"""Calibration statistics of a layer that has lost some of its rows and columns.

Moments are those of the whole model's inputs without the cut positions; gradients are those of the whole model's loss.
The layers before have changed by then, which neither reflects. A trial and an export use the same values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

import torch

from ..anatomy import LayerInfo
from ..calibration import LayerGradients, LayerMoments

Axes = Mapping[int, tuple[int, ...]]
"""Kept positions: axis of the weight -> positions."""


def moments_left(moments: LayerMoments, layer: LayerInfo, axes: Axes) -> LayerMoments:
    """Select from the second moments (groups, n, n) of the whole `layer`'s inputs those that the kept columns meet.

    In a depthwise convolution rows are groups: there the moments of the kept rows are selected.
    """
    second = moments.second
    rows, kernel = layer.weight_shape[0], prod(layer.weight_shape[2:])
    if 0 in axes and layer.groups > 1 and layer.weight_shape[1] == 1:
        for_each = rows // layer.groups
        second = second.index_select(0, torch.tensor(sorted({row // for_each for row in axes[0]})))
    if 1 in axes:
        columns = torch.tensor([column * kernel + k for column in axes[1] for k in range(kernel)])
        second = second.index_select(1, columns).index_select(2, columns)
    return LayerMoments(second=second.contiguous(), digest=_digest(moments.digest, axes))


def gradients_left(gradients: LayerGradients, layer: LayerInfo, axes: Axes) -> LayerGradients:
    """Select the gradients of the kept rows and columns of the whole `layer`'s weight."""
    both = gradients.both.reshape(2, *layer.weight_shape)
    for axis, kept in axes.items():
        both = both.index_select(axis + 1, torch.tensor(kept))
    both = both.reshape(2, both.shape[1], -1).contiguous()
    return LayerGradients(both=both, digest=_digest(gradients.digest, axes))


def _digest(whole: str, axes: Axes) -> str:
    return hashlib.sha256(f"{whole} {sorted(axes.items())}".encode()).hexdigest()
