"""Three splits of CIFAR-10 that share no image.

| split | images | from |
|---|---|---|
| calibration | 256 | the training images; the network is 99.85 % right on them, so they measure nothing |
| search (validation) | 2,500 | one half of the first 5,000 test images |
| report (test) | 2,500 | the other half |

Images: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ASSETS = Path(os.environ.get("PAREDOWN_ASSETS", Path(__file__).resolve().parents[3] / "shared" / "assets"))
MEAN = (0.485, 0.456, 0.406)  # what the published weights were trained with
STD = (0.229, 0.224, 0.225)

Labelled = tuple[Tensor, Tensor]
"""Normalised images float32 (N, 3, 32, 32), labels int64 (N,)."""


def cifar10_splits(*, n_calibration: int = 256, seed: int = 0) -> dict[str, Labelled]:
    """Make the splits by name; `task.toml` names this factory. `seed` decides which test images are in which half."""
    training = _load("train_first10000.npz", np.arange(n_calibration))
    order = np.random.default_rng(seed).permutation(5000)
    return {
        "calibration": training,
        "search": _load("test_first5000.npz", order[:2500]),
        "report": _load("test_first5000.npz", order[2500:]),
    }


def _load(name: str, index: np.ndarray) -> Labelled:
    with np.load(ASSETS / "cifar10" / name, allow_pickle=False) as archive:
        pixels, labels = archive["x"][index], archive["y"][index]  # uint8 (N, 32, 32, 3), uint8 (N,)
    images = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
