"""The embedded default: its splits, its weights, and the script that made them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from paredown.digits import TASK_PATH, WEIGHTS_PATH
from paredown.digits.data import digits_splits, digits_training
from paredown.digits.model import digits_net


def test_no_image_is_in_two_splits_and_none_is_trained_on_and_reported() -> None:
    from sklearn.datasets import load_digits

    splits = digits_splits()
    training = keys(digits_training()[0])
    calibration, search, report = (keys(splits[name][0]) for name in ("calibration", "search", "report"))
    assert (len(calibration), len(search), len(report), len(training)) == (128, 300, 600, 897)
    assert not search & report
    assert not (search | report) & training
    assert calibration <= training
    assert len(training | search | report) == len(load_digits().images)


def test_the_splits_are_stratified_and_scaled() -> None:
    for images, labels in digits_splits().values():
        counts = labels.bincount(minlength=10)
        assert counts.max() - counts.min() <= 3
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 8, 8)
        assert (images.min(), images.max()) == (-1, 1)


def test_the_stored_weights_reach_the_floor_on_the_report_split() -> None:
    model = digits_net().eval()
    model.load_state_dict(load_file(WEIGHTS_PATH))
    images, labels = digits_splits()["report"]
    with torch.no_grad():
        accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
    assert accuracy >= 0.985


def test_an_untrained_network_does_not_reach_the_floor() -> None:
    torch.manual_seed(0)
    images, labels = digits_splits()["report"]
    with torch.no_grad():
        assert (digits_net().eval()(images).argmax(dim=1) == labels).double().mean() < 0.5


def test_training_is_reproducible_in_another_process(repository: Path, tmp_path: Path) -> None:
    """One epoch, twice, with other numbers of threads and other hash seeds: the same bytes."""
    script = repository / "examples" / "digits" / "train.py"
    code = (
        "import runpy, sys, torch; from safetensors.torch import save_file; torch.set_num_threads(1);"
        "train = runpy.run_path(sys.argv[1])['train'];"
        "save_file(train(seed=3, epochs=1).state_dict(), sys.argv[2])"
    )
    written = []
    for n in ("1", "2"):
        environment = {"PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": n, "PYTHONHASHSEED": n}
        out = tmp_path / f"{n}.safetensors"
        subprocess.run([sys.executable, "-c", code, script, out], env=environment, check=True, timeout=120)
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_a_network_below_the_floor_is_not_written(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import runpy

    n_threads = torch.get_num_threads()
    try:
        script = runpy.run_path(str(repository / "examples" / "digits" / "train.py"))
        monkeypatch.setitem(script["main"].__globals__, "train", lambda seed: digits_net().eval())
        assert script["main"](["--out", str(tmp_path / "bad.safetensors")]) == 1
    finally:
        torch.set_num_threads(n_threads)
    assert "expected at least 98.5%" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_task_lies_beside_its_weights() -> None:
    assert TASK_PATH.is_file()
    assert WEIGHTS_PATH.parent == TASK_PATH.parent


def keys(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}
