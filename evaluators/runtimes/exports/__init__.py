"""Formats for devices and tools that are not here: each is checked as far as it can be; `docs/exports.md` says how far.

Importing this package imports none of the packages that a format needs.
"""

from __future__ import annotations

from ._compressed_tensors import export_compressed_tensors
from ._executorch import export_executorch
from ._format import NOTES_FILE, ExportFormat, read_notes
from ._tensorrt import export_tensorrt
from ._torchao import export_torchao

__all__ = ["EXPORTS", "NOTES_FILE", "ExportFormat", "read_notes"]

EXPORTS: dict[str, ExportFormat] = {
    each.name: each
    for each in (
        ExportFormat(name="tensorrt-onnx", write=export_tensorrt, checked_by="onnxruntime"),
        ExportFormat(
            name="compressed-tensors", write=export_compressed_tensors, checked_by="torch", needs_factory=True
        ),
        ExportFormat(name="torchao-config", write=export_torchao),
        ExportFormat(name="executorch", write=export_executorch, checked_by="torch"),
    )
}
"""Name -> format, beside those of the runtimes."""
