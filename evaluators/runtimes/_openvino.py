"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, IntegrityError
from ._base import ExportError, checked_threads, missing, require
from ._gaps import NodePlace, conversion_gap, one_line
from ._options import KEY, OpenVinoOptions, options_of_text, options_text
from .onnx import MAIN_FILE as ONNX_FILE
from .onnx import export_onnx

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant
    from ...compressors.anatomy import Outputs

MAIN_FILE = "model.xml"
_KEPT_SHAPES = 4
"""Largest number of compiled models that a session keeps: the timed batch, the evaluated batch, and its remainder."""


class OpenVinoRuntime:
    """OpenVINO's CPU plugin. This folder's README lists what it fuses."""

    name = "openvino"
    format = "openvino"

    def __init__(self, *, narrow_from: int | None = None, options: OpenVinoOptions | None = None) -> None:
        """Make a runtime with a limit and options.

        narrow_from  least number of weights of a linear layer that runs its 4- and 8-bit weights as such; smaller ones
                     lie in the cache, and are faster in FP32. The default comes from the shipped profile
                     (`_thresholds.py`)
        options      of the sessions, written into what is exported; by default FP32 and no dynamic quantization, which
                     computes what PyTorch computes
        """
        self._narrow_from = narrow_from
        self._options = OpenVinoOptions.exact() if options is None else options

    def with_options(self, options: OpenVinoOptions) -> OpenVinoRuntime:
        """Return the same runtime with other options."""
        return OpenVinoRuntime(narrow_from=self._narrow_from, options=options)

    def available(self) -> str | None:
        return missing("openvino", "openvino", "onnx", "onnxscript")

    def export(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs,
        out: Path,
    ) -> Path:
        """Write `out/model.xml` and `out/model.bin`, made from our ONNX graph. See `Runtime.export`."""
        require("exporting to OpenVINO", "openvino", "openvino", "onnx", "onnxscript")
        from ._thresholds import narrow_rule

        _refuse_rounded_sums(assignment, calibration)
        rule = narrow_rule("openvino")
        if self._narrow_from is not None:
            rule = replace(rule, from_size=self._narrow_from)
        places: list[NodePlace] = []
        onnx_path = export_onnx(
            model, assignment, variants, calibration, example_inputs, out, guarded=False, narrow=rule, places=places
        )
        openvino, core = _openvino(), _core()
        path = out / MAIN_FILE
        try:
            read = core.read_model(onnx_path)
            _write_options(read, self._options)
            # compressed weights would be float16, which is not what was evaluated
            openvino.save_model(read, path, compress_to_fp16=False)
        except RuntimeError as error:
            version = openvino.__version__.split("-")[0]
            raise ExportError(f"OpenVINO {version} cannot run {conversion_gap(error, places)}") from error
        finally:
            (out / ONNX_FILE).unlink()
        return path

    def load(
        self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None
    ) -> OpenVinoSession:
        """Load a model with the options that its file names, else with this runtime's; see `Runtime.load`.

        Raises `IntegrityError` if the files are not a model that this version can run.
        """
        require("running an OpenVINO model", "openvino", "openvino")
        return OpenVinoSession(path, checked_threads(threads), otherwise=self._options)

    def load_exactly(self, path: Path, *, threads: int) -> OpenVinoSession:
        """Load a model in FP32 and without dynamic quantization, whatever its file names."""
        require("running an OpenVINO model", "openvino", "openvino")
        return OpenVinoSession(path, checked_threads(threads), options=OpenVinoOptions.exact())


def _write_options(model: Any, options: OpenVinoOptions) -> None:
    """Write the options into a model's `rt_info`: all as text for our sessions, and those that are named as OpenVINO's
    properties. It applies the group size from there by itself, and no other (2026.4).
    """
    model.set_rt_info(options_text(options), [KEY])
    for name, value in options.properties.items():
        model.set_rt_info(value, ["runtime_options", name])


def _read_options(path: Path, model: Any) -> OpenVinoOptions | None:
    """Options in a model's `rt_info`; None where it names none."""
    if not model.has_rt_info([KEY]):
        return None
    try:
        found = options_of_text("openvino", str(model.get_rt_info([KEY]).value))
    except InputError as error:
        raise IntegrityError(f"{path} names options that OpenVINO has not: {error}; export it again") from None
    return found if isinstance(found, OpenVinoOptions) else None


def _refuse_rounded_sums(assignment: Mapping[str, LayerSpec], calibration: Calibration | None) -> None:
    """Refuse rounded sums, which the plugin would not round. Raises `ExportError` naming the first layer.

    Its convolutions absorb a following sum, and of the quantizer between the two only the clamp (2026.4).
    """
    from ...compressors import rounding_of

    for fqn, spec in assignment.items():
        if spec.rounds_tensors and spec.changes_activation:
            rounding = rounding_of(calibration, fqn, spec)
            if rounding.output is not None:
                raise ExportError(
                    f"{fqn} is {spec.label()}, which rounds the output of {rounding.output_at} before a sum, and "
                    "OpenVINO drops that rounding where it fuses the sum; take activation_scope 'layer', its default, "
                    "which is as fast there"
                )


