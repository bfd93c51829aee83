"""Protocol of a format for a device that is not here, and the notes beside its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant

NOTES_FILE = "export-notes.json"


class Write(Protocol):
    """Function that writes the files into `out` and returns the main one; its arguments are those of
    `Runtime.export`.
    """

    def __call__(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs,
        out: Path,
    ) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format.

    checked_by     the runtime that loads and runs it here, as a reference; its latency says nothing of the device.
                   None: nothing here runs it, and the export is a file without claims
    needs_factory  the files hold weights only, and whoever loads them needs the model's architecture
    keeps_shapes   the files describe the original's layers, and can say of none that it lost channels
    """

    name: str
    write: Write
    checked_by: str | None = None
    needs_factory: bool = False
    keeps_shapes: bool = False


@dataclass(slots=True, kw_only=True)
class Notes:
    """Result of the export for each layer.

    written_as  fqn -> how it stands in the file
    fallbacks   fqn -> what the format cannot express, and what was written instead
    more        what else a format has to say
    """

    format: str
    written_as: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def fell_back(self, fqn: str, why: str) -> None:
        self.fallbacks[fqn] = f"{self.fallbacks[fqn]}; {why}" if fqn in self.fallbacks else why

    def save(self, folder: Path) -> None:
        data = {"format": self.format, "written_as": self.written_as, "fallbacks": self.fallbacks, **self.more}
        (folder / NOTES_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_notes(folder: Path) -> dict[str, Any]:
    """Notes of an export; empty where it has none."""
    path = folder / NOTES_FILE
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data
