"""Export to ExecuTorch: one `.pte` program for phones and microcontrollers, lowered to XNNPACK where possible.

What it does   effective weights in FP32, input quantizers as ordinary operations, a fixed batch of one sample
Source         ExecuTorch 1.5, `executorch.exir.to_edge_transform_and_lower`
We differ      no integer kernels are asked for yet: the file carries the numbers, it is as large as the original and no
               faster, and its card (`docs/exports.md`) says so
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._base import ExportError, require
from ._format import Notes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant

FORMAT = "executorch"
MAIN_FILE = "model.pte"


def export_executorch(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
) -> Path:
    """Write `out/model.pte` and the notes; see `Runtime.export`.

    Raises `MissingExtra` where executorch is missing, with the command that installs it, and `ExportError` with
    executorch's message where it cannot lower the model.
    """
    # a folder of that name on the path would do for the first, so one of its own modules is looked for too
    require("exporting to ExecuTorch", "executorch", "executorch", "executorch.exir")
    from .._lowering import fake_quantize, lower, prepare, refuse_products
    from .._program import export_program, first_line

    layers = lower(assignment, variants, calibration)
    refuse_products(layers, "ExecuTorch")
    ready = prepare(model, layers, fake_quantize)
    program = export_program(ready, example_inputs, free_batch=False)
    with quietly():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import-not-found,unused-ignore]
            XnnpackPartitioner,
        )
        from executorch.exir import to_edge_transform_and_lower  # type: ignore[import-not-found,unused-ignore]

        try:
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            buffer = lowered.to_executorch().buffer
        except Exception as error:  # its passes raise whatever they meet
            raise ExportError(f"ExecuTorch cannot lower this model: {first_line(error)}") from error
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    path.write_bytes(buffer)
    notes = Notes(format=FORMAT)
    notes.more["batch"] = 1
    notes.more["arithmetic"] = "FP32 (XNNPACK), input quantizers as ordinary operations"
    notes.save(out)
    return path


def load_pte(path: Path) -> nn.Module:
    """Load the program as a module that runs in ExecuTorch's own runtime, one sample at a time."""
    require("running an ExecuTorch program", "executorch", "executorch")
    from torch import nn

    with quietly():
        from executorch.runtime import Runtime  # type: ignore[import-not-found,unused-ignore]

        program = Runtime.get().load_program(path)
        method: Any = program.load_method("forward")

    class Program(nn.Module):
        def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
            outputs = method.execute([*args, *kwargs.values()])
            return tuple(output.clone() for output in outputs)  # the next run writes to the same memory

    return Program()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings and output that executorch and torchao cause at import."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
