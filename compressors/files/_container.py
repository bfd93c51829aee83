"""A safetensors file with a checksum over all of it, whose length is known before it is written.

The format is that of safetensors (8 bytes: length of the header, little endian; the header, JSON; the tensors, back to
back), so any safetensors library reads it. Ours on top:

- numbers in the header are padded with blanks to a fixed width, so that the header's length depends on names and
  metadata alone, and bytes can be added up;
- `__metadata__["sha256"]` is the digest of the header (with 64 zeros in the digest's place) and the tensors: a flipped
  byte anywhere is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, IntegrityError
from ._digest import tensor_bytes

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
_NO_DIGEST = "0" * 64
_MAX_HEADER = 100_000_000  # as in safetensors itself
_DIGEST_PATTERN = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def header_bytes(metadata: Mapping[str, str], names: Iterable[str]) -> int:
    """Bytes of the header for one-dimensional uint8 tensors of these names."""
    return len(_render(metadata, [(name, "U8", (0,), 0) for name in names]))


def write_container(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor], *, align: int = 8) -> int:
    """Write the file atomically and return its length in bytes.

    The data goes to a temporary file beside it, then fsync, then a rename. A reader of `path` finds the old file, the
    new one or none. Tensors with the widest numbers come first, at a multiple of `align` bytes, so that each is
    aligned.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        if tensor.dtype not in _DTYPES:
            raise ConfigError(
                f"{name} is {tensor.dtype}, which cannot be stored; known are {', '.join(map(str, _DTYPES))}"
            )
    header = _render(metadata, [(name, _DTYPES[t.dtype], tuple(t.shape), t.nbytes) for name, t in ordered], align)
    digest = hashlib.sha256(header[8:])
    for _, tensor in ordered:
        digest.update(tensor_bytes(tensor))
    header = header.replace(_NO_DIGEST.encode(), digest.hexdigest().encode(), 1)

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(header)
            for _, tensor in ordered:
                file.write(tensor_bytes(tensor))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return len(header) + sum(tensor.nbytes for tensor in tensors.values())


def read_container(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a file that `write_container` wrote and return (metadata, tensors), all checked. The tensors are in memory.

    Raises `IntegrityError`, naming the file, if it is anything else: not safetensors (a pickle, say), truncated, a
    flipped byte, a header that contradicts itself. `ConfigError` if there is no such file.
    """
    content = _read(path)
    start, header = verify_container(path, content)
    metadata = header.pop("__metadata__")
    data = bytearray(content[start:])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = (
            torch.frombuffer(data, dtype=torch.uint8, offset=begin, count=end - begin)
            if end > begin
            else torch.empty(0)
        )
        dtype = _TORCH_DTYPES[entry["dtype"]]
        tensors[name] = flat.to(torch.uint8).clone().view(dtype).reshape(entry["shape"])
    return metadata, tensors


def verify_container(path: Path, content: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Check a whole file and return (offset of the first tensor, header). Errors as in `read_container`."""
    content = _read(path) if content is None else content
    start, header = _parse(path, content)
    metadata = header.get("__metadata__")
    raw = content[8:start]
    stated = _DIGEST_PATTERN.findall(raw)
    if not isinstance(metadata, dict) or len(stated) != 1 or metadata.get("sha256") != stated[0].decode():
        raise IntegrityError(
            f"{path} has no sha256 of paredown in its header; it was not written by paredown, or it is damaged"
        )
    digest = hashlib.sha256(raw.replace(stated[0], _NO_DIGEST.encode(), 1))
    digest.update(memoryview(content)[start:])
    if digest.hexdigest() != stated[0].decode():
        raise IntegrityError(
            f"{path} is damaged: its sha256 should be {stated[0].decode()[:16]}…, and is {digest.hexdigest()[:16]}…. "
            f"Delete it and make it again, or fetch it again"
        )
    _check_entries(path, header, len(content) - start)
    return start, header


def _render(
    metadata: Mapping[str, str], entries: Iterable[tuple[str, str, tuple[int, ...], int]], align: int = 8
) -> bytes:
    """Header's length and text, with zeros in place of the digest."""
    parts = ['"__metadata__":' + json.dumps({"sha256": _NO_DIGEST, **metadata}, separators=(",", ":"))]
    offset = 0
    for name, dtype, shape, n_bytes in entries:
        numbers = ",".join(f"{n:12d}" for n in shape)
        parts.append(
            f'{json.dumps(name)}:{{"dtype":"{dtype}","shape":[{numbers}],'
            f'"data_offsets":[{offset:12d},{offset + n_bytes:12d}]}}'
        )
        offset += n_bytes
    header = ("{" + ",".join(parts) + "}").encode()
    header += b" " * (-(8 + len(header)) % align)
    return len(header).to_bytes(8, "little") + header


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; a safetensors file is expected") from error


def _parse(path: Path, content: bytes) -> tuple[int, dict[str, Any]]:
    # the length of a header can begin with the same bytes; after it comes the header, which begins with a brace
    if (content[:2] == b"PK" or content[:1] == b"\x80") and content[8:9] != b"{":
        raise IntegrityError(
            f"{path} is a pickle (or an archive of torch.save), which runs code when it is loaded, and is refused; "
            f"a safetensors file is expected"
        )
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > _MAX_HEADER:
        raise IntegrityError(f"{path} is no safetensors file ({len(content)} bytes); a safetensors file is expected")
    if 8 + length > len(content):
        raise IntegrityError(
            f"{path} is truncated: its header should take {length} bytes, and the file has {len(content)}; "
            f"fetch it again"
        )
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is no safetensors file, or is damaged: its header is not JSON ({error})"
        ) from error
    if not isinstance(header, dict):
        raise IntegrityError(f"{path} is no safetensors file: its header is {type(header).__name__}, not an object")
    return 8 + length, header


def _check_entries(path: Path, header: Mapping[str, Any], n_bytes: int) -> None:
    """Check that tensors follow each other without gaps and fill the file."""
    offset = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = _TORCH_DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            fits = begin == offset and end - begin == prod(shape) * dtype.itemsize and all(n >= 0 for n in shape)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{path}: the header's entry of {name!r} is malformed: {entry!r}") from error
        if not fits:
            raise IntegrityError(f"{path}: the header's entry of {name!r} contradicts itself: {entry!r}")
        offset = end
    if offset != n_bytes:
        raise IntegrityError(f"{path}: the header tells of {offset} bytes of tensors, and the file has {n_bytes}")


def _sync_folder(folder: Path) -> None:
    """Make the rename durable. A platform that cannot open folders does this by other means."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
