"""Weights on disk: one safetensors file, or the index of several (`model.safetensors.index.json` and its shards).

The tensors are mapped from the files, not copied. Nothing here unpickles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ._message_parts import one_line, some

if TYPE_CHECKING:
    from torch import Tensor

INDEX_SUFFIX = ".index.json"
_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
_FLOATS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""Name in a safetensors header -> name in torch."""
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


@dataclass(frozen=True)
class StoredWeights:
    """Tensors with the name of the file that holds each."""

    source: str
    """Name of the file or of the index."""
    tensors: Mapping[str, Tensor]
    """Key -> tensor, mapped from its file."""
    files: Mapping[str, str]
    """Key -> name of the safetensors file, as the index writes it."""


def read_weights(path: Path, *, key: str) -> StoredWeights:
    """Map a safetensors file, or all shards of an index.

    Raises `TaskError`, beginning with `key`: no such file, a pickle, a damaged file, an index that its shards belie.
    """
    if path.is_dir():
        raise TaskError(
            f"{key} must be a safetensors file or the index of its shards, got the folder {path}; "
            f"{_named_in(path) or 'name the file in it'}"
        )
    if not path.is_file():
        hint = _named_in(path.parent) or "a relative path starts at the task file's folder"
        raise TaskError(f"{key}: there is no file {path}; {hint}")
    if path.name.endswith(".json"):
        shards = _shards_of(path, key=key)
        tensors: dict[str, Tensor] = {}
        for shard in sorted(set(shards.values())):
            tensors |= _map(path.parent / shard, shard, key=key)
        return StoredWeights(path.name, tensors, shards)
    tensors = _map(path, path.name, key=key)
    return StoredWeights(path.name, tensors, dict.fromkeys(tensors, path.name))


def check_folder(folder: Path, *, variant: str | None, key: str) -> frozenset[str]:
    """Check the weights that transformers reads from `folder`; return the keys whose tensors hold integers.

    Raises `TaskError` for a damaged file or a wrong index. A folder without safetensors passes: transformers says what
    it looked for.
    """
    middle = f".{variant}" if variant else ""
    whole, index = folder / f"model{middle}.safetensors", folder / f"model.safetensors.index{middle}.json"
    if whole.is_file():  # transformers takes it before an index
        _keys_in(whole, whole.name, key=key)
        return _integers_in([whole])
    if index.is_file():
        return _integers_in(folder / shard for shard in set(_shards_of(index, key=key).values()))
    return frozenset()


