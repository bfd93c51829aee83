"""Plugins of a task: files and modules that register methods, axes, metrics, runtimes or searchers on import.

A registry belongs to a process, so every process of a run imports the task's plugins before anything else: the
driver, the workers, and the fresh process that loads artifacts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import TaskError
from ._user_code import is_file, load_file, load_module

_digests: dict[Path, str] = {}
"""Plugin file -> sha256 of the content that this process has run."""


class HasPlugins(Protocol):
    """A task, as far as its plugins are concerned."""

    @property
    def plugins(self) -> tuple[str, ...]: ...

    @property
    def base_dir(self) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """The plugins of a task, as every process can import them.

    references  'file.py' (relative to `base_dir`) or 'module', in the order in which they are imported
    """

    references: tuple[str, ...]
    base_dir: Path

    @classmethod
    def of(cls, task: HasPlugins) -> Plugins:
        return cls(references=task.plugins, base_dir=task.base_dir)

    def load(self) -> None:
        """Import each of them, once in a process however often this is called.

        Raises `TaskError` for one that is not there, that raises (also because a name is taken), or that was changed
        after this process had imported it.
        """
        for position, reference in enumerate(self.references):
            where = f"plugins[{position}] = {reference!r}"
            if is_file(reference):
                path = (self.base_dir / Path(reference).expanduser()).resolve()
                _refuse_changed(path, where)
                load_file(path, where=where)
                _digests[path] = _digest(path)
            else:
                load_module(reference, where=where)

    def to_dict(self) -> dict[str, Any]:
        return {"references": list(self.references), "base_dir": str(self.base_dir)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plugins:
        return cls(references=tuple(data["references"]), base_dir=Path(data["base_dir"]))


def _refuse_changed(path: Path, where: str) -> None:
    if path in _digests and path.is_file() and _digest(path) != _digests[path]:
        raise TaskError(
            f"{where}: {path} has changed since this process ran it, and what it registered then cannot be taken back; "
            "start a new process"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
