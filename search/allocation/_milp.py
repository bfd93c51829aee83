"""Allocation under several limits: a 0-1 programme of one level a group, solved by HiGHS (`scipy.optimize.milp`).

minimise Σ_g m[g, x_g] over the levels x, with every limited metric, which is a sum over the groups too, in its bounds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ...errors import LimitsNotMet, ParedownError
from ..values import non_dominated

Bounds: TypeAlias = Mapping[str, tuple[float | None, float | None]]

TIME_LIMIT_S = 10.0
"""Default limit of the solver's wall clock, in seconds."""
RELATIVE_GAP = 1e-4
"""The solver stops at a solution that is proven to be this close to the best: the table is far less certain."""
TOLERANCE = 1e-6
"""Tolerance of HiGHS: the share of its room by which a solution may break a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """A problem for `solve`: choose one level a group.

    metrics   name -> (groups, levels); infinity where a level is absent or must not be used
    minimise  name of the metric to minimise
    limits    name -> (least or None, most or None), of the whole sum
    fixed     name -> the part of the sum that no choice changes; 0 if it is not named
    """

    metrics: Mapping[str, FloatArray]
    minimise: str
    limits: Bounds = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)

    def total(self, name: str, levels: tuple[int, ...]) -> float:
        """Return the whole sum of a metric at these levels."""
        return float(self.metrics[name][np.arange(len(levels)), levels].sum()) + self.fixed.get(name, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The levels that `solve` chose, and how close they are to the best.

    levels   one a group
    totals   name -> whole sum, for every metric of the programme
    gap      (value - proven bound) / value: no solution is better by more than this share
    seconds  wall clock
    status   "optimal" (to `RELATIVE_GAP`), or "time": the best solution that was found within the time
    """

    levels: tuple[int, ...]
    totals: Mapping[str, float]
    gap: float
    seconds: float
    status: Literal["optimal", "time"]


def solve(programme: Programme, *, time_limit_s: float = TIME_LIMIT_S) -> Solution:
    """Solve the programme. The result is deterministic, except where the time runs out.

    Raises `LimitsNotMet`, which names the least that is in reach, and `ParedownError` if the time was too short for
    any solution.
    """
    start = time.perf_counter()
    solution = _solve(programme, time_limit_s)
    if solution is None:
        raise LimitsNotMet(_why_not(programme, time_limit_s))
    return replace(solution, seconds=time.perf_counter() - start)


def least(programme: Programme, name: str) -> float:
    """Return the least value of the metric `name`, with every limit ignored."""
    usable = _usable(programme)
    return float(np.where(usable, programme.metrics[name], np.inf).min(axis=1).sum()) + programme.fixed.get(name, 0.0)


def _solve(programme: Programme, time_limit_s: float) -> Solution | None:
    """Return the solution; None if no candidate keeps the limits."""
    kept = _in_room(programme, _worth_having(programme))
    if not kept.any(axis=1).all():
        return None
    margin = 0.0
    while True:
        found = _highs(programme, kept, margin, time_limit_s)
        if found is None or _keeps(programme, found.levels):
            return found
        # the solution is within the solver's tolerance, but breaks a limit: solve again with less room
        margin = 2 * TOLERANCE if margin == 0.0 else 4 * margin
        if margin > 1e-3:
            raise ParedownError("the solver's answers break the limits; report this with the run's ledger")


def _highs(programme: Programme, kept: NDArray[np.bool_], margin: float, time_limit_s: float) -> Solution | None:
    """Solve over the kept levels, with each limit tighter by `margin` of its room; None if that is infeasible."""
    from scipy.optimize import Bounds as VariableBounds
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array

    group, level = np.nonzero(kept)
    n = len(group)
    one_each = csr_array((np.ones(n), (group, np.arange(n))), shape=(len(kept), n))
    constraints = [LinearConstraint(one_each, 1.0, 1.0)]
    for name, (low, high) in programme.limits.items():
        row, offset = _above_least(programme, name, kept)
        room = max(abs(bound - offset) for bound in (low, high) if bound is not None)
        unit = room or float(row.max(initial=0.0)) or 1.0
        constraints.append(
            LinearConstraint(
                (row / unit)[None, :],
                -np.inf if low is None else (low - offset) / unit + margin,
                np.inf if high is None else (high - offset) / unit - margin,
            )
        )
    objective, offset = _above_least(programme, programme.minimise, kept)

    def run(unit: float, *, whole: bool) -> Any:
        with _silent():
            return milp(
                objective / unit,
                integrality=np.full(n, int(whole)),
                bounds=VariableBounds(0.0, 1.0),
                constraints=constraints,
                options={"time_limit": time_limit_s, "mip_rel_gap": RELATIVE_GAP},
            )

    span = float(objective.max(initial=0.0)) or 1.0
    relaxed = run(span, whole=False)
    if relaxed.status == 2:
        return None
    # HiGHS also stops at an absolute gap of 1e-6: the value must be well above it
    unit = max((relaxed.fun or 0.0) * span, 1e-6 * span) / 1000.0
    result = run(unit, whole=True)
    if result.status == 2:
        return None
    if result.x is None:
        raise ParedownError(
            f"the solver found nothing within {time_limit_s:g} s ({result.message}); give it more time, or fewer limits"
        )
    chosen = np.full(kept.shape, -1.0)
    chosen[group, level] = result.x
    levels = tuple(chosen.argmax(axis=1).tolist())
    value = float(objective @ (chosen[group, level] > 0.5)) + offset
    bound = (unit * result.mip_dual_bound if result.mip_dual_bound is not None else 0.0) + offset
    gap = max(0.0, value - bound) / abs(value) if value else 0.0
    return Solution(
        levels=levels,
        totals={name: programme.total(name, levels) for name in programme.metrics},
        gap=gap if gap > 1e-12 else 0.0,
        seconds=0.0,
        status="optimal" if result.status == 0 else "time",
    )


