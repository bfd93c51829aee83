"""Several limits at once: the 0-1 programme of one level a group, solved by HiGHS (`scipy.optimize.milp`).

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
RELATIVE_GAP = 1e-4
"""A solution that is proven to be this close to the best is good enough: the table is far less certain."""
TOLERANCE = 1e-6
"""HiGHS's own: by how much of its room a solution may break a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """metrics   name -> (groups, levels); infinity where a level is absent or must not be used
    fixed     name -> what is paid whatever is chosen; 0 if it is not named
    minimise  the metric that is to be small
    limits    name -> (least or None, most or None), of the whole sum
    """

    metrics: Mapping[str, FloatArray]
    minimise: str
    limits: Bounds = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)

    def total(self, name: str, levels: tuple[int, ...]) -> float:
        return float(self.metrics[name][np.arange(len(levels)), levels].sum()) + self.fixed.get(name, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """levels   one a group
    totals   name -> sum, of every metric of the programme
    gap      (value - proven bound) / value: nothing can be better by more than this share
    seconds  wall clock
    status   "optimal" (to `RELATIVE_GAP`), or "time": the best that was found within the time
    """

    levels: tuple[int, ...]
    totals: Mapping[str, float]
    gap: float
    seconds: float
    status: Literal["optimal", "time"]


def solve(programme: Programme, *, time_limit_s: float = TIME_LIMIT_S) -> Solution:
    """Deterministic, except where the time runs out.

    Raises `LimitsNotMet`, which names the least that is in reach, and `ParedownError` if the time was too short for
    any solution at all.
    """
    start = time.perf_counter()
    solution = _solve(programme, time_limit_s)
    if solution is None:
        raise LimitsNotMet(_why_not(programme, time_limit_s))
    return replace(solution, seconds=time.perf_counter() - start)


def least(programme: Programme, name: str) -> float:
    """The least that metric `name` can be, whatever the other limits say."""
    usable = _usable(programme)
    return float(np.where(usable, programme.metrics[name], np.inf).min(axis=1).sum()) + programme.fixed.get(name, 0.0)


def _solve(programme: Programme, time_limit_s: float) -> Solution | None:
    """None if no candidate keeps the limits."""
    kept = _in_room(programme, _worth_having(programme))
    if not kept.any(axis=1).all():
        return None
    margin = 0.0
    while True:
        found = _highs(programme, kept, margin, time_limit_s)
        if found is None or _keeps(programme, found.levels):
            return found
        # within the solver's tolerance, and not within the limits: once more, with less room
        margin = 2 * TOLERANCE if margin == 0.0 else 4 * margin
        if margin > 1e-3:
            raise ParedownError("the solver's answers break the limits; report this with the run's ledger")


def _highs(programme: Programme, kept: NDArray[np.bool_], margin: float, time_limit_s: float) -> Solution | None:
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
    # HiGHS stops at an absolute gap of 1e-6 too: the value must be well above it
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
    """What each kept level pays above the least of its group, shape (kept levels,), and the sum of these least.

    So the solver's tolerance is a share of the room that there is, and not of the whole.
    """
    values = np.where(kept, programme.metrics[name], np.inf)
    lowest = values.min(axis=1)
    return (values - lowest[:, None])[kept], float(lowest.sum()) + programme.fixed.get(name, 0.0)


def _usable(programme: Programme) -> NDArray[np.bool_]:
    """Levels at which every metric is finite."""
    usable = np.logical_and.reduce([np.isfinite(values) for values in programme.metrics.values()])
    if (bad := np.flatnonzero(~usable.any(axis=1))).size:
        raise ParedownError(f"group {int(bad[0])} has no level that could be measured, so nothing can be resolved")
    return np.asarray(usable)


def _worth_having(programme: Programme) -> NDArray[np.bool_]:
    """Without levels that another of their group beats in all that counts; with a lower bound, dearer may be wanted."""
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
    """Without levels that alone, with the least of all other groups, break an upper limit."""
    allowed = kept.copy()
    for name, (_, high) in programme.limits.items():
        if high is not None:
            row, offset = _above_least(programme, name, kept)
            allowed[kept] &= row <= high - offset + _noise(high)
    return allowed


def _noise(total: float) -> float:
    """By how much sums of the same floats in another order may differ."""
    return 1e-9 * abs(total)


def _keeps(programme: Programme, levels: tuple[int, ...]) -> bool:
    for name, (low, high) in programme.limits.items():
        total = programme.total(name, levels)
        noise = _noise(total)
        if (low is not None and total < low - noise) or (high is not None and total > high + noise):
            return False
    return True


def _why_not(programme: Programme, time_limit_s: float) -> str:
    """Which limit is out of reach and what is in reach: alone, else with the others."""
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
    """The same with this metric turned around, so that its least is its most."""
    values = programme.metrics[name]
    return replace(
        programme,
        metrics={**programme.metrics, name: np.where(np.isfinite(values), -values, np.inf)},
        fixed={**programme.fixed, name: -programme.fixed.get(name, 0.0)},
    )


@contextmanager
def _silent() -> Iterator[None]:
    """HiGHS 1.12 leaves a line of its own on the process's stdout now and then, whatever it is told; that is for data.

    The descriptor is turned to /dev/null meanwhile; where there is none, nothing is done.
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
