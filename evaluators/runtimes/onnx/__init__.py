"""Export to ONNX: trace once, put weights and quantizers into the graph, rewrite what kernels want otherwise.

It serves ONNX Runtime, OpenVINO and the exports. It knows `compressors` and the base of `runtimes`. Begin with
`_export.py`. Another rewriting of the graph is one file here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...._lazy import lazy_exports

if TYPE_CHECKING:
    from ._export import MAIN_FILE, build, export_onnx, finish
    from ._layers import fill_weights
    from ._means import means_in_codes
    from ._pads import wrap_by_slices
    from ._trace import quantize_in_graph, trace
    from ._uses import feeds_matmuls, is_linear

_HOMES = {
    "._export": (
        "MAIN_FILE",
        "build",
        "export_onnx",
        "finish",
    ),
    "._layers": ("fill_weights",),
    "._means": ("means_in_codes",),
    "._pads": ("wrap_by_slices",),
    "._trace": (
        "quantize_in_graph",
        "trace",
    ),
    "._uses": (
        "feeds_matmuls",
        "is_linear",
    ),
}

__all__ = [
    "MAIN_FILE",
    "build",
    "export_onnx",
    "feeds_matmuls",
    "fill_weights",
    "finish",
    "is_linear",
    "means_in_codes",
    "quantize_in_graph",
    "trace",
    "wrap_by_slices",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