def stored_types(path: Path) -> dict[str, str]:
    """Key -> number type ("bfloat16") of each floating-point tensor of a safetensors file, or of an index's shards.

    Files that cannot be read give nothing: whoever loads them says so.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, str] = {}
    try:
        files = {path}
        if path.name.endswith(".json"):
            weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
            files = {path.parent / shard for shard in weight_map.values()}
        for file in files:
            with safe_open(file, framework="pt") as opened:
                kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
            found |= {name: _FLOATS[kind] for name, kind in kinds.items() if kind in _FLOATS}
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}
    return found


def stored_types_in(folder: Path, *, variant: str | None) -> dict[str, str]:
    """`stored_types` of the weights that transformers reads from `folder`; empty where it has none."""
    middle = f".{variant}" if variant else ""
    whole, index = folder / f"model{middle}.safetensors", folder / f"model.safetensors.index{middle}.json"
    return stored_types(whole if whole.is_file() else index) if whole.is_file() or index.is_file() else {}


def files_instead(folder: Path) -> str:
    """The end of a message about a folder in which transformers found no weights: what lies there, what to do."""
    if files := _named_in(folder):
        return f"{files}: expected model.safetensors or model.safetensors.index.json, or set variant in [model.args]"
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in _PICKLE_SUFFIXES]
    if pickles:
        return (
            f"the folder has {some(pickles)}, and loading a pickle can run code; convert it once, if you trust it: "
            "from_pretrained(folder, use_safetensors=False).save_pretrained(new)"
        )
    return "fetch all files again"


def _integers_in(paths: Iterable[Path]) -> frozenset[str]:
    from safetensors import safe_open

    found = set()
    for path in paths:
        with safe_open(path, framework="pt") as file:
            found |= {name for name in file.keys() if file.get_slice(name).get_dtype() in _INTEGERS}  # noqa: SIM118
    return frozenset(found)


def index_of(path: Path) -> Path | None:
    """The index beside a file that lists it as one of its shards."""
    for index in _indexes(path.parent):
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if path.name in listed:
            return index
    return None


def _shards_of(path: Path, *, key: str) -> dict[str, str]:
    """Key -> shard, as the index has it, after each shard was opened and found to hold the keys listed for it."""
    shards = _read_index(path, key=key)
    for shard in sorted(set(shards.values())):
        _check_shard_name(shard, path, key=key)
    missing = [shard for shard in sorted(set(shards.values())) if not (path.parent / shard).is_file()]
    if missing:
        raise TaskError(
            f"{key}: {path.name} names {some(missing)}, and there is no such file in {path.parent}; copy all shards "
            f"beside the index"
        )
    held = {shard: _keys_in(path.parent / shard, shard, key=key) for shard in sorted(set(shards.values()))}
    _check_claims(path, shards, held, key=key)
    return shards


def _read_index(path: Path, *, key: str) -> dict[str, str]:
    twice: dict[str, list[str]] = {}

    def pairs(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for name, value in items:
            if name in entries and entries[name] != value:
                twice[name] = [str(entries[name]), str(value)]
            entries[name] = value
        return entries

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(
            f"{key}: {path.name} is not JSON: {one_line(error)}; fetch it again, or write the shards again with "
            f"save_pretrained"
        ) from error
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise TaskError(
            f"{key}: {path.name} must be the index of a sharded file, with a 'weight_map' from each key to its shard; "
            f"name the index or the safetensors file"
        )
    for name, places in twice.items():
        raise TaskError(
            f"{key}: {path.name} places {name} in two shards, {places[0]} and {places[1]}; keep the right one"
        )
    return shards


def _check_shard_name(shard: str, index: Path, *, key: str) -> None:
    """A link in the folder may lead elsewhere (the hub's cache is made of them); the name in the index may not."""
    windows = PureWindowsPath(shard)
    if ".." in windows.parts or windows.anchor or PurePosixPath(shard).is_absolute():
        raise TaskError(
            f"{key}: {index.name} names {shard!r}, which leads out of its folder; shards lie beside the index"
        )
    if shard.endswith(_PICKLE_SUFFIXES):
        raise TaskError(
            f"{key}: {index.name} lists pickles ({shard}), and loading one can run code; expected safetensors. Convert "
            f"it once, if you trust it: from_pretrained(folder, use_safetensors=False).save_pretrained(new)"
        )
    if not shard.endswith(".safetensors"):
        raise TaskError(f"{key}: {index.name} names {shard!r}, which is no safetensors file; name the right index")


def _check_claims(path: Path, shards: Mapping[str, str], held: Mapping[str, frozenset[str]], *, key: str) -> None:
    places: dict[str, list[str]] = {}
    for shard, names in held.items():
        for name in names:
            places.setdefault(name, []).append(shard)
    how = "fetch index and shards again from one place, or write them again with save_pretrained"
    for name in sorted(places):
        if len(places[name]) > 1:
            raise TaskError(f"{key}: {name} is in two shards of {path.name}, {' and '.join(places[name])}; {how}")
    lacking = [f"{name} (expected in {shard})" for name, shard in shards.items() if name not in held[shard]]
    if lacking:
        raise TaskError(f"{key}: shards lack what {path.name} says they hold: {some(lacking)}; {how}")
    unlisted = [f"{name} (in {places[name][0]})" for name in sorted(places) if name not in shards]
    if unlisted:
        raise TaskError(f"{key}: {path.name} does not list {some(unlisted)}; {how}")


def _map(path: Path, name: str, *, key: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    _refuse_pickle(path, name, key=key)
    try:
        with safe_open(path, framework="pt") as file:
            return {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, name, error, key=key) from error


def _keys_in(path: Path, name: str, *, key: str) -> frozenset[str]:
    from safetensors import SafetensorError, safe_open

    _refuse_pickle(path, name, key=key)
    try:
        with safe_open(path, framework="pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, name, error, key=key) from error


def _damaged(path: Path, name: str, error: Exception, *, key: str) -> TaskError:
    suffix = f" ({path.suffix} files are usually pickles)" if path.suffix in _PICKLE_SUFFIXES else ""
    return TaskError(
        f"{key}: {name} is not a whole safetensors file{suffix}: {one_line(error)}; fetch it again, or write it again "
        f"with safetensors.torch.save_file"
    )


def _refuse_pickle(path: Path, name: str, *, key: str) -> None:
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(_PICKLE_MAGIC) and head[8:] != b"{":  # the length of a safetensors header may look like one
        raise TaskError(
            f"{key}: {name} is a pickle (a PyTorch checkpoint), and loading one can run code; expected safetensors. "
            "Convert it once, if you "
            "trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )


def _named_in(folder: Path) -> str:
    """The files of a folder that could be meant, as the end of a message; an index stands for its shards."""
    if not folder.is_dir():
        return ""
    indexes = [index.name for index in _indexes(folder)]
    files = [file.name for file in sorted(folder.glob("*.safetensors"))]
    return _list_of(indexes + ([file for file in files if not _SHARD.search(file)] if indexes else files))


def _list_of(names: Sequence[str]) -> str:
    return f"the folder has {some(names)}" if names else ""


def _indexes(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob(f"*{INDEX_SUFFIX}"))
