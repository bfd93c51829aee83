"""The ten: real weights pruned and quantized in different ways, and matrices whose zeros have a structure.

Masks of a structure that no sparsity method here makes are laid over the weight before it is quantized; nothing is
quantized by a method that looks at data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paredown.compressors import LayerInfo, LayerSpec, Variant, compress
from paredown.compressors.sparse_formats import made

ASSETS = Path(os.environ.get("PAREDOWN_ASSETS", Path(__file__).parents[4] / "shared" / "assets"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    name: str
    structure: str
    spec: LayerSpec
    weight: Tensor

    @property
    def variant(self) -> Variant:
        shape = tuple(self.weight.shape)
        kind = "conv2d" if len(shape) == 4 else "linear"
        return compress(self.weight, self.spec, LayerInfo(fqn=self.name, kind=kind, weight_shape=shape, groups=1))


def layers() -> list[Layer]:
    """Raises `FileNotFoundError` where the assets are missing."""
    resnet, resnet8 = (_read(f"cifar10/{name}.safetensors") for name in ("resnet20", "resnet8"))
    kwt, stories = _read("keywords/kwt1.safetensors"), _read("tinystories/stories260k.safetensors")
    conv = resnet["layer3.1.conv2.weight"]
    fc1, w1 = kwt["blocks.0.fc1.weight"], stories["layers.0.feed_forward.w1.weight"]
    made_up = {name: torch.from_numpy(made(name, (256, 512), 0.1, seed=3)) for name in ("blocks", "rows", "banded")}
    return [
        _layer("resnet20 layer3.1.conv2", "none", conv, weight_bits=4),
        _layer("resnet20 layer3.2.conv1", "none", resnet["layer3.2.conv1.weight"], weight_bits=8, group_size="tensor"),
        _layer("resnet20 layer3.2.conv2", "90 % zeros", resnet["layer3.2.conv2.weight"], weight_bits=4, sparsity=0.9),
        _layer("resnet8 c32", "70 % zeros, palette", resnet8["c32.weight"], weight_bits=3, sparsity=0.7,
               weight_format="palette"),
        _layer("kwt1 blocks.0.fc1", "2:4", _two_of_four(fc1), weight_bits=4),
        _layer("stories260k w1", "80 % zeros, FP32", w1, sparsity=0.8),
        _layer("resnet20 layer3.1.conv1", "half of the input channels", _without_channels(
            resnet["layer3.1.conv1.weight"]), weight_bits=4),
        _layer("blocks of 4 x 4", "10 % of the blocks", made_up["blocks"], weight_bits=4),
        _layer("rows alike", "51 in each row", made_up["rows"], weight_bits=2, weight_format="pow2"),
        _layer("band", "51 diagonals", made_up["banded"], weight_bits=8),
    ]  # fmt: skip


def _layer(name: str, structure: str, weight: Tensor, **spec: object) -> Layer:
    whole = {"scale_bits": 16, **spec} if "weight_bits" in spec else spec
    return Layer(name=name, structure=structure, spec=LayerSpec.from_dict(whole), weight=weight.float().contiguous())


def _read(name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(ASSETS / name)


def _two_of_four(weight: Tensor) -> Tensor:
    groups = weight.reshape(-1, 4)
    kept = groups.abs().topk(2, dim=1).indices
    return torch.zeros_like(groups).scatter(1, kept, groups.gather(1, kept)).reshape(weight.shape)


def _without_channels(weight: Tensor) -> Tensor:
    """The half of the input channels with the smaller norms is gone."""
    norms = weight.square().sum(dim=(0, 2, 3))
    kept = torch.from_numpy(np.sort(norms.argsort(descending=True).numpy()[: len(norms) // 2]))
    return torch.zeros_like(weight).index_copy(1, kept, weight[:, kept])
