"""An artifact is believed only as far as its checksums go, and never leads out of its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import InputError, IntegrityError
from paredown.evaluators import Measurement
from paredown.search.artifacts import Artifact, inside, read_artifact, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "artifact"
    out.mkdir()
    (out / "model.bin").write_bytes(b"weights")
    write_manifest(
        Artifact(
            folder=out, format="paredown", runtime="torch", main="model.bin", model="d" * 64, point="t3",
            config={"schema_version": 1, "layers": {}}, task={},
            claims={"accuracy": Measurement(value=0.5, low=0.4, high=0.6, split="report", n=10)}, machine={"cores": 2},
        ),
        version="0.1.0",
    )  # fmt: skip
    return out


def test_round_trip(folder: Path) -> None:
    artifact = read_artifact(folder)
    assert artifact.main_path.read_bytes() == b"weights"
    assert artifact.claims["accuracy"].value == 0.5
    assert read_artifact(folder / "manifest.json") == artifact


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (
            lambda f: (f / "model.bin").write_bytes(b"weighty"),
            IntegrityError,
            r"model\.bin does not match its checksum",
        ),
        (
            lambda f: (f / "model.bin").write_bytes(b"weigh"),
            IntegrityError,
            r"model\.bin has 5 bytes, the manifest says 7",
        ),
        (lambda f: (f / "model.bin").unlink(), IntegrityError, r"model\.bin is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), IntegrityError, "is not JSON"),
        (lambda f: (f / "manifest.json").unlink(), InputError, "no artifact at"),
        (lambda f: shutil.rmtree(f), InputError, "no artifact at"),
        (_edit(lambda d: d.update(schema_version=99)), InputError, "schema version 99"),
        (_edit(lambda d: d.pop("claims")), IntegrityError, "has no 'claims'"),
        (_edit(lambda d: d.update(surprise=1)), InputError, "unknown key 'surprise'"),
        (_edit(lambda d: d.update(main="other.bin")), IntegrityError, "names 'other.bin' as its main file"),
        (_edit(lambda d: d["files"].update({"../evil": d["files"]["model.bin"]})), IntegrityError, "leads out of"),
        (_edit(lambda d: d["files"].update({"/etc/passwd": d["files"]["model.bin"]})), IntegrityError, "leads out of"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, damage: Callable[[Path], object], error: type[Exception], says: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=says):
        read_artifact(folder)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(IntegrityError, match="through a link"):
        inside(tmp_path / "in", "link")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x", "..\\x"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="leads out of"):
        inside(tmp_path, name)
