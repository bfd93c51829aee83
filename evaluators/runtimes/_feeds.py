"""Conversion of a model's inputs to named arrays for a runtime, in batches that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from ...compressors.anatomy import Outputs, flat_outputs
from ...errors import InputError
from ._program import as_call, batch_size, run_chunks

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import Inputs

Array = npt.NDArray[Any]
Run = Callable[[dict[str, Array]], Sequence[Array]]
"""Run of a graph: input name -> array, to its outputs in order."""


def run_in_batches(
    inputs: Inputs, names: Sequence[str], fixed_batch: int | None, run: Run, outputs: Sequence[str]
) -> Outputs:
    """Outputs of `run` for all samples. A graph of a fixed batch is run once for each such batch.

    outputs  names of the graph's outputs, in order
    """

    def once(batch: Inputs) -> Outputs:
        return flat_outputs([torch.from_numpy(array) for array in run(feeds(batch, names))], outputs)

    if fixed_batch is None or fixed_batch == batch_size(inputs):
        return once(inputs)
    return run_chunks(once, inputs, fixed_batch)


def feeds(inputs: Inputs, names: Sequence[str]) -> dict[str, Array]:
    """Input name -> array. Raises `InputError` where number or names differ from those of the graph."""
    args, kwargs = as_call(inputs)
    if isinstance(inputs, Mapping):
        if set(kwargs) != set(names):
            raise InputError(f"this model's inputs are named {', '.join(names)}; got {', '.join(kwargs)}")
        return {name: _array(kwargs[name]) for name in names}
    if len(args) != len(names):
        raise InputError(f"this model has {len(names)} inputs ({', '.join(names)}), got {len(args)}")
    return {name: _array(x) for name, x in zip(names, args, strict=True)}


def _array(x: Tensor) -> Array:
    array: Array = x.detach().cpu().contiguous().numpy()
    return array
