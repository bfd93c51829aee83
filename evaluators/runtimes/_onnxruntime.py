"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, IntegrityError
from ._base import checked_threads, missing, require
from ._gaps import loading_gap, one_line
from ._options import KEY, OnnxRuntimeOptions, options_of_text, options_text
from .onnx import export_onnx

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant
    from ...compressors.anatomy import Outputs

AS_WRITTEN = ".tensorrt.onnx"
"""Suffix of a graph for another device: it runs as a reference of its meaning, not to be fast."""


class OnnxRuntime:
    """ONNX Runtime's CPU provider. This folder's README lists what it fuses."""

    name = "onnxruntime"
    format = "onnx"

    def __init__(
        self,
        *,
        narrow_from: int | None = None,
        dynamic_from: int | None = None,
        options: OnnxRuntimeOptions | None = None,
    ) -> None:
        """Make a runtime with limits and options.

        narrow_from   least number of weights of a linear layer that runs its 4-bit weights as such; smaller ones are
                      faster in FP32. No fast kernel takes 8-bit weights and leaves the inputs as they are
        dynamic_from  least number of channels, in and out, of a linear layer that runs dynamic activations in integers
        options       of the sessions, written into what is exported; by default ONNX Runtime's own

        The defaults of the limits come from the shipped profile (`_thresholds.py`).
        """
        self._narrow_from, self._dynamic_from = narrow_from, dynamic_from
        self._options = OnnxRuntimeOptions() if options is None else options

    def with_options(self, options: OnnxRuntimeOptions) -> OnnxRuntime:
        """Return the same runtime with other options."""
        return OnnxRuntime(narrow_from=self._narrow_from, dynamic_from=self._dynamic_from, options=options)

    def available(self) -> str | None:
        return missing("onnx", "onnxruntime", "onnx", "onnxscript")

    def export(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs,
        out: Path,
    ) -> Path:
        """Write `out/model.onnx`. See `Runtime.export`."""
        from ._thresholds import dynamic_from, narrow_rule

        rule = narrow_rule("onnxruntime")
        if self._narrow_from is not None:
            rule = replace(rule, from_size=self._narrow_from)
        wide = dynamic_from("onnxruntime") if self._dynamic_from is None else self._dynamic_from
        return export_onnx(
            model, assignment, variants, calibration, example_inputs, out, narrow=rule, dynamic_from=wide,
            metadata={KEY: options_text(self._options)},
        )  # fmt: skip

    def load(
        self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None
    ) -> OnnxRuntimeSession:
        """Load a model with the options that its file names, else with this runtime's; see `Runtime.load`.

        Raises `IntegrityError` if the file is no ONNX model that this version can run.
        """
        require("running an ONNX model", "onnx", "onnxruntime")
        as_written = OnnxRuntimeOptions(graph_optimization_level="disabled") if path.name.endswith(AS_WRITTEN) else None
        return OnnxRuntimeSession(path, checked_threads(threads), options=as_written, otherwise=self._options)


class OnnxRuntimeSession:
    """An `InferenceSession` on the CPU: `threads` cores within an operator, one operator at a time."""

    def __init__(
        self,
        path: Path,
        threads: int,
        optimized_path: Path | None = None,
        *,
        options: OnnxRuntimeOptions | None = None,
        otherwise: OnnxRuntimeOptions | None = None,
    ) -> None:
        """Open a session.

        optimized_path  file for the graph as ONNX Runtime really runs it, for inspection
        options         instead of those that the file names; "disabled" fuses and rewrites nothing, so that each node
                        computes as ONNX defines it, slowly
        otherwise       where the file names none; by default ONNX Runtime's own
        """
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        self.options = options or otherwise or OnnxRuntimeOptions()
        self._session = _open(path, threads, self.options, optimized_path)
        named = None if options is not None else _named_options(path, self._session)
        if named is not None and named != self.options:  # known only once the file is read
            self.options, self._session = named, _open(path, threads, named, optimized_path)
        self._inputs = self._session.get_inputs()
        self._names = [node.name for node in self._inputs]
        self._outputs = [node.name for node in self._session.get_outputs()]
        first_axis = self._inputs[0].shape[:1] if self._inputs else []
        self._fixed_batch = first_axis[0] if first_axis and isinstance(first_axis[0], int) else None

    def run(self, inputs: Inputs) -> Outputs:
        from ._feeds import run_in_batches

        return run_in_batches(inputs, self._names, self._fixed_batch, self._run, self._outputs)

    def reported_threads(self) -> int | None:
        """Threads of a run, from the session's options."""
        return int(self._session.get_session_options().intra_op_num_threads)

    def _run(self, arrays: dict[str, Any]) -> Any:
        try:
            return self._session.run(None, arrays)
        except Exception as error:  # as above
            expected = ", ".join(f"{node.name}: {node.type} {node.shape}" for node in self._inputs)
            came = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in arrays.items())
            raise InputError(
                f"ONNX Runtime refused the inputs; expected ({expected}), got ({came}): {one_line(error)}"
            ) from error


def _open(path: Path, threads: int, chosen: OnnxRuntimeOptions, optimized_path: Path | None) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, chosen.level_name)
    options.log_severity_level = 3  # errors; what is wrong with a call is raised as well
    for key, value in chosen.entries.items():
        options.add_session_config_entry(key, value)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but Exception
        raise IntegrityError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {loading_gap(error)}"
        ) from error


def _named_options(path: Path, session: Any) -> OnnxRuntimeOptions | None:
    """Options in a file's `metadata_props`; None where it names none."""
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        return None
    try:
        found = options_of_text("onnxruntime", text)
    except InputError as error:
        raise IntegrityError(f"{path} names options that ONNX Runtime has not: {error}; export it again") from None
    return found if isinstance(found, OnnxRuntimeOptions) else None
