"""Real rows of the activations inside a model, while it runs on a batch that has a mask.

A hook asks `real_rows` for the rows of an activation that count. The mask is found by the activation's shape:
(N, T, …), (N * T, …), (N, C, T), (T, N, …), or the heads' (N, H, T, …). A `Conv1d` that shortens a sequence shortens
its mask. Rows that a mixture routes to an expert are found again among those of the whole. Of any other shape all rows
count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._forward import temporary_hooks
from ._mask import DECODER_IDS, output_positions, positions


@dataclass(slots=True, eq=False)
class _Whole:
    """Rows (n, C) of all positions, and their mask. `known` is the content of a row -> True where it is real."""

    rows: Tensor
    mask: Tensor
    known: dict[bytes, bool] = field(default_factory=dict)

    def mask_of(self, x: Tensor) -> Tensor | None:
        """Mask of rows that are copies of some of these; None where they are not."""
        if x.dtype != self.rows.dtype:
            return None
        if not self.known:
            for row, is_real in zip(_bytes(self.rows), self.mask.tolist(), strict=True):
                self.known[row] = is_real or self.known.get(row, False)
        found = [self.known.get(row) for row in _bytes(x)]
        return None if None in found else torch.tensor(found, dtype=torch.bool, device=x.device)


def _bytes(rows: Tensor) -> list[bytes]:
    return [row.tobytes() for row in rows.detach().cpu().contiguous().view(torch.uint8).numpy()]


@dataclass(slots=True, eq=False)
class _Batch:
    """Masks of the batch that runs.

    masks    (N, T) of the sequences in it, those that were found first first
    decoder  mask of the decoder's sequence, where a model has one of its own
    encoder  depth of calls of the encoder that run now
    encoded  address of the encoder's output
    whole    width -> rows of all positions, of which some are routed
    routed   mask of the rows that were routed last
    """

    masks: list[Tensor]
    decoder: Tensor | None = None
    encoder: int = 0
    encoded: int = 0
    whole: dict[int, _Whole] = field(default_factory=dict)
    routed: Tensor | None = None

    def candidates(self, x: Tensor) -> list[Tensor]:
        if self.decoder is None:
            return self.masks
        is_encoded = self.encoder > 0 or x.data_ptr() == self.encoded
        return self.masks if is_encoded else [self.decoder, *self.masks]


_NO_SHARE = 1e-6
_RUNNING: ContextVar[_Batch | None] = ContextVar("running batch", default=None)


@contextmanager
def masked_batch(model: nn.Module, inputs: object, mask_name: str | None = None) -> Iterator[None]:
    """Let `real_rows` know the mask of these inputs inside the block, in which `model` runs on them once."""
    real = positions(inputs, mask_name)
    is_apart = isinstance(inputs, Mapping) and DECODER_IDS in inputs
    decoder = _decoder_mask(inputs, output_positions(inputs, mask_name)) if is_apart else None
    if all(mask is None or bool(mask.all()) for mask in (real, decoder)):
        yield
        return
    batch = _Batch(masks=[] if real is None else [real], decoder=decoder)
    token = _RUNNING.set(batch)
    try:
        with temporary_hooks() as hooks:
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv1d):
                    hooks.append(module.register_forward_hook(_shorten(batch)))
                elif batch.decoder is not None and name.rpartition(".")[2] == "encoder":
                    hooks.append(module.register_forward_pre_hook(_enter(batch)))
                    hooks.append(module.register_forward_hook(_leave(batch)))
            yield
    finally:
        _RUNNING.reset(token)


def real_rows(x: Tensor, channels: int = -1) -> Tensor:
    """Rows (n, C) of an activation that are real; `x` itself where nothing is hidden.

    channels  axis of the features: the last, or 1 for convolutions
    """
    batch = _RUNNING.get()
    if batch is None or x.dim() < 2:
        return x
    if channels == 1 and x.dim() > 2:
        mask = _of_convolution(batch, x)
        return x if mask is None else x.movedim(1, -1)[mask]
    mask = _of_rows(batch, x)
    if mask is None:
        mask = _of_routed(batch, x)
        return x if mask is None else x[mask]
    rows = x[mask]
    if x.dim() == 2 or tuple(mask.shape) == tuple(x.shape[:-1]):
        batch.whole[x.shape[-1]] = _Whole(x.reshape(-1, x.shape[-1]).detach(), mask.reshape(-1))
    return rows


def has_other_positions(x: Tensor, channels: int = -1) -> bool:
    """Tell whether the mask hides something, and fits none of the axes of an activation, all of whose rows count then.

    channels  as in `real_rows`
    """
    batch = _RUNNING.get()
    if batch is None or x.dim() < 2:
        return False
    if x.dim() == 2 and any(len(x) == len(mask) for mask in batch.candidates(x)):  # a row for each sample
        return False
    if channels == 1 and x.dim() > 2:
        return _of_convolution(batch, x) is None
    return _of_rows(batch, x) is None and _of_routed(batch, x) is None


def real_entries(output: Tensor, args: Any) -> Tensor:
    """Rows of a module's output that are real, (n, C); the output itself where nothing is hidden.

    args  that the module was called with, which tell whether it read what an encoder gave
    """
    batch = _RUNNING.get()
    if batch is None or output.dim() < 2:
        return output
    given = args[0] if isinstance(args, tuple) and args and isinstance(args[0], Tensor) else output
    if (mask := _of_rows(batch, output, given)) is not None:
        return output[mask]
    mask = _of_convolution(batch, output, given)
    return output if mask is None else output.movedim(1, -1)[mask]


def real_scores(scores: Tensor) -> Tensor:
    """Numbers of attention's scores (N, …, T, S) whose query and key are real: (n,), or the scores themselves.

    Keys are hidden by the first mask of their length whose hidden keys have no share in any real query.
    """
    batch = _RUNNING.get()
    if batch is None or scores.dim() not in (3, 4):
        return scores
    n, length, keys = scores.shape[0], scores.shape[-2], scores.shape[-1]
    heads = [1] * (scores.dim() - 3)
    rows = next((mask for mask in batch.candidates(scores) if tuple(mask.shape) == (n, length)), None)
    if rows is None:
        return scores
    kept = rows.to(scores.device).reshape(n, *heads, length, 1).expand(scores.shape)
    for mask in batch.candidates(scores) + batch.masks:
        columns = mask.to(scores.device).reshape(n, *heads, 1, -1) if tuple(mask.shape) == (n, keys) else None
        if columns is not None and not bool((scores[kept & ~columns] > _NO_SHARE).any()):
            return scores[kept & columns]
    return scores[kept]


def real_windows(x: Tensor, output: Tensor, module: nn.Module) -> Tensor | None:
    """Mask (N, L) of the positions at which a convolution of x (N, C, T) gave `output` (N, C, L); None: all."""
    batch = _RUNNING.get()
    if batch is None or x.dim() != 3 or not isinstance(module, nn.Conv1d):
        return None
    mask = _of_convolution(batch, output)
    if mask is None and (before := _of_convolution(batch, x)) is not None:
        mask = convolved(before, module)
    return mask if mask is not None and tuple(mask.shape) == (output.shape[0], output.shape[2]) else None


def convolved(mask: Tensor, module: nn.Conv1d) -> Tensor:
    """Mask (N, L) of the output of a convolution over a sequence with the mask (N, T).

    An output is real where what it reads is, but for the zeros that the convolution itself puts around a sequence.
    """
    kernel, stride, dilation = module.kernel_size[0], module.stride[0], module.dilation[0]
    width = dilation * (kernel - 1)
    if module.padding == "same":
        return mask
    around = int(module.padding[0]) if not isinstance(module.padding, str) else 0
    length = mask.shape[1]
    n = (length + 2 * around - width - 1) // stride + 1
    at = torch.arange(n, device=mask.device) * stride
    seen = mask.long()
    begun, to_come = seen.cummax(dim=1).values.bool(), seen.flip(1).cummax(dim=1).values.flip(1).bool()
    if 2 * around == width and stride == 1:
        return mask
    first, last = at.clamp(0, length - 1), (at + width - 2 * around).clamp(0, length - 1)
    return begun[:, first] & to_come[:, last]


def _decoder_mask(inputs: Any, outside: Tensor | None) -> Tensor | None:
    if outside is not None:
        return outside
    ids = inputs["decoder_input_ids"]
    return torch.ones(ids.shape[:2], dtype=torch.bool, device=ids.device) if isinstance(ids, Tensor) else None


def _of_rows(batch: _Batch, x: Tensor, given: Tensor | None = None) -> Tensor | None:
    """Mask of the leading axes of x (…, C), which a module made of `given`."""
    leading = tuple(x.shape[:-1])
    for mask in batch.candidates(x if given is None else given):
        n, length = mask.shape
        if leading[:2] == (n, length):
            return mask.to(x.device)
        if leading == (n * length,):
            return mask.reshape(-1).to(x.device)
        if len(leading) == 3 and (leading[0], leading[2]) == (n, length):
            return mask[:, None, :].expand(leading).to(x.device)
        if len(leading) == 2 and leading == (length, n):
            return mask.t().to(x.device)
    return None


def _of_convolution(batch: _Batch, x: Tensor, given: Tensor | None = None) -> Tensor | None:
    """Mask of the last axis of x (N, C, T), which a module made of `given`."""
    if x.dim() != 3:
        return None
    for mask in batch.candidates(x if given is None else given):
        if tuple(mask.shape) == (x.shape[0], x.shape[2]):
            return mask.to(x.device)
    return None


def _of_routed(batch: _Batch, x: Tensor) -> Tensor | None:
    """Mask of rows (K, C) that are copies of some of the rows of the whole, or stem from the last such ones."""
    if x.dim() != 2:
        return None
    whole = batch.whole.get(x.shape[-1])
    mask = None if whole is None else whole.mask_of(x)
    if mask is not None:
        batch.routed = mask
    elif batch.routed is not None and len(batch.routed) == len(x):
        mask = batch.routed
    is_pooled = mask is not None and any(len(one) == len(x) for one in batch.masks) and not bool(mask.any())
    return None if is_pooled else mask  # one row of each sample: a model may read the one at a padded place


def _shorten(batch: _Batch) -> Any:
    def hook(module: nn.Conv1d, args: tuple[Any, ...], output: Any) -> None:
        x = args[0] if args else None
        if not (isinstance(x, Tensor) and isinstance(output, Tensor) and x.dim() == 3):
            return
        mask = _of_convolution(batch, x)
        if mask is None or output.shape[2] == mask.shape[1]:
            return
        shorter = convolved(mask, module)
        if tuple(shorter.shape) == (output.shape[0], output.shape[2]):
            batch.masks.append(shorter)

    return hook


def _enter(batch: _Batch) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        batch.encoder += 1

    return hook


def _leave(batch: _Batch) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        batch.encoder -= 1
        found = output if isinstance(output, Tensor) else next(iter(_tensors(output)), None)
        batch.encoded = 0 if found is None else found.data_ptr()

    return hook


def _tensors(output: Any) -> Iterator[Tensor]:
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    yield from (part for part in parts if isinstance(part, Tensor))
