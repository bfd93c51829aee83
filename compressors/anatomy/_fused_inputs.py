"""Inputs of those weights in an LSTM, a GRU or an `nn.MultiheadAttention` that no hook sees.

A recurrent layer is run again, one of its layers at a time, which is the same arithmetic. An attention is run with an
identity as its output projection; it then returns that projection's input.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def recurrent_inputs(
    module: nn.RNNBase, x: Tensor | PackedSequence, initial: Tensor | tuple[Tensor, Tensor] | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield (parameter's name, its inputs (rows, columns)) for every weight_hh, and for weight_ih from the second layer
    on.

    Padding of a packed sequence is left out.

    x, initial  arguments of the module's call; without an initial state it is zero
    """
    states = _states(module, x, initial)
    if isinstance(x, Tensor) and x.dim() == 2:
        x = x.unsqueeze(0 if module.batch_first else 1)
    for n in range(module.num_layers):
        alone = _alone(module, n)
        if n:
            yield from ((f"weight_ih_l{n}{way}", _rows(x)) for way in _ways(module))
        first = [state.narrow(0, n * len(_ways(module)), len(_ways(module))) for state in states]
        x, _ = alone(x, tuple(first) if len(first) == 2 else first[0])
        outputs, lengths = _padded(x, module.batch_first)
        exists = torch.arange(outputs.shape[1]) < lengths[:, None]
        for d, (way, own) in enumerate(zip(_ways(module), outputs.chunk(len(_ways(module)), dim=-1), strict=True)):
            before = _before(own, first[0][d], lengths, is_reverse=bool(way))
            yield f"weight_hh_l{n}{way}", before[exists.to(before.device)]


def attention_projection_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Input (…, columns) of an attention's output projection in a call with these arguments."""
    projection = cast("nn.Linear", module.out_proj)
    weight, columns = projection.weight, projection.weight.shape[1]
    identity = copy.copy(projection)
    identity._parameters = {
        "weight": nn.Parameter(torch.eye(columns, dtype=weight.dtype, device=weight.device), requires_grad=False),
        "bias": None if projection.bias is None else nn.Parameter(weight.new_zeros(columns), requires_grad=False),
    }
    probe = copy.copy(module)
    probe._modules = {**module._modules, "out_proj": identity}
    probe._forward_pre_hooks, probe._forward_hooks = OrderedDict(), OrderedDict()
    found = probe.forward(*args, **kwargs)
    output: Tensor = found[0] if isinstance(found, tuple) else found
    return output


def _states(
    module: nn.RNNBase, x: Tensor | PackedSequence, initial: Tensor | tuple[Tensor, Tensor] | None
) -> list[Tensor]:
    """Hidden state, and an LSTM's cell state, of all layers: each (layers * directions, batch, size)."""
    hidden = getattr(module, "proj_size", 0) or module.hidden_size
    if initial is None:
        if isinstance(x, PackedSequence):
            batch, like = int(x.batch_sizes[0]), x.data
        else:
            batch, like = (1 if x.dim() == 2 else x.shape[0 if module.batch_first else 1]), x
        sizes = (hidden, module.hidden_size) if isinstance(module, nn.LSTM) else (hidden,)
        return [like.new_zeros(module.num_layers * len(_ways(module)), batch, size) for size in sizes]
    states = list(initial) if isinstance(initial, tuple) else [initial]
    return [state.unsqueeze(1) if state.dim() == 2 else state for state in states]


def _ways(module: nn.RNNBase) -> tuple[str, ...]:
    return ("", "_reverse") if module.bidirectional else ("",)


def _alone(module: nn.RNNBase, n: int) -> nn.RNNBase:
    """Copy of layer n of a recurrent layer, with the same weights. Parametrized weights are read as they are now."""
    weights = {
        f"{part}_l0{way}": weight
        for way in _ways(module)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        if isinstance(weight := getattr(module, f"{part}_l{n}{way}", None), Tensor)
    }
    options: dict[str, Any] = {"proj_size": module.proj_size} if module.proj_size else {}
    kind = nn.LSTM if isinstance(module, nn.LSTM) else nn.GRU
    alone: nn.RNNBase = kind(
        weights["weight_ih_l0"].shape[1], module.hidden_size, bias=module.bias, batch_first=module.batch_first,
        bidirectional=module.bidirectional, device="meta", **options,
    )  # fmt: skip
    for name, weight in weights.items():
        setattr(alone, name, nn.Parameter(weight.detach(), requires_grad=False))
    return alone.eval()


def _padded(x: Tensor | PackedSequence, batch_first: bool) -> tuple[Tensor, Tensor]:
    """(batch, steps, size), and the number of steps of each sequence, on the CPU."""
    if isinstance(x, PackedSequence):
        return pad_packed_sequence(x, batch_first=True)
    x = x if batch_first else x.transpose(0, 1)
    return x, torch.full((x.shape[0],), x.shape[1])


def _rows(x: Tensor | PackedSequence) -> Tensor:
    x = x.data if isinstance(x, PackedSequence) else x
    return x.reshape(-1, x.shape[-1])


def _before(outputs: Tensor, initial: Tensor, lengths: Tensor, *, is_reverse: bool) -> Tensor:
    """State before each step: (batch, steps, size)."""
    before = torch.empty_like(outputs)
    if not is_reverse:
        before[:, 0], before[:, 1:] = initial, outputs[:, :-1]
        return before
    before[:, :-1] = outputs[:, 1:]
    before[torch.arange(len(before)), lengths.to(before.device) - 1] = initial
    return before
