"""Rounding of attention's two products, q·kᵀ and scores·v.

PyTorch computes both, and the softmax between them, in one operator, in which nothing can be rounded. Here the operator
is replaced by its parts.

Paper      Vaswani et al. 2017, "Attention Is All You Need", 3.2.1
We differ  the scores are softmax's own output, before the product; the softmax itself stays in FP32
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..quantization import fake_quantize

ATTENTION = functional.scaled_dot_product_attention
SOFTMAXES = (functional.softmax, torch.softmax, Tensor.softmax)
MATRIX_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)

OnScores = Callable[[Tensor], Tensor]


def is_plain(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> bool:  # fmt: skip
    """Tell whether a call of PyTorch's attention computes softmax(q·kᵀ·scale)·v and nothing else."""
    return attn_mask is None and not dropout_p and not is_causal and not enable_gqa


def plain_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, on_scores: OnScores) -> Tensor:
    """Compute softmax(q·kᵀ·scale)·v for (…, tokens, channels), with the scores replaced by `on_scores(scores)`."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (torch.matmul(query, key.transpose(-1, -2)) * factor).softmax(dim=-1)
    return torch.matmul(on_scores(scores), value)


class _Scores(TorchFunctionMode):
    """Mode inside which the scores of attention pass through `on_scores`."""

    def __init__(self, on_scores: OnScores) -> None:
        super().__init__()
        self._on_scores = on_scores

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ATTENTION and is_plain(*args, **kwargs):
            query, key, value = (
                args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value"))
            )
            return plain_attention(query, key, value, scale=kwargs.get("scale"), on_scores=self._on_scores)
        output = func(*args, **kwargs)
        return self._on_scores(output) if func in SOFTMAXES else output


class ScoresQuantizer:
    """Rounds scores to the grid. A plain object, so that models can be deep-copied.

    straight_through  where gradients are taken, the scores' gradient passes as if they were not rounded
    """

    def __init__(self, scale: float, zero_point: int, bits: int = 8, *, straight_through: bool = False) -> None:
        self.scale, self.zero_point, self.bits = scale, zero_point, bits
        self.straight_through = straight_through

    def __call__(self, scores: Tensor) -> Tensor:
        rounded = fake_quantize(scores, self.scale, self.zero_point, self.bits)
        if not self.straight_through or not torch.is_grad_enabled():
            return rounded
        return scores + (rounded - scores).detach()


class _Around:
    """Pair of hooks that keep a mode active during the module's call, also where the call raises."""

    def __init__(self, on_scores: OnScores) -> None:
        self._on_scores = on_scores
        self._open: list[ExitStack] = []

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        stack = ExitStack()
        stack.enter_context(_Scores(self._on_scores))
        self._open.append(stack)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self._open:
            self._open.pop().close()


def hook_scores(module: nn.Module, on_scores: OnScores) -> list[RemovableHandle]:
    """Route the scores of attention in this module's own forward through `on_scores`, until the handles are removed."""
    around = _Around(on_scores)
    return [
        module.register_forward_pre_hook(around.enter),
        module.register_forward_hook(around.leave, always_call=True),
    ]
