"""Which tensor of the state_dict a layer's name stands for. Imports no torch."""

from __future__ import annotations

import re

GATES = re.compile(r"weight_(ih|hh|hr)_l\d+(_reverse)?")
"""Parameters of a recurrent layer."""
PROJECTIONS = re.compile(r"(in|q|k|v)_proj_weight")
"""Parameters of an `nn.MultiheadAttention`."""


def is_inner(fqn: str) -> bool:
    """Whether this names a weight inside a recurrent layer or an attention rather than a module."""
    leaf = fqn.rpartition(".")[2]
    return bool(GATES.fullmatch(leaf) or PROJECTIONS.fullmatch(leaf))


def sees_inputs(fqn: str) -> bool:
    """Whether what an inner weight is multiplied with enters the module from outside: the first layer's weight_ih, and
    the projections of queries, keys and values. Hidden states and what an attention gives to its out_proj do not."""
    leaf = fqn.rpartition(".")[2]
    return bool(re.fullmatch(r"weight_ih_l0(_reverse)?", leaf) or PROJECTIONS.fullmatch(leaf))


def weight_name(fqn: str) -> str:
    """The name in the state_dict of a layer's weight."""
    if is_inner(fqn):
        return fqn
    return f"{fqn}.weight" if fqn else "weight"
