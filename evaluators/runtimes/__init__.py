"""Runtimes that run a compressed model: PyTorch (eager or compiled), ONNX Runtime, OpenVINO.

It knows `values`; importing it imports none of the runtimes. Begin with `_base.py` (the protocol `Runtime`) and
`_lowering.py` (the form in which a layer leaves PyTorch). A new runtime is one file like `_openvino.py`, registered
with `register_runtime` (also from outside); the contract suite is `paredown.testing.check_runtime`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._base import ExportError, Runtime, Session, get_runtime, list_runtimes, register_runtime, require
from ._formats import export_model, list_formats, runtime_with
from ._onnxruntime import OnnxRuntime, OnnxRuntimeSession
from ._openvino import OpenVinoRuntime, OpenVinoSession
from ._options import (
    OPTIONS,
    OnnxRuntimeOptions,
    OpenVinoOptions,
    RuntimeOptions,
    options_dict,
    options_from,
    unnamed_options,
)
from ._torch import STRUCTURE_FILE, TorchRuntime, load_stored
from ._torch_compile import CompiledTorchRuntime

if TYPE_CHECKING:
    from ._cards import CARDS
    from ._chain import FORMS
    from ._lowering import Lowered, fake_quantize, lower, prepare, runs_dynamic
    from ._narrow import NarrowRule
    from ._program import as_call, batch_size, chunks, export_program, with_batch
    from ._ran import is_integer, kernels_by_layer, ran_otherwise, where_rounded
    from ._thresholds import dynamic_from, narrow_rule
    from ._torch_dynamic import has_integer_products

_HOMES = {
    "._cards": ("CARDS",),
    "._chain": ("FORMS",),
    "._lowering": (
        "Lowered",
        "fake_quantize",
        "lower",
        "prepare",
        "runs_dynamic",
    ),
    "._narrow": ("NarrowRule",),
    "._program": (
        "as_call",
        "batch_size",
        "chunks",
        "export_program",
        "with_batch",
    ),
    "._ran": (
        "is_integer",
        "kernels_by_layer",
        "ran_otherwise",
        "where_rounded",
    ),
    "._thresholds": (
        "dynamic_from",
        "narrow_rule",
    ),
    "._torch_dynamic": ("has_integer_products",),
}

__all__ = [
    "CARDS",
    "FORMS",
    "OPTIONS",
    "STRUCTURE_FILE",
    "CompiledTorchRuntime",
    "ExportError",
    "Lowered",
    "NarrowRule",
    "OnnxRuntime",
    "OnnxRuntimeOptions",
    "OnnxRuntimeSession",
    "OpenVinoOptions",
    "OpenVinoRuntime",
    "OpenVinoSession",
    "Runtime",
    "RuntimeOptions",
    "Session",
    "TorchRuntime",
    "as_call",
    "batch_size",
    "chunks",
    "dynamic_from",
    "export_model",
    "export_program",
    "fake_quantize",
    "get_runtime",
    "has_integer_products",
    "is_integer",
    "kernels_by_layer",
    "list_formats",
    "list_runtimes",
    "load_stored",
    "lower",
    "narrow_rule",
    "options_dict",
    "options_from",
    "prepare",
    "ran_otherwise",
    "register_runtime",
    "require",
    "runs_dynamic",
    "runtime_with",
    "unnamed_options",
    "where_rounded",
    "with_batch",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)

for _runtime in (TorchRuntime(), OnnxRuntime(), OpenVinoRuntime(), CompiledTorchRuntime()):
    register_runtime(_runtime)
