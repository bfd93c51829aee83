"""What calibration knows of a layer, where some of the layer's rows and columns are gone.

The moments are those of the whole model's inputs without the positions that are cut, the gradients those of the whole
model's loss: what is upstream has changed by then, which neither sees. A trial and an export take the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

import torch

from ..anatomy import LayerInfo
from ..calibration import LayerGradients, LayerMoments

Axes = Mapping[int, tuple[int, ...]]
"""Axis of the weight -> positions kept."""


def moments_left(moments: LayerMoments, layer: LayerInfo, axes: Axes) -> LayerMoments:
    """Of the whole `layer`'s inputs, (groups, n, n), those that the kept columns meet; of a depthwise convolution, of
    which rows are its groups, those of the kept rows."""
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
    """Of the kept rows and columns of the whole `layer`'s weight."""
    both = gradients.both.reshape(2, *layer.weight_shape)
    for axis, kept in axes.items():
        both = both.index_select(axis + 1, torch.tensor(kept))
    both = both.reshape(2, both.shape[1], -1).contiguous()
    return LayerGradients(both=both, digest=_digest(gradients.digest, axes))


def _digest(whole: str, axes: Axes) -> str:
    return hashlib.sha256(f"{whole} {sorted(axes.items())}".encode()).hexdigest()
