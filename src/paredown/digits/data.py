"""Splits of scikit-learn's 1,797 handwritten digits.

| split | images | used for |
|---|---|---|
| training | 897 | `examples/digits/train.py` |
| calibration | 128 of the training images | ranges of activations |
| search (validation) | 300 | choosing |
| report (test) | 600 | the figures that are printed, never a choice |

The splits are fixed. The stored weights were trained on these training images, so any other split would leak them.
Digits: Alpaydin and Kaynak (1998), UCI Machine Learning Repository, CC BY 4.0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

N_REPORT = 600
N_SEARCH = 300
N_CALIBRATION = 128
_SPLIT_SEED = 20260

Labelled = tuple[Tensor, Tensor]
"""Images float32 (N, 1, 8, 8) in [-1, 1], labels int64 (N,)."""


def digits_splits() -> dict[str, Labelled]:
    """Make the three disjoint splits by name. This is the data factory of the embedded task."""
    images, labels = _load()
    order = _order(labels)
    calibration = order[N_REPORT + N_SEARCH :][:N_CALIBRATION]
    parts = {"calibration": calibration, "search": order[N_REPORT:][:N_SEARCH], "report": order[:N_REPORT]}
    return {name: (images[index], labels[index]) for name, index in parts.items()}


def digits_training() -> Labelled:
    """Make the training images: all that are in neither search nor report. The first 128 are also calibration."""
    images, labels = _load()
    index = _order(labels)[N_REPORT + N_SEARCH :]
    return images[index], labels[index]


def _load() -> Labelled:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # (1797, 64) in 0..16, (1797,)
    images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8).astype(np.float32) / 8 - 1)
    return images, torch.from_numpy(labels.astype(np.int64))


def _order(labels: Tensor) -> Tensor:
    """Make a fixed permutation. Every run of images has nearly as many of each class, so any cut is stratified."""
    rng = np.random.default_rng(_SPLIT_SEED)
    shuffled = rng.permutation(len(labels))
    classes = labels.numpy()[shuffled]
    rank_in_class = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        rank_in_class[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return torch.from_numpy(shuffled[np.argsort(rank_in_class, kind="stable")])
