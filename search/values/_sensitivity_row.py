"""A row of the sensitivity table, as a worker measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...compressors import LayerSpec
from ._space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The measured effect of one (group, level) alone.

    value   mean divergence from the original's outputs; None if it failed, and then there is a reason
    n       samples that it was measured on; 0 if it failed, or if the ledger is an old one that does not say
    stderr  standard error of the mean; None where it is not known
    passes  cost of the measurement, in samples passed forward through the whole model
    shift   perturbation of the outputs, packed by `pack_values`; None if it was not asked for
    """

    value: float | None
    reason: str | None = None
    n: int = 0
    stderr: float | None = None
    passes: float = 0.0
    shift: str | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Row:
        """Return the row of a record of the ledger. Keys that it lacks have their defaults."""
        return cls(**{name: record[name] for name in cls.__slots__ if name in record})


def base_levels(space: SearchSpace) -> tuple[int, ...]:
    """Return the level of every group while another group is measured: the neutral level, else the dearest."""
    neutral = LayerSpec()
    return tuple(group.levels.index(neutral) if neutral in group.levels else 0 for group in space.groups)
