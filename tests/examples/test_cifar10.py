"""ResNet-20 and CIFAR-10, as a user's task loads them: by file, in a folder that is no package."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def resnet(repository: Path, assets: Path) -> Any:
    return load(repository / "examples" / "cifar10" / "resnet.py", assets)


@pytest.fixture(scope="module")
def splits(repository: Path, assets: Path) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, tuple[Tensor, Tensor]] = load(repository / "examples" / "cifar10" / "data.py", assets)[
        "cifar10_splits"
    ]()
    return found


def test_the_published_weights_load_by_key(resnet: Any) -> None:
    model = resnet["trained_resnet20"]()
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722
    assert not model.training


def test_the_network_is_as_right_as_published(resnet: Any, splits: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Both halves of the 5,000 test images together: 91.48 % measured elsewhere on these weights and images."""
    model = resnet["trained_resnet20"]()
    right = 0
    with torch.no_grad():
        for name in ("search", "report"):
            images, labels = splits[name]
            for some, expected in zip(images.split(250), labels.split(250), strict=True):
                right += int((model(some).argmax(dim=1) == expected).sum())
    assert right / 5000 == pytest.approx(0.9148, abs=0.0004)  # two images near a tie may fall either way


def test_the_splits_share_no_image(splits: dict[str, tuple[Tensor, Tensor]]) -> None:
    images = {name: {image.numpy().tobytes() for image in pair[0]} for name, pair in splits.items()}
    assert {name: len(found) for name, found in images.items()} == {"calibration": 256, "search": 2500, "report": 2500}
    assert len(set.union(*images.values())) == 256 + 5000


def test_the_seed_decides_the_halves(repository: Path, assets: Path, splits: dict[str, tuple[Tensor, Tensor]]) -> None:
    factory = load(repository / "examples" / "cifar10" / "data.py", assets)["cifar10_splits"]
    assert torch.equal(factory()["report"][1], splits["report"][1])
    assert not torch.equal(factory(seed=1)["report"][1], splits["report"][1])


def load(path: Path, assets: Path) -> dict[str, Any]:
    """The names of an example's file; the folder of the assets is read when the file is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_ASSETS", str(assets))
        return runpy.run_path(str(path))
