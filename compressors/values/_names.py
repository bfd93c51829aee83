"""Names of weights in the state_dict, and the layers that they belong to. Imports no torch."""

from __future__ import annotations

import re

GATES = re.compile(r"weight_(ih|hh|hr)_l\d+(_reverse)?")
"""Parameters of a recurrent layer."""
PROJECTIONS = re.compile(r"(in|q|k|v)_proj_weight")
"""Parameters of an `nn.MultiheadAttention`."""


def is_inner(fqn: str) -> bool:
    """Tell whether the name is that of a weight inside a recurrent layer or an attention, not of a module."""
    leaf = fqn.rpartition(".")[2]
    return bool(GATES.fullmatch(leaf) or PROJECTIONS.fullmatch(leaf))


def sees_inputs(fqn: str) -> bool:
    """Tell whether the inputs of a weight inside a recurrent layer or an attention can be computed.

    They can for every weight except an LSTM's projection, whose states leave the operator only after it was applied.
    """
    return not re.fullmatch(r"weight_hr_l\d+(_reverse)?", fqn.rpartition(".")[2])


def weight_name(fqn: str) -> str:
    """Name in the state_dict of a layer's weight."""
    if is_inner(fqn):
        return fqn
    return f"{fqn}.weight" if fqn else "weight"
