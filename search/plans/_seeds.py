"""Plans as the first proposals of a search, evaluated like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ParedownError
from ..values import Candidate
from ._budget import budget_of
from ._context import strategy_context_of
from ._fp16_mse import THRESHOLD, fp16_mse_assignment
from ._strategies import BY_LEVELS, SLACK

if TYPE_CHECKING:
    from ..phases import SearchSession
    from ..values import SensitivityTable


def planned_seeds(session: SearchSession, table: SensitivityTable | None) -> dict[Candidate, str]:
    """Candidate -> the strategies of `[search] plans` that propose it, at the task's limits on costs, else 4 mean bits.

    A plan that cannot be made (nothing within the limits, no table, levels that the space lacks) is noted with its
    reason, and the search goes on without it.
    """
    found: dict[Candidate, str] = {}
    for strategy in session.task.search.plans:
        try:
            candidate = _candidate(session, table, strategy)
        except ParedownError as error:
            session.recorder.note(f"no plan {strategy}: {error}")
            continue
        if candidate is None:
            session.recorder.note(
                f"no plan {strategy}: the space lacks its levels; add them, or plan without a search: paredown plan"
            )
            continue
        found[candidate] = f"{found[candidate]}, {strategy}" if candidate in found else strategy
    return found


def _candidate(session: SearchSession, table: SensitivityTable | None, strategy: str) -> Candidate | None:
    problem = session.problem
    if strategy == "fp16-mse":
        assignment, _ = fp16_mse_assignment(problem, session.task, THRESHOLD)
        return problem.space.candidate_of(assignment)
    limits, bits = budget_of(session, None, None)
    return Candidate(levels=BY_LEVELS[strategy](strategy_context_of(session, limits, bits, table), SLACK))
