"""Protocol of a runtime, and the register of runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import InputError, MissingExtra, ParedownError

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant
    from ...compressors.anatomy import Outputs


class ExportError(ParedownError, RuntimeError):
    """A model, or one of its layers, could not be brought into a runtime's format. The message names the layer."""


class Session(Protocol):
    """Loaded model. Use it in the process and the thread that made it."""

    def run(self, inputs: Inputs) -> Outputs:
        """Run a batch of any size and return the model's outputs on the CPU: one tensor, or several by name.

        inputs  as for `paredown.compressors.forward`: a tensor, a tuple, or a dict of tensors

        Raises `InputError` where number, names or shapes are not those that the model was exported with.
        """
        ...


class Runtime(Protocol):
    """Runtime that exports a compressed model and runs the export. The calls come in this order: available, export,
    load.

    name    as the task's `[hardware] runtime` names it
    format  of the artifact that it loads
    """

    name: str
    format: str

    def available(self) -> str | None:
        """None if the runtime can be used here; else one line with the missing part and how to get it."""
        ...

    def export(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs,
        out: Path,
    ) -> Path:
        """Write the artifact's file or files into the folder `out` (made if missing), and return the main file.

        model           the original, with its own weights and without our hooks; it is left as it is
        assignment      what each layer gets, by fqn; layers that are not named stay as they are
        variants        the compressed weight of every layer whose weight changes
        calibration     needed where an activation is quantized
        example_inputs  one batch; its first axis is the sample

        The artifact computes what PyTorch computes with `CompressedModel.apply`. Raises `ExportError` naming the layer
        that could not be lowered; none is silently left in FP32.
        """
        ...

    def load(self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None) -> Session:
        """Load the main file. `threads` is the number of cores that one `run` may use.

        model_factory  makes the original architecture; only the format "paredown" needs it
        """
        ...


_RUNTIMES: dict[str, Runtime] = {}


def register_runtime(runtime: Runtime) -> Runtime:
    """Register a runtime under its name. Raises `InputError` if the name is taken."""
    if runtime.name in _RUNTIMES:
        raise InputError(f"a runtime named {runtime.name!r} is registered already; give yours another name")
    _RUNTIMES[runtime.name] = runtime
    return runtime


def get_runtime(name: str) -> Runtime:
    """Return the runtime of that name, whether or not it is `available`. Raises `InputError` listing the known ones."""
    if name not in _RUNTIMES:
        raise InputError(f"unknown runtime {name!r}; known are {', '.join(list_runtimes())}")
    return _RUNTIMES[name]


def list_runtimes() -> tuple[str, ...]:
    """Names of all registered runtimes, ours first."""
    return tuple(_RUNTIMES)


def missing(extra: str, *modules: str) -> str | None:
    """Reason why one of `modules` cannot be imported, and how to get it; None if all can."""
    for module in modules:
        if find_spec(module) is None:
            return f"the package {module!r} is not installed; get it with: pip install 'paredown[{extra}]'"
    return None


def require(purpose: str, extra: str, *modules: str) -> None:
    """Require modules. Raises `MissingExtra` if one of `modules` is not installed."""
    if line := missing(extra, *modules):
        raise MissingExtra(f"{purpose}: {line}")


def checked_threads(threads: object) -> int:
    """Check a number of threads and return it. Raises `InputError` if it is none."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be a whole number from 1 up, got {threads!r}")
    return threads
