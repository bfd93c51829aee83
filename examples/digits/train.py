"""Train the CNN of the embedded default, and write its weights. This takes under a minute on two cores.

    python examples/digits/train.py [--out FILE] [--seed N]

Only the training images are used. The last epoch is kept, and nothing is chosen on the search or the report split. The
report split is evaluated once, at the end. Training has one thread, so the same seed gives the same file whatever the
number of cores is. Another processor or another torch may round differently.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from paredown.digits import WEIGHTS_PATH
from paredown.digits.data import Labelled, digits_splits, digits_training
from paredown.digits.model import DigitsNet, digits_net

EPOCHS = 60
BATCH_SIZE = 64
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
FLOOR = 0.985
"""Least accuracy on the report split; below it no file is written."""


def train(*, seed: int = 0, epochs: int = EPOCHS) -> DigitsNet:
    """Train a network, and return it in eval mode. Of global settings only torch's seed is set, and then restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(digits_net(), digits_training(), epochs)


def accuracy(model: DigitsNet, split: Labelled) -> float:
    images, labels = split
    with torch.no_grad():
        return int((model(images).argmax(dim=1) == labels).sum()) / len(labels)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="train the embedded default's CNN")
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.perf_counter()
    model = train(seed=options.seed)
    reached = accuracy(model, digits_splits()["report"])
    print(f"report accuracy {reached:.2%} after {time.perf_counter() - started:.0f} s")
    if reached < FLOOR:
        print(
            f"expected at least {FLOOR:.1%}, got {reached:.2%} on the report split; nothing is written. "
            "Try another --seed",
            file=sys.stderr,
        )
        return 1
    save_file(model.state_dict(), options.out)
    print(f"wrote {options.out} ({options.out.stat().st_size} bytes)")
    return 0


def _train(model: DigitsNet, training: Labelled, epochs: int) -> DigitsNet:
    images, labels = training
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    n_batches = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * n_batches)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for batch in order[: n_batches * BATCH_SIZE].split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(_jitter(images[batch]))
            functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _jitter(images: Tensor) -> Tensor:
    """Turn, shear, scale and shift each image a little, by about a pixel at most: (N, 1, 8, 8) to the same shape."""
    n = len(images)
    affine = torch.eye(2, 3).repeat(n, 1, 1)
    affine[:, :, :2] += 0.12 * torch.randn(n, 2, 2)
    affine[:, :, 2] += 0.25 * (2 * torch.rand(n, 2) - 1)  # in half widths: 0.25 is one pixel
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is background, which is -1
    return moved + 0.05 * torch.randn_like(moved)


if __name__ == "__main__":
    sys.exit(main())
