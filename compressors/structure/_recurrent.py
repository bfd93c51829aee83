"""Units of LSTM, GRU and plain recurrent layers as coupled sets.

All layers and directions of one `nn.RNNBase` have the same width, so a unit has the same number in each of them.
Readers are found by probing: the unit's outputs are set to NaN, and the layers after it show the channels in which NaN
arrives. A masked unit is exactly zero: its cell starts at zero and nothing is ever added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Inputs, forward, preserved, temporary_hooks
from ..values import StructuralName
from ._sets import CoupledSet, Member

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_READERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)


def recurrent_sets(model: nn.Module, inputs: Inputs) -> tuple[list[CoupledSet], dict[str, str]]:
    """Find sets and return (sets, name -> reason why a recurrent layer is left alone)."""
    sets, left = [], {}
    for fqn, module in model.named_modules():
        if not isinstance(module, nn.RNNBase):
            continue
        name = str(StructuralName("units", fqn or "model"))
        if getattr(module, "proj_size", 0):
            left[name] = "an LSTM with projections is left alone"
            continue
        if module.hidden_size < 2:
            continue
        readers = _readers(model, inputs, fqn, module)
        if isinstance(readers, str):
            left[name] = readers
            continue
        sets.append(
            CoupledSet(name=name, kind="units", n_units=module.hidden_size, members=(*_own(fqn, module), *readers))
        )
    return sets, left


def _own(fqn: str, module: nn.RNNBase) -> list[Member]:
    size, gates = module.hidden_size, _GATES[module.mode]
    offsets = tuple(gate * size for gate in range(gates))
    inner = (0, size) if module.bidirectional else (0,)
    members = []
    for layer in range(module.num_layers):
        for end in ("", "_reverse") if module.bidirectional else ("",):
            leaves = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
            members += [Member(tensor=_join(fqn, f"{leaf}_l{layer}{end}"), axis=0, offsets=offsets) for leaf in leaves]
            members.append(Member(tensor=_join(fqn, f"weight_hh_l{layer}{end}"), axis=1, role="reads"))
            if layer > 0:
                members.append(
                    Member(tensor=_join(fqn, f"weight_ih_l{layer}{end}"), axis=1, offsets=inner, role="reads")
                )
    return members


def _readers(model: nn.Module, inputs: Inputs, fqn: str, module: nn.RNNBase) -> list[Member] | str:
    n = module.hidden_size
    seen = {unit: _probe(model, inputs, module, unit) for unit in sorted({0, 1, n - 1})}
    if not seen[0]:
        return "no layer was seen to read it"
    members = []
    for reader in seen[0]:
        if any(reader not in seen[unit] for unit in seen):
            return f"{reader} reads some of its units only"
        first = seen[0][reader]
        offsets = tuple(p for p in first if p - 1 not in first)
        width = len(first) // len(offsets)
        for unit, places in seen.items():
            if places[reader] != sorted(o + unit * width + k for o in offsets for k in range(width)):
                return f"{reader} mixes its units before it reads them"
        other = model.get_submodule(reader)
        if isinstance(other, nn.RNNBase):
            ends = ("", "_reverse") if other.bidirectional else ("",)
            leaves = [f"weight_ih_l0{end}" for end in ends]
        else:
            leaves = ["weight"]
        members += [
            Member(tensor=_join(reader, leaf), axis=1, offsets=offsets, width=width, role="reads") for leaf in leaves
        ]
    return members


def _probe(model: nn.Module, inputs: Inputs, source: nn.RNNBase, unit: int) -> dict[str, list[int]]:
    """fqn of each layer that reads this unit directly -> the input channels in which it does."""
    found: dict[str, list[int]] = {}
    directions = 2 if source.bidirectional else 1
    n = source.hidden_size

    def poison(module: nn.Module, args: Any, output: Any) -> Any:
        sequence, state = output
        if isinstance(sequence, nn.utils.rnn.PackedSequence):
            data = sequence.data.clone()
            data[..., [unit + d * n for d in range(directions)]] = float("nan")
            sequence = sequence._replace(data=data)
        else:
            sequence = sequence.clone()
            sequence[..., [unit + d * n for d in range(directions)]] = float("nan")
        return sequence, tuple(map(spoil, state)) if isinstance(state, tuple) else spoil(state)

    def spoil(state: Tensor) -> Tensor:
        state = state.clone()
        state[..., unit] = float("nan")
        return state

    def reading(fqn: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            x = args[0].data if isinstance(args[0], nn.utils.rnn.PackedSequence) else args[0]
            axis = 1 if isinstance(module, nn.modules.conv._ConvNd) else x.ndim - 1
            others = [i for i in range(x.ndim) if i != axis]
            channels = torch.isnan(x).any(dim=tuple(others)) if others else torch.isnan(x)
            if not bool(channels.any()):
                return None
            found.setdefault(fqn, channels.nonzero()[:, 0].tolist())
            return _clean(output)  # what comes after reads it only through this layer

        return hook

    with temporary_hooks() as hooks, preserved(model):
        hooks.append(source.register_forward_hook(poison))
        for fqn, module in model.named_modules():
            if isinstance(module, _READERS) and module is not source:
                hooks.append(module.register_forward_hook(reading(fqn)))
        forward(model, inputs)
    return found


def _clean(output: Any) -> Any:
    if isinstance(output, Tensor):
        return torch.nan_to_num(output)
    if isinstance(output, nn.utils.rnn.PackedSequence):
        return output._replace(data=torch.nan_to_num(output.data))
    return tuple(_clean(part) for part in output)


def _join(fqn: str, leaf: str) -> str:
    return f"{fqn}.{leaf}" if fqn else leaf
