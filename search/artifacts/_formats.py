"""Formats of artifacts: the one of a runtime, the runtime of one, and what each needs to be loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ...errors import InputError
from ..task import Plugins

if TYPE_CHECKING:
    from ..task import Task


def artifact_format(task: Task, *, given: bool) -> str:
    """The format that points are exported to: that of the task's runtime.

    given  whether the model was handed in from Python. A fresh process cannot build the architecture of such a model,
           so it is exported as a whole program ("pt2") instead of bare weights.
    """
    from ...evaluators.runtimes import get_runtime

    format = get_runtime(task.hardware.runtime).format
    return "pt2" if given and format == "paredown" else format


def is_for_elsewhere(format: str) -> bool:
    """True for formats of devices and tools that are not here; a latency measured here does not hold for them."""
    from ...evaluators.runtimes.exports import EXPORTS

    return format in EXPORTS


def needs_factory(format: str) -> bool:
    """True for formats that hold weights only, so that a fresh process has to build the model."""
    from ...evaluators.runtimes.exports import EXPORTS

    return format == "paredown" or (format in EXPORTS and EXPORTS[format].needs_factory)


def check_structure(format: str, removed: Collection[str]) -> None:
    """Raise `ExportError` for a format that cannot say what was removed.

    removed  names of the groups that lost something
    """
    from ...evaluators.runtimes import ExportError
    from ...evaluators.runtimes.exports import EXPORTS

    if removed and format in EXPORTS and EXPORTS[format].keeps_shapes:
        raise ExportError(
            f"the format {format!r} describes the original's layers, and this model has lost parts of "
            f"{', '.join(sorted(removed))}; take 'paredown', 'onnx', 'openvino', 'pt2' or 'tensorrt-onnx'"
        )


def runtime_for(format: str, task: Task) -> str | None:
    """Name of the runtime that writes and loads this format: the task's own, else the first that has the format.

    None for a format that nothing here can run. Raises `InputError` for a format that no runtime has, those of the
    task's plugins included.
    """
    from ...evaluators.runtimes import get_runtime, list_formats, list_runtimes
    from ...evaluators.runtimes.exports import EXPORTS

    Plugins.of(task).load()
    if format == "pt2":
        return "torch"
    if format in EXPORTS:
        return EXPORTS[format].checked_by
    names = [name for name in (task.hardware.runtime, *list_runtimes()) if get_runtime(name).format == format]
    if not names:
        raise InputError(f"format must be one of {', '.join((*list_formats(), 'config'))}, got {format!r}")
    return names[0]
