"""What really runs a compressed model: PyTorch (eager or compiled), ONNX Runtime, OpenVINO.

Add one with `register_runtime`.

Importing this package imports none of them.
"""

from ._base import ExportError, Runtime, Session, get_runtime, list_runtimes, register_runtime
from ._formats import export_model, list_formats
from ._onnxruntime import OnnxRuntime
from ._openvino import OpenVinoRuntime
from ._torch import STRUCTURE_FILE, TorchRuntime
from ._torch_compile import CompiledTorchRuntime

__all__ = [
    "STRUCTURE_FILE",
    "CompiledTorchRuntime",
    "ExportError",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Runtime",
    "Session",
    "TorchRuntime",
    "export_model",
    "get_runtime",
    "list_formats",
    "list_runtimes",
    "register_runtime",
]

for _runtime in (TorchRuntime(), OnnxRuntime(), OpenVinoRuntime(), CompiledTorchRuntime()):
    register_runtime(_runtime)
