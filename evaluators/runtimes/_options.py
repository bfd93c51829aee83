"""Options that a session is loaded with: one frozen dataclass for each runtime that has any.

The exporter writes them into the file (OpenVINO: `rt_info`; ONNX: `metadata_props`), and a session reads them there.
So a file runs everywhere with the options that it was measured with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self, TypeAlias

from ...errors import InputError

DEFAULT = "default"
"""Value of an option that is left to the runtime."""
KEY = "paredown_options"
"""Name under which the file holds the options."""

_LARGEST_GROUP = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Options of OpenVINO's CPU plugin. `"default"` leaves one to OpenVINO.

    inference_precision  "f32", "bf16", "f16": what floating-point kernels compute in. The default is bf16 on a CPU that
                         has it
    dynamic_quantization_group_size  inputs of linear layers with narrow weights are rounded to 8 bits as they come, in
                         groups of so many; 0: they are not. OpenVINO's default is 32
    snippets_mode        "disable": no code is generated for chains of operations. It is the one default that is not
                         OpenVINO's: 2026.4 fuses chains of quantized 2-d linear layers into code that gives wrong
                         numbers (seen: 0.09 of 0.4). Without it ResNet-20 and DS-CNN are as fast as before, KWT-1 in
                         int8 7 % slower
    """

    runtime: ClassVar[str] = "openvino"
    inference_precision: str = DEFAULT
    dynamic_quantization_group_size: str | int = DEFAULT
    snippets_mode: str = "disable"

    def __post_init__(self) -> None:
        _check_choice(self, "inference_precision", (DEFAULT, "f32", "bf16", "f16"))
        _check_choice(self, "snippets_mode", (DEFAULT, "disable"))
        size = self.dynamic_quantization_group_size
        if size != DEFAULT and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _LARGEST_GROUP):
            raise InputError(
                f"runtime_options.dynamic_quantization_group_size must be {DEFAULT!r} or a whole number from 0 to "
                f"{_LARGEST_GROUP}, got {size!r}"
            )

    @property
    def properties(self) -> dict[str, str]:
        """Property of OpenVINO -> value, of those that are not left to it."""
        found = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(self.dynamic_quantization_group_size),
            "SNIPPETS_MODE": self.snippets_mode.upper() if self.snippets_mode != DEFAULT else DEFAULT,
        }
        return {name: value for name, value in found.items() if value != DEFAULT}

    @classmethod
    def exact(cls) -> Self:
        """Options under which nothing is rounded that the model does not round itself."""
        return cls(inference_precision="f32", dynamic_quantization_group_size=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """Options of ONNX Runtime's CPU provider. The defaults are its own.

    graph_optimization_level  "all", "extended", "basic", "disabled". Integer kernels appear at "extended" and above
    flush_denormals           numbers that are nearly zero are taken as zero
    """

    runtime: ClassVar[str] = "onnxruntime"
    graph_optimization_level: str = "all"
    flush_denormals: bool = False

    def __post_init__(self) -> None:
        _check_choice(self, "graph_optimization_level", ("all", "extended", "basic", "disabled"))
        _check_choice(self, "flush_denormals", (False, True))

    @property
    def level_name(self) -> str:
        """Name of the level in `onnxruntime.GraphOptimizationLevel`."""
        return f"ORT_{'DISABLE' if self.graph_optimization_level == 'disabled' else 'ENABLE'}_" + (
            "ALL" if self.graph_optimization_level == "disabled" else self.graph_optimization_level.upper()
        )

    @property
    def entries(self) -> dict[str, str]:
        """Entries of `SessionOptions.add_session_config_entry`."""
        return {"session.set_denormal_as_zero": "1"} if self.flush_denormals else {}


RuntimeOptions: TypeAlias = OpenVinoOptions | OnnxRuntimeOptions
OPTIONS: dict[str, type[OpenVinoOptions] | type[OnnxRuntimeOptions]] = {
    kind.runtime: kind for kind in (OnnxRuntimeOptions, OpenVinoOptions)
}
"""Runtime -> class of its options; a runtime that is missing has none."""


def options_from(runtime: str, given: Mapping[str, Any]) -> RuntimeOptions | None:
    """Options of a runtime by name; those that are not given have their defaults. None for a runtime without options.

    Raises `InputError` for an option that the runtime has not, and for a value that it cannot have.
    """
    kind = OPTIONS.get(runtime)
    known = [each.name for each in fields(kind)] if kind is not None else []
    if unknown := sorted(set(given) - set(known)):
        raise InputError(
            f"runtime_options.{unknown[0]} is no option of the runtime {runtime!r}; it has {', '.join(known) or 'none'}"
        )
    return None if kind is None else kind(**given)


def unnamed_options(runtime: str) -> RuntimeOptions | None:
    """Options of a session whose file names none, such as one that an earlier version wrote; None for a runtime without
    options.
    """
    return OpenVinoOptions.exact() if runtime == "openvino" else options_from(runtime, {})


def options_dict(options: RuntimeOptions | None) -> dict[str, Any]:
    """Every option of a session by name, as JSON; empty for None."""
    return {} if options is None else asdict(options)


def options_text(options: RuntimeOptions) -> str:
    """Options as the text that a file holds."""
    return json.dumps(asdict(options), sort_keys=True)


def options_of_text(runtime: str, text: str) -> RuntimeOptions | None:
    """Options from the text that a file holds. Raises `InputError` where it is not what `options_text` writes."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{KEY} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{KEY} must be a table, got {found!r:.60}")
    return options_from(runtime, found)


def _check_choice(options: object, name: str, choices: tuple[Any, ...]) -> None:
    value = getattr(options, name)
    if type(value) is not type(choices[0]) or value not in choices:
        raise InputError(f"runtime_options.{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
