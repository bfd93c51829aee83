"""The rule that needs no space and no table: INT8, but FP16 where INT8 is too coarse for the weights.

What it does   a layer stays in FP16 if the mean squared error of its INT8 weights, relative to their mean square, is
               above a threshold; else it gets INT8 weights, and INT8 activations where [space] activation_bits has 8
Source         the precision rule of mixed FP16/INT8 deployments; relative, so that one threshold fits all layers
Did not help   it looks at weights alone: a layer that is coarse and unimportant stays in FP16 all the same
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ...compressors import LayerSpec

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task import Task

THRESHOLD = 1e-4
"""Of the relative error: 40 dB."""

FP16 = LayerSpec(weight_bits=16, weight_format="fp16")


def fp16_mse_assignment(
    problem: Problem, task: Task, threshold: float
) -> tuple[dict[str, LayerSpec], Mapping[str, float]]:
    """(fqn -> spec, fqn -> relative error of INT8). Layers that [space] leaves alone stay as they are."""
    from ...compressors import applicable, compress, weight_at
    from ...compressors.variants import lacks

    model, anatomy = problem.context.model, problem.anatomy
    int8 = LayerSpec(weight_bits=8, activation_bits=8 if 8 in task.space.activation_bits else 32)
    assignment, errors = {}, {}
    for layer in anatomy.layers:
        if any(fnmatchcase(layer.fqn, glob) for glob in task.space.leave):
            continue
        if not bool(weight_at(model, layer.fqn).isfinite().all()):
            continue
        fits = applicable(int8, layer) is None and lacks(int8, layer, problem.context.calibration) is None
        spec = int8 if fits else int8.weight_only
        error = compress(weight_at(model, layer.fqn).detach(), spec, layer).weight_error
        errors[layer.fqn] = error
        assignment[layer.fqn] = FP16 if error > threshold else spec
    return assignment, errors
