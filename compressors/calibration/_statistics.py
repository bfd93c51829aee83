"""Statistics of the calibration data, one tensor for each layer: in memory, or in a content-addressed file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from ...errors import ConfigError, IntegrityError
from ..files import tensor_digest, verify_container, write_container


class Statistics:
    """Mapping fqn -> tensor. Layers that share a weight share theirs.

    The tensors are in memory, or in a file that is mapped at the first access. Only the file's name goes to other
    processes.
    """

    FORMAT: ClassVar[str]
    WHAT: ClassVar[str]

    def __init__(self, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], path: Path | None = None) -> None:
        self._tensors = dict(tensors)
        self._aliases = dict(aliases)
        self._digests: dict[str, str] = {}
        self.path = path

    def _find(self, fqn: str) -> tuple[Tensor, str] | None:
        """(tensor, its digest); None for a layer of which nothing was seen."""
        self._load()
        name = self._aliases.get(fqn, fqn)
        if name not in self._tensors:
            return None
        if name not in self._digests:
            self._digests[name] = tensor_digest(self._tensors[name])
        return self._tensors[name], self._digests[name]

    @property
    def names(self) -> tuple[str, ...]:
        self._load()
        return (*self._tensors, *self._aliases)

    def save(self, folder: Path) -> Self:
        """Save to `folder/<digest>.safetensors` and return the mapped form; the name is derived from the content."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors.items():
            digest.update(f"{name} {tensor_digest(tensor)}\n".encode())
        digest.update(repr(sorted(self._aliases.items())).encode())
        path = Path(folder) / f"{digest.hexdigest()}.safetensors"
        if not path.is_file():
            metadata = {"format": self.FORMAT, **{f"alias:{name}": target for name, target in self._aliases.items()}}
            write_container(path, metadata, self._tensors, align=64)
        return type(self)({}, {}, path)

    def __getstate__(self) -> dict[str, Any]:
        if self.path is None:
            return {"path": None, "tensors": self._tensors, "aliases": self._aliases}
        return {"path": self.path, "tensors": {}, "aliases": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["tensors"], state["aliases"], state["path"])  # type: ignore[misc]

    def _load(self) -> None:
        """Map the file. Raises `IntegrityError` if it is damaged or gone."""
        if self.path is None or self._tensors:
            return
        from safetensors import safe_open

        try:
            _, header = verify_container(self.path)
        except (IntegrityError, ConfigError) as error:
            raise IntegrityError(f"{error} ({self.WHAT}; calibrate again)") from error
        metadata = header["__metadata__"]
        if metadata.get("format") != self.FORMAT:
            raise IntegrityError(f"{self.path} holds no {self.WHAT}; its format is {metadata.get('format')!r}")
        with safe_open(self.path, framework="pt") as file:
            self._tensors = {name: file.get_tensor(name) for name in header if name != "__metadata__"}
        self._aliases = {k.removeprefix("alias:"): v for k, v in metadata.items() if k.startswith("alias:")}
