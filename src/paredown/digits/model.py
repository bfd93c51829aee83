"""Small CNN for 8 x 8 digits, with parts of real ones: batch norm, a residual block, a depthwise convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DigitsNet(nn.Module):
    """Classifier: images (N, 1, 8, 8), as `digits_splits` gives them, to logits (N, 10).

    It has a stem, a residual block at 8 x 8, and a depthwise-separable convolution at 4 x 4. Its seven layers can be
    compressed, and have different sizes and sensitivities.
    """

    def __init__(self, *, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(2 * width)
        self.hidden = nn.Linear(8 * width, 2 * width)
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        relu = functional.relu
        x = relu(self.stem_norm(self.stem(images)))  # (N, width, 8, 8)
        y = relu(self.norm1(self.conv1(x)))
        x = relu(x + self.norm2(self.conv2(y)))
        x = functional.max_pool2d(x, 2)  # (N, width, 4, 4)
        x = relu(self.depthwise_norm(self.depthwise(x)))
        x = relu(self.pointwise_norm(self.pointwise(x)))
        x = functional.max_pool2d(x, 2)  # (N, 2 * width, 2, 2)
        logits: Tensor = self.classifier(relu(self.hidden(torch.flatten(x, 1))))
        return logits


def digits_net() -> DigitsNet:
    """Make the untrained model of the embedded default. This is the factory that `task.toml` names."""
    return DigitsNet()
