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


def _other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"str": "other", "dict": {"other": 1}, "list": ["other"], "NoneType": 0.5}[type(value).__name__]


CLAIM_KEYS = tuple(Measurement(value=0.5).to_dict(samples=False))
PARTS = (
    "paredown", "format", "runtime", "model", "point", "config", "task", "data", "agreement", "storage", "machine",
    "runtime_options",
)  # fmt: skip


@pytest.mark.parametrize("key", CLAIM_KEYS)
def test_every_key_of_a_claim_is_covered(folder: Path, key: str) -> None:
    """Some edits are no measurement any more, and are refused for that."""
    assert {"value", "low", "high", "unit", "source", "split", "n"} <= set(CLAIM_KEYS)
    _edit(lambda d: d["claims"]["accuracy"].update({key: _other(d["claims"]["accuracy"].get(key))}))(folder)
    with pytest.raises(IntegrityError, match=r"claims\.accuracy does not match its digest|is no measurement"):
        read_artifact(folder)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_covered_and_named(folder: Path, part: str) -> None:
    _edit(lambda d: d.update({part: _other(d[part])}))(folder)
    with pytest.raises(IntegrityError, match=rf"{part} does not match its digest, so it was changed|data\.other must"):
        read_artifact(folder)


def test_the_parts_above_are_all_that_a_manifest_has(folder: Path) -> None:
    structural = {"schema_version", "main", "files", "claims", "digests"}  # an edit of them is refused for what it is
    assert set(json.loads((folder / "manifest.json").read_text())) == {*PARTS, *structural}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["claims"]["accuracy"].update(low=0.49), r"claims\.accuracy .*it is now .*\"low\":0\.49"),
        (lambda d: d["claims"].pop("accuracy"), r"claims\.accuracy is missing: it was removed after export"),
        (lambda d: d["claims"].update(f1=d["claims"]["accuracy"]), r"claims\.f1 has no digest: it was added"),
        (lambda d: d["config"]["layers"].update(first={"weight_bits": 2}), "config does not match its digest"),
        (lambda d: d.update(agreement="outputs within 0"), "agreement does not match its digest"),
        (lambda d: d["files"].pop("config.json"), "files does not match its digest"),
        (lambda d: d["digests"].update(config="0" * 64), "config does not match its digest"),
        (lambda d: d.update(digests={}), "digests are empty"),
        (lambda d: d.pop("digests"), "has no 'digests'"),
        (lambda d: (d["claims"].pop("accuracy"), d["digests"].pop("claims.accuracy")), "so parts were removed"),
        (lambda d: d["digests"].pop("manifest"), "so parts were removed"),
    ],
)
def test_edits_by_hand_are_refused_by_name(folder: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    _edit(change)(folder)
    with pytest.raises(IntegrityError, match=says):
        read_artifact(folder)


def test_another_order_and_other_spaces_are_no_edit(folder: Path) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(data.items())), sort_keys=True))
    assert read_artifact(folder).protected


def test_a_manifest_from_before_the_digests_is_read_and_says_so(folder: Path) -> None:
    _edit(lambda d: (d.update(schema_version=3), d.pop("digests"), d.pop("runtime_options")))(folder)
    assert not read_artifact(folder).protected
    _edit(lambda d: d.update(digests={"manifest": ""}))(folder)
    with pytest.raises(InputError, match="unknown key 'digests'"):
        read_artifact(folder)
