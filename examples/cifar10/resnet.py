"""ResNet-20 for 32 x 32 images: He et al. (2016), section 4.2, with shortcuts of kind A. It has 269,722 parameters."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

ASSETS = Path(os.environ.get("PAREDOWN_ASSETS", Path(__file__).resolve().parents[3] / "shared" / "assets"))


def trained_resnet20() -> ResNet20:
    """Make the network with the published weights: 91.7 % on the test images. `task.toml` names this factory."""
    model = ResNet20()
    model.load_state_dict(load_file(ASSETS / "cifar10" / "resnet20.safetensors"))
    return model.eval()


class ResNet20(nn.Module):
    """Classifier: normalised images (N, 3, 32, 32), see `data.py`, to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32), BasicBlock(32, 32), BasicBlock(32, 32))
        self.layer3 = nn.Sequential(BasicBlock(32, 64), BasicBlock(64, 64), BasicBlock(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut. If the number of channels grows, the image halves."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.n_new = n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Shortcut of kind A: every second pixel. The new channels are zeros, half before the old ones, half after."""
        if self.n_new == 0:
            return x
        half = self.n_new // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.n_new - half))
