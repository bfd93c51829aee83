"""PyTorch's module classes by the kind of layer they are to a compressor. Imports torch, so the folder loads it on
demand.
"""

from __future__ import annotations

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
