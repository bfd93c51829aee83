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
    """Whether it is known what a weight inside a recurrent layer or an attention is multiplied with: all but that of an
    LSTM's projection, whose states leave the operator projected alone."""
    return not re.fullmatch(r"weight_hr_l\d+(_reverse)?", fqn.rpartition(".")[2])


def weight_name(fqn: str) -> str:
    """The name in the state_dict of a layer's weight."""
    if is_inner(fqn):
        return fqn
    return f"{fqn}.weight" if fqn else "weight"
