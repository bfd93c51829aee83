"""List of artifact formats, and the export to any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ._base import get_runtime, list_runtimes
from .exports import EXPORTS

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration, Inputs, LayerSpec, Variant
    from ._base import Runtime
    from ._options import RuntimeOptions


def list_formats() -> tuple[str, ...]:
    """Formats that `export_model` can write: those of the registered runtimes, "pt2", and those of `exports`."""
    return (*dict.fromkeys(get_runtime(name).format for name in list_runtimes()), "pt2", *EXPORTS)


def export_model(
    format: str,
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
    *,
    anatomy: Anatomy | None = None,
    runtime: str | None = None,
    options: RuntimeOptions | None = None,
) -> Path:
    """Write a compressed model into the folder `out` in one of `list_formats()`, and return the main file.

    The arguments are those of `Runtime.export`; with `anatomy`, layers that never run are left alone. `runtime` says
    who writes it where several have this format; by default the first that was registered. `options` are written into
    the file where its format can hold them.
    Raises `InputError` for an unknown format, `MissingExtra` where a package is missing (with the command that gets
    it), `ExportError` where the model cannot be written so.
    """
    if anatomy is not None:
        assignment = {fqn: spec for fqn, spec in assignment.items() if fqn not in anatomy.unused}
    if format == "pt2":
        from ._pt2 import export_pt2

        return export_pt2(model, assignment, variants, calibration, example_inputs, out)
    if format in EXPORTS:
        return EXPORTS[format].write(model, assignment, variants, calibration, example_inputs, out)
    for name in list_runtimes() if runtime is None else (runtime,):
        if get_runtime(name).format == format:
            exporter = runtime_with(name, options)
            return exporter.export(model, assignment, variants, calibration, example_inputs, out)
    raise InputError(f"unknown format {format!r}; known are {', '.join(list_formats())}")


def runtime_with(name: str, options: RuntimeOptions | None) -> Runtime:
    """Runtime of that name whose sessions and exports have these options; None: its own.

    Raises `InputError` for options of another runtime.
    """
    runtime = get_runtime(name)
    if options is None:
        return runtime
    adapt = getattr(runtime, "with_options", None)
    if adapt is None or options.runtime != name:
        raise InputError(f"the runtime {name!r} got options of {options.runtime!r}, which it has not")
    found: Runtime = adapt(options)
    return found
