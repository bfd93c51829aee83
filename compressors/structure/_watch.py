"""Observation of attention in a forward pass: the linear layers that ran before and after each softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..anatomy import Inputs, forward, preserved, real_rows, temporary_hooks


@dataclass(frozen=True, slots=True)
class Ran:
    """Linear layer that ran."""

    fqn: str
    n_in: int
    n_out: int


@dataclass(frozen=True, slots=True)
class Attended:
    """Attention that ran: query heads, width of a head where it is known, and the mean entropy of each head in nats.

    entropy  (heads,); empty unless requested
    """

    n_heads: int
    head_dim: int | None
    entropy: Tensor


Event = Ran | Attended
_SOFTMAX = {torch.softmax, torch.nn.functional.softmax, Tensor.softmax}


class _Watcher(TorchFunctionMode):
    def __init__(self, note: Callable[[Event], None], entropy: bool) -> None:
        super().__init__()
        self.note, self.entropy, self.depth = note, entropy, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].ndim == 4:
            entropy = _sdpa_entropy(args, kwargs) if self.entropy else torch.empty(0)
            self.note(Attended(args[0].shape[1], args[0].shape[-1], entropy))
        elif func in _SOFTMAX and isinstance(result, Tensor) and result.ndim == 4:
            entropy = _entropy(result) if self.entropy else torch.empty(0)
            self.note(Attended(result.shape[1], None, entropy))
        return result


def watch(model: nn.Module, inputs: Inputs, *, entropy: bool = False) -> list[Event]:
    """Layers and attentions in the order in which they ran. Operations inside `nn.MultiheadAttention` are left out."""
    events: list[Event] = []
    inside: list[str] = []

    def note(event: Event) -> None:
        if not inside:
            events.append(event)

    def ran(fqn: str) -> Any:
        def hook(module: nn.Linear, args: Any, output: Any) -> None:
            note(Ran(fqn, module.in_features, module.out_features))

        return hook

    with temporary_hooks() as hooks:
        for fqn, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                hooks.append(module.register_forward_pre_hook(lambda *_, fqn=fqn: inside.append(fqn)))
                hooks.append(module.register_forward_hook(lambda *_: (inside.pop(), None)[1]))
            elif isinstance(module, nn.Linear):
                hooks.append(module.register_forward_hook(ran(fqn)))
        with preserved(model), _Watcher(note, entropy):
            forward(model, inputs)
    # softmax inside an attention function is seen twice by some versions: once as itself, once by its method
    return [event for i, event in enumerate(events) if i == 0 or not _same(event, events[i - 1])]


def _same(event: Event, before: Event) -> bool:
    return isinstance(event, Attended) and isinstance(before, Attended) and event.n_heads == before.n_heads


def _sdpa_entropy(args: Any, kwargs: dict[str, Any]) -> Tensor:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, args, strict=False)) | kwargs
    q, k, mask = given["query"], given["key"], given.get("attn_mask")
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = q.float() @ k.float().transpose(-2, -1) * (given.get("scale") or q.shape[-1] ** -0.5)
    if given.get("is_causal"):
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return _entropy(logits.softmax(dim=-1))


def _entropy(weights: Tensor) -> Tensor:
    """Entropies (heads,) in nats of attention (N, heads, L, S), whose rows sum to one."""
    each = -torch.xlogy(weights, weights).sum(dim=-1)
    real = real_rows(each, 1)
    return (real.mean(dim=0) if real.dim() == 2 else each.mean(dim=(0, 2))).detach().double().cpu()