class OpenVinoSession:
    """Session that compiles the model for each shape of input: static shapes run faster, and compile quickly."""

    def __init__(
        self,
        path: Path,
        threads: int,
        *,
        options: OpenVinoOptions | None = None,
        otherwise: OpenVinoOptions | None = None,
    ) -> None:
        """Open a session.

        options    instead of those that the file names
        otherwise  where the file names none; by default the exact ones
        """
        openvino = _openvino()
        for needed in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
            if not needed.is_file():
                raise InputError(f"no such file: {needed}")
        self._core = _core()
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise IntegrityError(f"OpenVINO {openvino.__version__} cannot load {path}: {one_line(error)}") from error
        self.options = options or _read_options(path, self._model) or otherwise or OpenVinoOptions.exact()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            **self.options.properties,
        }
        self._names = [port.get_any_name() for port in self._model.inputs]
        self._outputs = [port.get_any_name() for port in self._model.outputs]
        batch = self._model.inputs[0].get_partial_shape()[0]
        self._fixed_batch = None if batch.is_dynamic else batch.get_length()
        self._requests: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()

    def run(self, inputs: Inputs) -> Outputs:
        from ._feeds import run_in_batches

        return run_in_batches(inputs, self._names, self._fixed_batch, self._run, self._outputs)

    def reported_threads(self) -> int | None:
        """Threads of a run, from the compiled model; None before the first run."""
        request = next(reversed(self._requests.values()), None)
        return None if request is None else int(request.get_compiled_model().get_property("INFERENCE_NUM_THREADS"))

    def rounding(self) -> str:
        """Rounding of this session that the model does not name itself, as a clause; "" for none, or before a run."""
        request = next(reversed(self._requests.values()), None)
        if request is None:
            return ""
        compiled, found = request.get_compiled_model(), []
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if precision not in ("f32", "undefined", "dynamic"):
            found.append(f"OpenVINO computes in {precision}")
        group = int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))
        if group and any(_is_narrow(node) for node in self._model.get_ordered_ops()):
            found.append(f"OpenVINO rounds the inputs of layers with narrow weights to 8 bits, in groups of {group}")
        return "; ".join(found)

    def kernels(self) -> list[dict[str, str]]:
        """Executed nodes of the last run's compiled model: name, type, primitive and precision. Empty before the first
        run.
        """
        request = next(reversed(self._requests.values()), None)
        if request is None:
            return []
        found = []
        for node in request.get_compiled_model().get_runtime_model().get_ordered_ops():
            facts = {key: str(value.value) for key, value in node.get_rt_info().items()}
            found.append(
                {
                    "name": node.get_friendly_name(),
                    "type": facts.get("layerType", ""),
                    "kernel": facts.get("primitiveType", ""),
                    "precision": facts.get("runtimePrecision", ""),
                    "original": facts.get("originalLayersNames", ""),
                }
            )
        return found

    def _run(self, arrays: dict[str, Any]) -> Any:
        try:
            request = self._request(arrays)
            found = request.infer(arrays, share_inputs=True)
            return [found[n].copy() for n in range(len(self._outputs))]
        except RuntimeError as error:
            expected = ", ".join(f"{port.get_any_name()}: {port.get_partial_shape()}" for port in self._model.inputs)
            came = ", ".join(f"{name}: {list(array.shape)}" for name, array in arrays.items())
            raise InputError(
                f"OpenVINO refused the inputs; expected ({expected}), got ({came}): {one_line(error)}"
            ) from error

    def _request(self, arrays: dict[str, Any]) -> Any:
        shapes = tuple(tuple(array.shape) for array in arrays.values())
        if shapes not in self._requests:
            model = self._model
            if model.is_dynamic():
                model = model.clone()
                model.reshape({name: list(array.shape) for name, array in arrays.items()})
            self._requests[shapes] = self._core.compile_model(model, "CPU", self._config).create_infer_request()
            if len(self._requests) > _KEPT_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shapes)
        return self._requests[shapes]


def _is_narrow(node: Any) -> bool:
    """Tell whether a node is a weight that stays in 4 or 8 bits without a quantizer of its input."""
    if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() not in ("u4", "u8"):
        return False
    return sum(int(side) > 1 for side in node.get_output_shape(0)) > 1


@cache
def _core() -> Any:
    """Only core of this process; it lives as long as the process does.

    The CPU plugin of each core sets an alternate signal stack (for AMX), and puts back the one before it when it goes.
    With two cores, the first to go leaves the second one's "before" pointing at memory that is no longer mapped, and
    the next signal that Python handles ends the process (seen with 2026.4: SIGALRM, then SIGSEGV).
    """
    return _openvino().Core()


def _openvino() -> Any:
    """OpenVINO's package, without telemetry.

    Importing it sends an event unless a file in the user's home says no. While `openvino_telemetry` cannot be imported,
    OpenVINO takes a stub of its own instead, and keeps it. If somebody imported openvino before, it is as they had it.
    """
    name = "openvino_telemetry"
    was_there, before = name in sys.modules, sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way of saying "there is none"
    try:
        import openvino  # type: ignore[import-untyped]
    finally:
        del sys.modules[name]
        if was_there and before is not None:
            sys.modules[name] = before
    return openvino