def _above_least(programme: Programme, name: str, kept: NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """Return the excess of each kept level over the least of its group, shape (kept levels,), and the sum of the least.

    This makes the solver's tolerance a share of the room below the limit, not of the whole sum.
    """
    values = np.where(kept, programme.metrics[name], np.inf)
    lowest = values.min(axis=1)
    return (values - lowest[:, None])[kept], float(lowest.sum()) + programme.fixed.get(name, 0.0)


def _usable(programme: Programme) -> NDArray[np.bool_]:
    """Return the mask of levels at which every metric is finite. Raises `ParedownError` for a group without any."""
    usable = np.logical_and.reduce([np.isfinite(values) for values in programme.metrics.values()])
    if (bad := np.flatnonzero(~usable.any(axis=1))).size:
        raise ParedownError(f"group {int(bad[0])} has no level that could be measured, so nothing can be resolved")
    return np.asarray(usable)


def _worth_having(programme: Programme) -> NDArray[np.bool_]:
    """Return the mask of usable levels that no other level of the group dominates in the objective and the limits.

    With a lower bound on any metric all usable levels are kept, because a higher cost may be wanted.
    """
    usable = _usable(programme)
    if any(low is not None for low, _ in programme.limits.values()):
        return usable
    names = list(dict.fromkeys([programme.minimise, *programme.limits]))
    kept = np.zeros_like(usable)
    for g, there in enumerate(usable):
        levels = np.flatnonzero(there)
        points = np.column_stack([programme.metrics[name][g, levels] for name in names])
        _, first = np.unique(points, axis=0, return_index=True)
        first = np.sort(first)
        kept[g, levels[first[non_dominated(points[first])]]] = True
    return kept


def _in_room(programme: Programme, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove levels that break an upper limit even with the least of all other groups."""
    allowed = kept.copy()
    for name, (_, high) in programme.limits.items():
        if high is not None:
            row, offset = _above_least(programme, name, kept)
            allowed[kept] &= row <= high - offset + _noise(high)
    return allowed


def _noise(total: float) -> float:
    """Return the difference that another order of summation may make."""
    return 1e-9 * abs(total)


def _keeps(programme: Programme, levels: tuple[int, ...]) -> bool:
    """Say whether the levels keep every limit."""
    for name, (low, high) in programme.limits.items():
        total = programme.total(name, levels)
        noise = _noise(total)
        if (low is not None and total < low - noise) or (high is not None and total > high + noise):
            return False
    return True


def _why_not(programme: Programme, time_limit_s: float) -> str:
    """Describe which limit is out of reach and what is in reach: each limit alone first, then with the others."""
    for name, (low, high) in programme.limits.items():
        reach = least(programme, name)
        if high is not None and reach > high:
            return f"{name} <= {high:.6g} is out of reach: the least that this space allows is {reach:.6g}"
        most = -least(_negated(programme, name), name)
        if low is not None and most < low:
            return f"{name} >= {low:.6g} is out of reach: the most that this space allows is {most:.6g}"
    parts = []
    for name, (low, high) in programme.limits.items():
        others = {other: bounds for other, bounds in programme.limits.items() if other != name}
        asked = programme if high is not None else _negated(programme, name)
        best = _solve(replace(asked, minimise=name, limits=others), time_limit_s)
        if best is not None:
            bound, word = (high, "at least") if high is not None else (low, "at most")
            parts.append(f"with the others kept, {name} is {word} {abs(best.totals[name]):.6g}, not {bound:.6g}")
    names = " and ".join(programme.limits)
    return f"the limits on {names} can be met each, and not together" + "".join(f"; {part}" for part in parts)


def _negated(programme: Programme, name: str) -> Programme:
    """Return the programme with this metric negated, so that its least is its most."""
    values = programme.metrics[name]
    return replace(
        programme,
        metrics={**programme.metrics, name: np.where(np.isfinite(values), -values, np.inf)},
        fixed={**programme.fixed, name: -programme.fixed.get(name, 0.0)},
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep HiGHS off the stdout of the process, which is for data: version 1.12 sometimes prints a line there.

    The descriptor points to /dev/null meanwhile. Where there is no descriptor, nothing is done.
    """
    try:
        sys.stdout.flush()
        saved = os.dup(1)
    except (OSError, ValueError, AttributeError):
        yield
        return
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        yield
    finally:
        libc.fflush(None)
        os.dup2(saved, 1)
        os.close(saved)
