"""Residual blocks that can be dropped: the identity takes the block's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpecError
from ..anatomy import (
    Inputs,
    OutputMasks,
    Outputs,
    forward,
    masked_batch,
    output_masks,
    own_scales,
    packed,
    packed_mask,
    preserved,
    real_logits,
    real_rows,
    real_values,
    temporary_hooks,
)
from ._mask import masked
from ._removal import Removal
from ._trial import Trier

BLOCK_SCORES = ("change", "divergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Residual block by its fqn. `n_outputs` is 0 for a block that returns a tensor, n for a tuple of n (see
    `Removal.skipped`).
    """

    fqn: str
    n_outputs: int

    @property
    def skipped(self) -> dict[str, int]:
        return {self.fqn: self.n_outputs}


def find_blocks(model: nn.Module, inputs: Inputs) -> tuple[tuple[Block, ...], dict[str, str]]:
    """Find blocks and return (blocks, fqn -> reason why one is left alone).

    A block is an entry of a `ModuleList` or `Sequential` that has parts and weights. It ran once and returned a hidden
    state of its input's shape. Each block is tried: the model without it must run, and give another output.
    """
    seen = _watch(model, inputs)
    if not any(record.fits for record in seen.values()):
        return (), {}
    trier = Trier(model, inputs)
    blocks, left = [], {}
    for fqn, record in seen.items():
        if not record.fits:
            left[fqn] = record.reason
            continue
        block = Block(fqn=fqn, n_outputs=record.n_outputs)
        reason = trier.refuse([], skipped=block.skipped)
        if reason is None:
            blocks.append(block)
        else:
            left[fqn] = reason
    return tuple(blocks), left


def score_blocks(
    model: nn.Module, inputs: Inputs, blocks: tuple[Block, ...], method: str = "change", *, class_axis: int = -1,
    mask: str | None = None,
) -> Tensor:  # fmt: skip
    """Scores (len(blocks),) float64; a larger score means a more important block.

    change      mean of 1 - cosine between the hidden state before and after (Men et al. 2024, "block influence")
    divergence  mean KL of the model's outputs (softmax over `class_axis`) from those without the block, in nats; of
                several outputs, their mean squared difference, each over its own variance

    mask  name of the mask among the inputs (`anatomy.positions`): what it hides does not count
    """
    if method == "change":
        with masked_batch(model, inputs, mask):
            seen = _watch(model, inputs)
        return torch.tensor([seen[block.fqn].change for block in blocks], dtype=torch.float64)
    if method != "divergence":
        raise SpecError(f"the score of a block must be one of {', '.join(BLOCK_SCORES)}, got {method!r}")
    with preserved(model):
        whole = forward(model, inputs)
        real = output_masks(whole, inputs, mask, model=model)
        found = []
        for block in blocks:
            with masked(model, Removal(skipped=block.skipped)):
                found.append(_divergence(whole, forward(model, inputs), class_axis, real))
    return torch.tensor(found, dtype=torch.float64)


def _divergence(whole: Outputs, without: Outputs, class_axis: int, real: OutputMasks) -> float:
    if not isinstance(whole, Tensor) or not isinstance(without, Tensor):
        scales = own_scales(whole)
        apart = (packed(whole, scales, real) - packed(without, scales, real)).double().square()
        return float(real_values(apart, packed_mask(whole, scales, real)).mean())
    (p, where), (q, _) = (real_logits(outputs, real.get(""), class_axis) for outputs in (whole, without))
    log_p, log_q = p.double().log_softmax(dim=-1), q.double().log_softmax(dim=-1)
    terms = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return float((terms if where is None else terms[where]).mean())


def weakest_blocks(blocks: tuple[Block, ...], scores: Tensor, count: int) -> dict[str, int]:
    """Choose the `count` least important blocks, as `Removal.skipped`. Raises `SpecError` if none would be left."""
    if not 0 <= count < len(blocks):
        raise SpecError(f"of {len(blocks)} blocks 0 to {len(blocks) - 1} can be dropped, got {count}")
    order = torch.argsort(scores, stable=True).tolist()
    skipped: dict[str, int] = {}
    for index in order[:count]:
        skipped |= blocks[index].skipped
    return skipped


@dataclass(slots=True)
class _Record:
    fits: bool
    reason: str
    n_outputs: int
    change: float
    n_calls: int = 1


def _watch(model: nn.Module, inputs: Inputs) -> Mapping[str, _Record]:
    seen: dict[str, _Record] = {}
    with temporary_hooks() as hooks, preserved(model):
        for parent_fqn, parent in model.named_modules():
            if not isinstance(parent, (nn.ModuleList, nn.Sequential)):
                continue
            for leaf, module in parent.named_children():
                if any(True for _ in module.children()) and any(True for _ in module.parameters()):
                    fqn = f"{parent_fqn}.{leaf}" if parent_fqn else leaf
                    hooks.append(module.register_forward_hook(_hook(fqn, seen), with_kwargs=True))
        forward(model, inputs)
    return seen


def _hook(fqn: str, seen: dict[str, _Record]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if fqn in seen:
            seen[fqn] = _Record(False, "it runs more than once", 0, 0.0)
            return
        before = args[0] if args else next(iter(kwargs.values()), None)
        after = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(before, Tensor) or not isinstance(after, Tensor) or before.shape != after.shape:
            seen[fqn] = _Record(False, "its output has another shape than its input", 0, 0.0)
            return
        axis = 1 if before.ndim == 4 else -1
        if before.ndim != 4:
            before, after = real_rows(before), real_rows(after)
        likeness = functional.cosine_similarity(before.double(), after.double(), dim=axis).mean()
        seen[fqn] = _Record(True, "", len(output) if isinstance(output, tuple) else 0, 1.0 - float(likeness))

    return hook
