"""Tables of the result of `paredown resolve`, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _format as fmt
from ._tables import bound, escape, table

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluators import Measurement
    from ..search import Resolution

ALWAYS = ("bytes", "latency_ms")


def resolution_table(found: Resolution) -> Table:
    """Make a table of the candidate and of the best evaluated trial within the same limits.

    A sweep has a row for each budget.
    """
    names = _shown(found)
    single = len(found.points) == 1
    extra = ["gap"] if single else ["gap", "best evaluated"]
    made = table("point", *names, *extra, right=[*names, "gap"])
    for point, best in zip(found.points, found.evaluated, strict=True):
        cells = [
            f"{point.evaluated}, evaluated" if point.evaluated else "predicted",
            *_cells(point.metrics, names),
            _percent(point.gap),
        ]
        if not single:
            cells.append(fmt.DASH if best is None else _brief(best.id, best.metrics))
        made.add_row(*map(escape, cells), style="cyan")
        if single and best is not None and best.id != point.evaluated:
            made.add_row(*map(escape, [f"{best.id} {best.kind}, evaluated", *_cells(best.metrics, names), ""]))
    return made


def notes(found: Resolution) -> list[str]:
    """Make the lines below the table: the limits, the error of the predictions, and what was evaluated."""
    limits = ", ".join(text for name, (low, high) in found.limits.items() if (text := bound(name, low, high)))
    lines = [f"least {found.minimised}" + (f" within {limits}" if limits else "") + f"; device: {found.profile}"]
    lines.append(_trust(found))
    if any(point.status == "time" for point in found.points):
        lines.append("the solver ran out of time: a better candidate may exist, better by the gap at most")
    if len(found.points) == 1:
        (point,), (best,) = found.points, found.evaluated
        if point.evaluated is not None:
            lines.append(f"this very candidate was evaluated: {point.evaluated}")
        if best is None:
            lines.append("no evaluated trial is within these limits")
    return lines + list(found.notes)


def _trust(found: Resolution) -> str:
    if not found.trust:
        return "predicted from the sensitivity table alone, because there are too few trials; the error is not known"
    parts = []
    for name, trust in found.trust.items():
        error = f"a factor of {math.exp(trust.error):.2f}" if name == "divergence" else fmt.value(name, trust.error)
        parts.append(f"{name} by {error} (rank correlation {trust.rank:.2f})")
    n = max(trust.n for trust in found.trust.values())
    return f"predicted, not measured; on {n} held-out trials the prediction missed the " + ", the ".join(parts)


def _shown(found: Resolution) -> list[str]:
    from ..search.report import COSTS

    known = found.points[0].metrics
    qualities = [name for name in known if name not in COSTS]
    return [name for name in dict.fromkeys([*qualities, *ALWAYS, *found.limits]) if name in known]


def _cells(metrics: Mapping[str, Measurement], names: list[str]) -> list[str]:
    return [fmt.measurement(name, metrics.get(name)) for name in names]


def _brief(point_id: str, metrics: Mapping[str, Measurement]) -> str:
    return f"{point_id}: {fmt.measurement('divergence', metrics.get('divergence'))}"


def _percent(gap: float | None) -> str:
    return fmt.DASH if gap is None else f"{100 * gap:.2g} %"
