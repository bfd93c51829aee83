"""Errors of the user's own model, told as theirs: which call, on what, and what would help.

The good path costs nothing. After an error, the same call is repeated without anything around it: an error that does
not come again is ours, and is left as it is.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import ParedownError, TaskError
from ..task import told

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def user_errors(batch_size: int) -> Iterator[None]:
    """Raise `TaskError` for what the model's forward raises inside the block; other errors pass.

    batch_size  `[data] batch_size`, for the advice
    """
    try:
        yield
    except ParedownError:
        raise
    except Exception as error:  # the model is the user's code, and may raise anything
        call = _failed_call(error)
        told_as = None if call is None else _diagnosis(*call, batch_size)
        if told_as is None:
            raise
        raise TaskError(told_as) from error


def described(value: object) -> str:
    """Write the shapes of a structure of tensors: `float32 (128, 1, 8, 8)`, `{ids: int64 (4, 9), mask: …}`."""
    import torch

    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(described(part) for part in value) + ")"
    return "none" if value is None else type(value).__name__


def _failed_call(error: Exception) -> tuple[nn.Module, Any] | None:
    """Find the model and the inputs of the innermost forward that the error passed through."""
    from ...compressors import forward

    calls = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is forward.__code__]
    return (calls[-1].f_locals["model"], calls[-1].f_locals["inputs"]) if calls else None


def _diagnosis(model: nn.Module, inputs: Any, batch_size: int) -> str | None:
    """Say what the model raises on these inputs, and what helps. None where it runs by itself."""
    error = _raised(model, inputs)
    if error is None:
        return None
    n = _length(inputs)
    what = f"the model's forward at batch {n} ({type(model).__name__}, inputs {described(inputs)}) raised {told(error)}"
    return f"{what}; {_advice(model, inputs, n, batch_size, error)}"


def _advice(model: nn.Module, inputs: Any, n: int, batch_size: int, error: Exception) -> str:
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return "set a smaller [data] batch_size" if batch_size > 1 else "it needs a machine with more memory"
    if n == 1:
        if _raised(model, _samples(inputs, [0, 0])) is None:
            return (
                "it runs at batch 2, so something in it drops the batch axis (squeeze() without an axis?); let it run "
                "at batch 1 too"
            )
        return "correct the model, or the inputs that data.factory returns"
    bad = next((i for i in range(n) if _raised(model, _samples(inputs, [i])) is not None), None)
    if bad is not None:
        return f"sample {bad} of this batch fails alone too: correct it in data.factory, or let the model take it"
    if batch_size > 1:
        return "each sample runs alone: set [data] batch_size = 1, or write the forward for any batch"
    return "each sample runs alone, and this step needs several at once: write the forward for any batch"


def _raised(model: nn.Module, inputs: Any) -> Exception | None:
    from ...compressors import forward, preserved

    try:
        with preserved(model):
            forward(model, inputs)
    except Exception as error:  # whatever the user's code raises is what is asked for
        return error
    return None


def _length(inputs: Any) -> int:
    """Length of the first axis of the first tensor; 1 if there is none."""
    import torch

    values = [*inputs.values()] if isinstance(inputs, Mapping) else [*inputs] if isinstance(inputs, tuple) else [inputs]
    return next((len(value) for value in values if isinstance(value, torch.Tensor) and value.dim()), 1)


def _samples(inputs: Any, which: list[int]) -> Any:
    """Pick samples of a batch. What has no batch axis stays as it is."""
    import torch

    n = _length(inputs)

    def pick(value: Any) -> Any:
        return value[which] if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == n else value

    if isinstance(inputs, Mapping):
        return {key: pick(value) for key, value in inputs.items()}
    return tuple(pick(value) for value in inputs) if isinstance(inputs, tuple) else pick(inputs)
