"""The three nets of the benchmark with their calibration data: a ResNet, a depthwise net, a transformer encoder."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[3]
for _folder in (ROOT / "benchmarks" / "search", ROOT / "examples" / "cifar10"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from resnet import trained_resnet20  # noqa: E402
from searchbench import sources  # noqa: E402

N_CALIBRATION = 64


class _Block(sources.AttentionBlock):
    """The same with an axis for its one head: PyTorch's ONNX exporter knows attention in four axes only."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        x = self.norm1(x + self.out(functional.scaled_dot_product_attention(q, k, v)[:, 0]))
        y: Tensor = self.norm2(x + self.fc2(functional.gelu(self.fc1(x), approximate="tanh")))
        return y


def _kwt1() -> nn.Module:
    model = sources.kwt1()
    for block in model.blocks:
        block.__class__ = _Block
    return model


MODELS = {
    "resnet20": (trained_resnet20, sources.cifar10),
    "dscnn": (sources.dscnn, sources.spoken_mfcc),
    "kwt1": (_kwt1, sources.spoken_frames),
}


def load(name: str) -> tuple[nn.Module, Tensor]:
    """(the model in eval mode, its calibration inputs)"""
    make, data = MODELS[name]
    return make().eval().requires_grad_(False), data()["calibration"][0][:N_CALIBRATION].contiguous()
