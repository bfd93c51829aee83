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
    from ..phases import CostModel
    from ..run import Recorder
    from ..values import SensitivityTable


def planned_seeds(costs: CostModel, table: SensitivityTable | None, recorder: Recorder) -> dict[Candidate, str]:
    """Candidate -> strategies of `[search] plans` that propose it, at the task's limits on costs, else 4 mean bits.

    A plan that cannot be made (nothing within the limits, no table, levels that the space lacks) is noted with its
    reason, and the search goes on without it.

    table  sensitivity table of the search; None where it has none
    """
    found: dict[Candidate, str] = {}
    for strategy in costs.problem.task.search.plans:
        try:
            candidate = _candidate(costs, table, strategy)
        except ParedownError as error:
            recorder.note(f"no plan {strategy}: {error}")
            continue
        if candidate is None:
            recorder.note(
                f"no plan {strategy}: the space lacks its levels; add them, or plan without a search: paredown plan"
            )
            continue
        found[candidate] = f"{found[candidate]}, {strategy}" if candidate in found else strategy
    return found


def _candidate(costs: CostModel, table: SensitivityTable | None, strategy: str) -> Candidate | None:
    problem = costs.problem
    if strategy == "fp16-mse":
        assignment, _ = fp16_mse_assignment(problem, problem.task, THRESHOLD)
        return problem.space.candidate_of(assignment)
    limits, bits = budget_of(costs, None, None)
    return Candidate(levels=BY_LEVELS[strategy](strategy_context_of(costs, limits, bits, lambda: table), SLACK))
