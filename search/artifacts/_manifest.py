"""The artifact on disk: a folder with a manifest, the config and the files of one runtime. It holds data only.

`docs/artifact.md` describes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ...errors import InputError, IntegrityError
from ...evaluators import Measurement
from ...evaluators.runtimes import options_dict, unnamed_options
from ..run import write_atomic
from ._digests import DIGESTS, check_digests, digests_of

if TYPE_CHECKING:
    from torch import nn

MANIFEST = "manifest.json"
CONFIG = "config.json"
SCHEMA_VERSION = 5
_LARGEST_MANIFEST = 64_000_000

_KEYS: dict[str, type] = {
    "schema_version": int, "paredown": str, "format": str, "runtime": str, "main": str, "model": str, "point": str,
    "config": dict, "task": dict, "data": dict, "claims": dict, "agreement": str, "storage": dict, "files": dict,
    "machine": dict,
}  # fmt: skip
_SINCE_2: dict[str, Any] = {"data": {}, "agreement": "", "storage": {"entropy": False}}
"""Keys that schema 1 did not have, and their values for such a manifest."""
_SINCE_4 = DIGESTS
"""Key that the schemas before 4 do not have."""
_SINCE_5 = "runtime_options"
"""Key that the schemas before 5 do not have. Their files name no options, see `unnamed_options`."""
_UNTIL_2 = "base_dir"
"""Key of the schemas 1 and 2 that is not read: the task's folder on the machine that wrote the artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact whose files have been checked against their checksums.

    format     "paredown", "onnx", "openvino", "pt2", or another that `export_model` writes
    runtime    name of the runtime that measured its claims
    main       name of the file that the runtime loads
    model      digest of the original model
    point      id of the trial, or "config"
    task       the task that it was made from; its relative paths start at that task's folder, wherever that is
    data       split -> {"sha256", "n"} of the samples for calibration, search and report; empty where not known
    claims     metric name -> measurement, on the report split in a fresh process
    agreement  clause on the parity with PyTorch; "" where the outputs were not compared
    runtime_options  every option of the runtime's sessions, by name; the main file holds them too. Empty where the
               runtime has none
    storage    {"entropy": True where the stored model's streams are entropy-coded}
    protected  True where digests cover all that the manifest says; False for one of a schema before 4
    """

    folder: Path
    format: str
    runtime: str
    main: str
    model: str
    point: str
    config: Mapping[str, Any]
    task: Mapping[str, Any]
    claims: Mapping[str, Measurement]
    machine: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    agreement: str = ""
    storage: Mapping[str, Any] = field(default_factory=lambda: dict(_SINCE_2["storage"]))
    runtime_options: Mapping[str, Any] = field(default_factory=dict)
    protected: bool = True

    @property
    def main_path(self) -> Path:
        """The main file."""
        return self.folder / self.main


def load(path: Path | str, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """Load the compressed model as a plain module in eval mode.

    Its parameters are the effective weights. Layers whose input is quantized have a forward pre-hook for it. Channels,
    heads, experts and blocks that the search removed are removed from it (`structure.json`).

    path           an artifact's folder (or its manifest), or a `model.safetensors`, with its `structure.json` beside it
    model_factory  makes the original architecture; its weights are overwritten

    Runs no code but the factory. Raises `InputError` where there is no artifact, or its format is no module;
    `IntegrityError` where it is damaged; `ConfigError` where it belongs to another model.
    """
    import torch

    from ...evaluators.runtimes import load_stored

    path = Path(path)
    main = path
    if path.suffix != ".safetensors":
        artifact = read_artifact(path)
        if artifact.format != "paredown":
            raise InputError(
                f"{path} is of the format {artifact.format!r}, which is no module of PyTorch; the runtime "
                f"{artifact.runtime!r} runs it: paredown.evaluators.runtimes.get_runtime({artifact.runtime!r})"
                f".load({artifact.main!r}, threads=1)"
            )
        main = artifact.main_path
    model = model_factory()
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model_factory must return a torch.nn.Module, got {type(model).__name__}")
    load_stored(main, model.eval())
    return model


def write_manifest(artifact: Artifact, *, version: str) -> None:
    """Write config and manifest beside the files in the folder.

    The manifest has the length and checksum of each file, and a digest of each of its own parts.
    """
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
        "data": artifact.data,
        "claims": {name: m.to_dict(samples=False) for name, m in artifact.claims.items()},
        "agreement": artifact.agreement,
        "storage": artifact.storage,
        "runtime_options": artifact.runtime_options,
        "files": files,
        "machine": artifact.machine,
    }
    as_read = json.loads(json.dumps(manifest))
    write_atomic(folder / MANIFEST, json.dumps({**as_read, DIGESTS: digests_of(as_read)}, indent=2) + "\n")


def read_artifact(folder: Path) -> Artifact:
    """Check every file of an artifact and every part of its manifest, and give what the manifest says.

    Raises `InputError` where there is no artifact, or a later version wrote it; `IntegrityError` for a file that is
    missing, changed, or outside the folder, and for an edited part of the manifest. Runs no code of the artifact's.
    """
    path = folder / MANIFEST if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"no artifact at {folder}: expected a folder with {MANIFEST}, as written by `paredown export`")
    folder = path.parent
    data = _parsed(path)
    for name, facts in data["files"].items():
        _check_file(folder, name, facts)
    if data["main"] not in data["files"]:
        raise IntegrityError(f"{path} names {data['main']!r} as its main file, which is not among its files")
    try:
        claims = {name: Measurement.from_dict(m) for name, m in data["claims"].items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{path} holds a claim that is no measurement: {error}; export the artifact again"
        ) from None
    if data[DIGESTS]:
        check_digests(path, data)
    given = ("format", "runtime", "main", "model", "point", "config", "task", "machine", "data", "agreement", "storage")
    options = data[_SINCE_5] if _SINCE_5 in data else options_dict(unnamed_options(data["runtime"]))
    return Artifact(
        folder=folder, claims=claims, protected=bool(data[DIGESTS]), runtime_options=options,
        **{key: data[key] for key in given},
    )  # fmt: skip


def _parsed(path: Path) -> dict[str, Any]:
    """Read a manifest and check its keys and their types; an older schema is brought to the present one."""
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise IntegrityError(f"{path} has {path.stat().st_size} bytes; a manifest of paredown has a few thousand")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON ({error}); export the artifact again") from None
    version: Any = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, bool) or version not in range(1, SCHEMA_VERSION + 1):
        raise InputError(
            f"{path} has schema version {version!r}; this paredown reads versions 1 to {SCHEMA_VERSION}. An artifact "
            f"of a later version needs a later paredown"
        )
    if version == 1:
        data = {**_SINCE_2, **data}
    if version < 3:
        data.pop(_UNTIL_2, None)
    known = _KEYS if version < 4 else {**_KEYS, _SINCE_4: dict}
    if version >= 5:
        known = {**known, _SINCE_5: dict}
    if missing := sorted(set(known) - set(data)):
        raise IntegrityError(f"{path} has no {missing[0]!r}; export the artifact again")
    if unknown := sorted(set(data) - set(known)):
        raise InputError(f"{path} has an unknown key {unknown[0]!r}")
    for key, kind in known.items():
        if not isinstance(data[key], kind):
            raise IntegrityError(f"{path}: {key} must be a {kind.__name__}, got {data[key]!r:.60}")
    for split, facts in data["data"].items():
        if not isinstance(facts, dict):
            raise IntegrityError(f"{path}: data.{split} must say sha256 and n of the samples, got {facts!r:.60}")
    if version >= 4 and not data[DIGESTS]:
        raise IntegrityError(f"{path}: {DIGESTS} are empty; export the artifact again")
    return {DIGESTS: {}, **data}


def inside(folder: Path, name: str) -> Path:
    """`folder / name`. Raises `IntegrityError` if that leaves the folder, by a link too."""
    if "\0" in name:
        raise IntegrityError(f"{name!r} is no name of a file")
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if flavour.is_absolute() or ".." in flavour.parts or flavour.drive:
            raise IntegrityError(f"{name!r} leads out of {folder}; an artifact's files must lie inside it")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(f"{name!r} leads out of {folder} through a link; an artifact's files must lie inside it")
    return path


def _check_file(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    path = inside(folder, name)
    if not isinstance(facts, Mapping) or not {"bytes", "sha256"} <= set(facts):
        raise IntegrityError(f"the manifest of {folder} must say bytes and sha256 of {name!r}, got {facts!r:.60}")
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
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
