"""Output perturbations on their way through the ledger: measured by workers, assembled for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..values import OutputPerturbations, SearchSpace, base_levels, pack_values, unpack_values

if TYPE_CHECKING:
    from ...evaluators.sensitivity import OutputFrame
    from ._state import State


def frame_record(frame: OutputFrame) -> dict[str, Any]:
    """Return the ledger's record of the reference outputs that the rows' shifts are measured against."""
    return {
        "type": "frame", "kind": frame.kind, "n": frame.n, "bins": int(frame.reference.shape[1]),
        "reference": pack_values(frame.reference.reshape(-1)),
    }  # fmt: skip


def perturbations_of(state: State, space: SearchSpace) -> OutputPerturbations | None:
    """Return the direction in which each (group, level) moves the outputs, as far as the ledger says.

    A (group, level) without a measured shift is NaN. None where the ledger has no reference outputs (an old ledger), or
    where less than half of the rows have a shift.
    """
    frame, rows = state.frame, state.row_facts
    known = {key: unpack_values(row.shift) for key, row in rows.items() if row.shift is not None}
    if frame is None or 2 * len(known) < len(rows) or not known:
        return None
    reference = unpack_values(frame["reference"]).reshape(-1, frame["bins"])
    base_level = base_levels(space)
    of_base = np.zeros(reference.size, dtype=np.float32)
    for g, level in enumerate(base_level):
        if (g, level) in known:
            of_base = known[g, level]
            break
    found = []
    for g, group in enumerate(space.groups):
        shifts = np.full((len(group.levels), reference.size), np.nan, dtype=np.float32)
        for level in range(len(group.levels)):
            if (g, level) in known:
                shifts[level] = known[g, level] - of_base
        shifts[base_level[g]] = 0.0
        found.append(shifts)
    return OutputPerturbations(kind=frame["kind"], reference=reference, base=of_base, rows=tuple(found))
