"""Formats for devices and tools that are not here: each is checked as far as possible; `docs/exports.md` says how far.

It knows `runtimes`; importing it imports none of the packages that a format needs. Begin with `_format.py` (the
protocol and the notes). A new format is one file like `_torchao.py`, and an entry in the mapping below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...._lazy import lazy_exports
from ._compressed_tensors import export_compressed_tensors
from ._executorch import export_executorch, load_pte
from ._format import NOTES_FILE, ExportFormat, read_notes
from ._tensorrt import export_tensorrt
from ._torchao import export_torchao

if TYPE_CHECKING:
    from ._compressed_tensors_load import load_compressed_tensors
    from ._packed import pack_words, unpack_words
    from ._tensorrt_check import check_file, is_two_to_four

_HOMES = {
    "._compressed_tensors_load": ("load_compressed_tensors",),
    "._packed": (
        "pack_words",
        "unpack_words",
    ),
    "._tensorrt_check": (
        "check_file",
        "is_two_to_four",
    ),
}

__all__ = [
    "EXPORTS",
    "NOTES_FILE",
    "ExportFormat",
    "check_file",
    "export_compressed_tensors",
    "export_executorch",
    "export_tensorrt",
    "export_torchao",
    "is_two_to_four",
    "load_compressed_tensors",
    "load_pte",
    "pack_words",
    "read_notes",
    "unpack_words",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)

EXPORTS: dict[str, ExportFormat] = {
    each.name: each
    for each in (
        ExportFormat(name="tensorrt-onnx", write=export_tensorrt, checked_by="onnxruntime"),
        ExportFormat(
            name="compressed-tensors",
            write=export_compressed_tensors,
            checked_by="torch",
            needs_factory=True,
            keeps_shapes=True,
        ),
        ExportFormat(name="torchao-config", write=export_torchao, keeps_shapes=True),
        ExportFormat(name="executorch", write=export_executorch, checked_by="torch"),
    )
}
"""Formats by name, beside those of the runtimes."""
