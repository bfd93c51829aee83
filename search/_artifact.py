"""The folder that a user takes home: a manifest, the config, and the files of one runtime. Data only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import InputError, IntegrityError
from ..evaluators import Measurement
from ._ledger import write_atomic

MANIFEST = "manifest.json"
CONFIG = "config.json"
SCHEMA_VERSION = 1

_KEYS = {
    "schema_version", "paredown", "format", "runtime", "main", "model", "point", "config", "task", "base_dir",
    "claims", "files",
    "machine",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact whose files have been checked against their checksums.

    format   "paredown", "onnx", "openvino", "pt2", or another that `export_model` writes
    runtime  the runtime that its claims were measured on
    main     the file that the runtime loads
    model    digest of the original model
    claims   metric name -> measurement, on the report split in a fresh process
    """

    folder: Path
    format: str
    runtime: str
    main: str
    model: str
    point: str
    config: Mapping[str, Any]
    task: Mapping[str, Any]
    base_dir: Path
    claims: Mapping[str, Measurement]
    machine: Mapping[str, Any]

    @property
    def main_path(self) -> Path:
        return self.folder / self.main


def write_manifest(artifact: Artifact, *, version: str) -> None:
    """Write config and manifest beside the files that are already in the folder; every file there gets its checksum."""
    folder = artifact.folder
    write_atomic(folder / CONFIG, json.dumps(artifact.config, indent=2) + "\n")
    files = {
        str(path.relative_to(folder).as_posix()): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "paredown": version,
        "format": artifact.format,
        "runtime": artifact.runtime,
        "main": artifact.main,
        "model": artifact.model,
        "point": artifact.point,
        "config": artifact.config,
        "task": artifact.task,
        "base_dir": str(artifact.base_dir),
        "claims": {name: m.to_dict(samples=False) for name, m in artifact.claims.items()},
        "files": files,
        "machine": artifact.machine,
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_artifact(folder: Path) -> Artifact:
    """Check every file and give what the manifest says.

    Raises `InputError` where there is no artifact, or one of a later version; `IntegrityError` for a file that is
    missing, changed, or lies outside the folder. Runs no code of the artifact's.
    """
    path = folder / MANIFEST if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"no artifact at {folder}: expected a folder with {MANIFEST}, as written by `paredown export`")
    folder = path.parent
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IntegrityError(f"{path} is not JSON ({error}); export the artifact again") from None
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        version = data.get("schema_version") if isinstance(data, dict) else None
        raise InputError(f"{path} has schema version {version!r}; this paredown reads version {SCHEMA_VERSION}")
    if missing := sorted(_KEYS - set(data)):
        raise IntegrityError(f"{path} has no {missing[0]!r}; export the artifact again")
    if unknown := sorted(set(data) - _KEYS):
        raise InputError(f"{path} has an unknown key {unknown[0]!r}")
    for name, facts in data["files"].items():
        _check_file(folder, name, facts)
    if data["main"] not in data["files"]:
        raise IntegrityError(f"{path} names {data['main']!r} as its main file, which is not among its files")
    return Artifact(
        folder=folder,
        claims={name: Measurement.from_dict(m) for name, m in data["claims"].items()},
        base_dir=Path(data["base_dir"]),
        **{key: data[key] for key in ("format", "runtime", "main", "model", "point", "config", "task", "machine")},
    )


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused if that would leave the folder."""
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if flavour.is_absolute() or ".." in flavour.parts or flavour.drive:
            raise IntegrityError(f"{name!r} leads out of {folder}; an artifact's files must lie inside it")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(f"{name!r} leads out of {folder} through a link; an artifact's files must lie inside it")
    return path


def _check_file(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    path = inside(folder, name)
    if not path.is_file():
        raise IntegrityError(f"{path} is missing; the manifest lists it. Export the artifact again")
    if path.stat().st_size != facts["bytes"]:
        raise IntegrityError(
            f"{path} has {path.stat().st_size} bytes, the manifest says {facts['bytes']}; export it again"
        )
    if sha256(path) != facts["sha256"]:
        raise IntegrityError(
            f"{path} does not match its checksum: it was changed or damaged after export. Export it again"
        )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
