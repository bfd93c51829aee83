"""Attention with fewer heads than its width would hold, which `nn.MultiheadAttention` cannot express."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpecError


def can_narrow(module: nn.MultiheadAttention) -> str | None:
    """Reason why an attention cannot be narrowed, as a clause; None if it can."""
    if module.in_proj_weight is None:
        return "its keys or values have a width of their own"
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds keys and values of its own (bias_k, add_zero_attn)"
    return None


class NarrowAttention(nn.Module):
    """`nn.MultiheadAttention` in eval mode, under the same names, whose heads need not fill the model's width.

    in_proj_weight (3 * heads * head_dim, width), out_proj (width, heads * head_dim). No dropout.
    """

    is_multihead_attention = True

    def __init__(self, head_dim: int, batch_first: bool) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.batch_first = batch_first
        self._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer off the kernel that asks for equal widths
        self.in_proj_weight: nn.Parameter
        self.in_proj_bias: nn.Parameter | None
        self.out_proj: nn.Linear

    @property
    def num_heads(self) -> int:
        return self.in_proj_weight.shape[0] // (3 * self.head_dim)

    @classmethod
    def of(cls, module: nn.Module) -> NarrowAttention:
        """Make one from an `nn.MultiheadAttention` whose tensors were cut before, or from a narrow one."""
        if isinstance(module, NarrowAttention):
            return module
        if not isinstance(module, nn.MultiheadAttention):
            raise SpecError(f"a narrow attention is made of nn.MultiheadAttention, got {type(module).__name__}")
        if (reason := can_narrow(module)) is not None:
            raise SpecError(f"this attention cannot lose heads: {reason}")
        narrow = cls(int(module.head_dim), module.batch_first)
        assert isinstance(module.in_proj_weight, nn.Parameter)
        narrow.in_proj_weight = module.in_proj_weight
        narrow.register_parameter("in_proj_bias", module.in_proj_bias)
        out = module.out_proj
        kind = nn.modules.linear.NonDynamicallyQuantizableLinear  # as in `nn.MultiheadAttention`
        plain = kind(out.weight.shape[1], out.weight.shape[0], bias=False, device="meta")
        plain.weight = out.weight
        plain.register_parameter("bias", out.bias)
        narrow.out_proj = plain
        return narrow

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Compute attention like `nn.MultiheadAttention.forward`, for batches: (N, L, E), or (L, N, E) without
        `batch_first`.
        """
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self._biases(), strict=True)
        q, k, v = (self._split(functional.linear(x, weight, bias)) for x, weight, bias in parts)
        mask = _merged(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights:
            logits = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = (logits if mask is None else logits + mask).softmax(dim=-1)
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1), weights

    def _biases(self) -> Any:
        return (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)

    def _split(self, x: Tensor) -> Tensor:
        """Reshape (N, L, heads * head_dim) to (N, heads, L, head_dim)."""
        heads: Tensor = x.unflatten(2, (-1, self.head_dim))
        return heads.transpose(1, 2)


def _merged(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """Combined mask, added to the logits, (…, L, S). A mask of booleans is True where attention is forbidden."""
    mask = None
    if attn_mask is not None:
        if attn_mask.ndim == 3:  # (N * heads, L, S) names heads that may be gone
            raise SpecError("an attention that has lost heads takes masks of two axes only, (L, S)")
        mask = _additive(attn_mask, q.dtype)
    if padding is not None:
        padding = _additive(padding, q.dtype)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))
