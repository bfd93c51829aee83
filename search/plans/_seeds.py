"""Plans as the first proposals of a search, evaluated like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ParedownError
from ..values import Candidate
from ._budget import budget_of
from ._context import ground_of
from ._fp16_mse import THRESHOLD, fp16_mse_assignment
from ._strategies import BY_LEVELS, SLACK

if TYPE_CHECKING:
    from ..phases import Sitting
    from ..values import SensitivityTable


def planned_seeds(sitting: Sitting, table: SensitivityTable | None) -> dict[Candidate, str]:
    """Candidate -> the strategies of `[search] plans` that propose it, at the task's limits on costs, else 4 mean bits.

    A plan that cannot be made (nothing within the limits, no table, levels that the space lacks) is noted with its
    reason, and the search goes on without it.
    """
    found: dict[Candidate, str] = {}
    for strategy in sitting.task.search.plans:
        try:
            candidate = _candidate(sitting, table, strategy)
        except ParedownError as error:
            sitting.recorder.note(f"no plan {strategy}: {error}")
            continue
        if candidate is None:
            sitting.recorder.note(
                f"no plan {strategy}: the space lacks its levels; add them, or plan without a search: paredown plan"
            )
            continue
        found[candidate] = f"{found[candidate]}, {strategy}" if candidate in found else strategy
    return found


def _candidate(sitting: Sitting, table: SensitivityTable | None, strategy: str) -> Candidate | None:
    prepared = sitting.prepared
    if strategy == "fp16-mse":
        assignment, _ = fp16_mse_assignment(prepared, sitting.task, THRESHOLD)
        return prepared.space.candidate_of(assignment)
    limits, bits = budget_of(sitting, None, None)
    return Candidate(levels=BY_LEVELS[strategy](ground_of(sitting, limits, bits, table), SLACK))
