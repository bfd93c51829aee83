"""Conversion of a model's inputs to named arrays for a runtime, in batches that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ...errors import InputError
from ._program import as_call, batch_size, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import Inputs

Array = npt.NDArray[Any]


def run_in_batches(
    inputs: Inputs, names: Sequence[str], fixed_batch: int | None, run: Callable[[dict[str, Array]], Array]
) -> Tensor:
    """Outputs of `run` for all samples. A graph of a fixed batch is run once for each such batch."""
    if fixed_batch is None or fixed_batch == batch_size(inputs):
        return torch.from_numpy(run(feeds(inputs, names)))
    return torch.from_numpy(np.concatenate(list(_pieces(inputs, names, fixed_batch, run))))


def _pieces(inputs: Inputs, names: Sequence[str], n: int, run: Callable[[dict[str, Array]], Array]) -> Iterator[Array]:
    for piece, n_real in chunks(inputs, n):
        yield np.array(run(feeds(piece, names))[:n_real])


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
