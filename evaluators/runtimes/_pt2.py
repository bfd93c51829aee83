"""Export as one file of `torch.export`, which runs without paredown and without the model's source.

The weights are the effective ones in FP32 and the quantizers of activations are round, clamp and multiply, so the file
is as large as the original's and no faster: it is for carrying the numbers, not for speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant

MAIN_FILE = "model.pt2"


def export_pt2(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
) -> Path:
    """Write `out/model.pt2`, for `torch.export.load`; see `Runtime.export`.

    It returns a tensor, or a tuple or dict of several.
    """
    import torch

    from ._lowering import fake_quantize, lower, prepare, refuse_products
    from ._program import export_program, quiet

    layers = lower(assignment, variants, calibration)
    refuse_products(layers, "a program of PyTorch")
    ready = prepare(model, layers, fake_quantize)
    program = export_program(ready, example_inputs)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
        if "nn_module_stack" in node.meta:
            node.meta["nn_module_stack"] = {
                key: (fqn, type_name.rpartition(".")[2])
                for key, (fqn, type_name) in node.meta["nn_module_stack"].items()
            }  # the module that a class lies in may bear a digest of its file's path
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    with quiet():
        torch.export.save(program, path)
    return path


def load_pt2(path: Path) -> tuple[nn.Module, int | None]:
    """Load the program as a module, with its fixed batch (None: any)."""
    import torch

    program = torch.export.load(path)
    names = set(program.graph_signature.user_inputs)
    first = next(node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    size = first.shape[0]
    return program.module(), size if isinstance(size, int) else None
