"""Runtime of PyTorch's own compiler (Inductor): C++ of the whole model, generated and built at loading."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._torch import TorchRuntime, TorchSession

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Inputs
    from ...compressors.anatomy import Outputs

_KEPT_SHAPES = 8
"""Largest number of shapes that one model is compiled for; PyTorch runs others uncompiled, with a warning."""


class CompiledTorchRuntime(TorchRuntime):
    """PyTorch compiled for each shape of input. Every layer computes in FP32.

    The seconds that compiling took stand in the session (`compile_s`): they are no part of a run's time, and a process
    that runs the model once should take "torch". It needs a C++ compiler where the artifact is loaded.
    """

    name = "torch-compile"

    def __init__(self) -> None:
        super().__init__(dynamic_from=2**62)  # none

    def available(self) -> str | None:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return (
                f"the C++ compiler {compiler!r} is not there; install one (Debian: apt install g++) or name it in CXX"
            )
        return None

    def load(
        self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None
    ) -> CompiledTorchSession:
        """Load a model; see `Runtime.load`. Raises `MissingExtra` where there is no compiler."""
        from ...errors import MissingExtra

        if (line := self.available()) is not None:
            raise MissingExtra(f"compiling a model: {line}")
        return CompiledTorchSession(super().load(path, threads=threads, model_factory=model_factory))


@contextmanager
def _its_own_deprecations() -> Iterator[None]:
    """Silence deprecation warnings that PyTorch's modules raise when the compiler imports them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield


class CompiledTorchSession(TorchSession):
    """Compiled model. A new shape of inputs is compiled first, outside the timed and returned run.

    compile_s  seconds of all first runs so far
    """

    def __init__(self, eager: TorchSession) -> None:
        import torch

        super().__init__(eager.model, eager.threads, eager.fixed_batch)
        self._plain = eager.model
        with _its_own_deprecations():
            self._compiled: Any = torch.compile(self._plain, dynamic=False)
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self.compile_s = 0.0

    def run(self, inputs: Inputs) -> Outputs:
        import torch

        from ._program import as_call

        args, kwargs = as_call(inputs)
        shapes = tuple(tuple(x.shape) for x in (*args, *kwargs.values()))
        if shapes in self._seen:
            return self._run(inputs)
        if len(self._seen) >= _KEPT_SHAPES:
            torch._dynamo.reset()
            self._seen.clear()
        start = time.perf_counter()
        with _its_own_deprecations():
            output = self._run(inputs)
        self.compile_s += time.perf_counter() - start
        self._seen.add(shapes)
        return output

    def _run(self, inputs: Inputs) -> Outputs:
        self.model = self._compiled
        try:
            return super().run(inputs)
        finally:
            self.model = self._plain
