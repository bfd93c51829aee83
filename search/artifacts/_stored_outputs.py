"""Outputs of an artifact on a split, in files of some samples each, so that they need not all be in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...compressors.anatomy import Outputs

_PIECE_BYTES = 64 << 20
"""Bytes of one file, about: batches are joined until they take so much."""


@dataclass(frozen=True, slots=True)
class StoredOutputs:
    """Files that `write_outputs` wrote, in the order of the samples."""

    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, key: str) -> StoredOutputs:
        """Find the files of one artifact."""
        return cls(tuple(sorted(folder.glob(f"{key}.*.safetensors"))))

    def pieces(self) -> Iterator[Outputs]:
        """Read the outputs, one file at a time."""
        for file in self.files:
            yield _read(file)

    def remove(self) -> None:
        """Remove the files: those of a language model are large, and are not needed twice."""
        for file in self.files:
            file.unlink(missing_ok=True)


def write_outputs(batches: Iterable[Outputs], folder: Path, key: str) -> None:
    """Write the outputs of batches, in order, with their names; floating point as FP32."""
    from ...compressors.anatomy import joined, named_tensors

    waiting: list[Outputs] = []
    size, n = 0, 0
    for outputs in batches:
        waiting.append(outputs)
        size += sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(outputs).values())
        if size >= _PIECE_BYTES:
            _write(joined(waiting), folder / f"{key}.{n:06d}.safetensors")
            waiting, size, n = [], 0, n + 1
    if waiting:
        _write(joined(waiting), folder / f"{key}.{n:06d}.safetensors")


def _write(outputs: Outputs, path: Path) -> None:
    from safetensors.torch import save_file

    from ...compressors.anatomy import named_tensors

    named = named_tensors(outputs)
    stored = [(x.float() if x.is_floating_point() else x).contiguous() for x in named.values()]
    save_file({str(n): x for n, x in enumerate(stored)}, path, metadata={"names": json.dumps(list(named))})


def _read(path: Path) -> Outputs:
    from safetensors import safe_open

    from ...compressors.anatomy import flat_outputs

    with safe_open(path, framework="pt") as file:
        names = json.loads(file.metadata()["names"])
        return flat_outputs([file.get_tensor(str(n)) for n in range(len(names))], names)
