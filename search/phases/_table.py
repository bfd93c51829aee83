"""The table phase: a first guess from gradients, the rows in the order of their use, and more samples where needed.

A row that lies on the sweep and is not known well enough is measured again on more samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..allocation import lower_hull, sweep
from ..evaluation import EstimateSensitivity, LevelCosts, MeasureRows, Outcome, output_frame
from ..problem import Problem
from ..run import Guess, Key, Recorder, State, assemble, frame_record, perturbations_of
from ..searchers import uses_table
from ..space import dominated_levels, relevant_costs, unpromising_levels
from ..values import Limits, Row, SearchSpace, SensitivityTable, base_levels
from ._clock import Clock
from ._cost_model import CostModel, guide_on_every_device
from ._job_runner import JobRunner
from ._table_rows import USUAL_PART, affordable_rows

Work: TypeAlias = list[tuple[int, list[int]]]
"""Groups, each with the levels to be measured in one job."""


class Unpromising(Protocol):
    """Finds the (group, level) that the guess speaks clearly against; `unpromising_levels` is one."""

    def __call__(
        self,
        space: SearchSpace,
        guess: Sequence[Sequence[float | None]],
        costs: LevelCosts,
        names: Sequence[str],
        *,
        factor: float,
    ) -> set[Key]: ...


class Unsure(Protocol):
    """Finds the rows to measure again; `unsure_rows` is one."""

    def __call__(self, table: SensitivityTable, costs: Sequence[str]) -> list[Key]: ...


def unsure_rows(table: SensitivityTable, costs: Sequence[str], *, share: float = 0.25) -> list[Key]:
    """Return the rows on the table's sweep with a large standard error, those first that matter in most of it.

    costs  names of the costs that the search looks at
    share  standard errors above this share of the row's value are large
    """
    if not costs or not all(any(map(math.isfinite, row)) for row in table.divergence):
        return []
    weights: list[str | dict[str, float]] = list(costs)
    if len(costs) > 1:
        spans = {name: sum(max(row) - min(row) for row in table.costs[name]) or 1.0 for name in costs}
        weights.append({name: 1.0 / span for name, span in spans.items()})
    used: Counter[Key] = Counter()
    for weight in weights:
        for candidate in sweep(table, weight, finer=False):
            used.update(enumerate(candidate))
    error = {key: _relative_error(table, key) for key in used}
    found = [key for key in used if error[key] > share]
    return sorted(found, key=lambda key: (-used[key] * error[key], key))


def _relative_error(table: SensitivityTable, key: Key) -> float:
    g, level = key
    value, stderr = table.divergence[g][level], table.stderr[g][level] if table.stderr else math.nan
    return stderr / value if math.isfinite(stderr) and math.isfinite(value) and value > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePolicy:
    """Rules for what is measured, and on how many samples.

    estimate_samples   samples that the first guess looks at
    unpromising        skip a level if the guess of another one, no dearer, is less by this factor. On ResNet-20 the
                       guess is off by a factor of 1.4 (one standard deviation)
    unpromising_still  measure a skipped level after all unless the other one, as measured since, is less by this factor
    share              share of the search's cost that the table may have: of all trials, each on the whole split. Fewer
                       samples are used where it would cost more, and fewer rows are measured where these would be less
                       than `least_samples`. The remainder of a whole table goes into the rows of the sweep
    least_samples      least number of samples of a row. On ResNet-44 rows of 32 samples are no better than the guess,
                       and rows of 8 are far worse
    refined            a row is measured again on so many times the table's samples, as far as the split goes
    refine_share       share of the table's cost that measuring again may have. Where samples were saved it may have the
                       rest of `share`
    refine_trials      most full evaluations that measuring again may cost
    find_unpromising   finds the levels to skip
    find_unsure        finds the rows to measure again
    """

    estimate_samples: int = 16
    unpromising: float = 3.0
    unpromising_still: float = 1.5
    share: float = 0.2
    least_samples: int = 32
    refined: int = 4
    refine_share: float = 0.1
    refine_trials: int = 4
    find_unpromising: Unpromising = unpromising_levels
    find_unsure: Unsure = unsure_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInputs:
    """Everything that the table phase uses.

    costs     cost model of the space
    limits    metric -> (least or None, most or None), in absolute figures
    runner    runs the jobs, within the budget
    recorder  keeps the rows, and reads those that were measured before
    """

    costs: CostModel
    limits: Limits
    runner: JobRunner
    recorder: Recorder
    policy: TablePolicy = field(default_factory=TablePolicy)

    @property
    def problem(self) -> Problem:
        """The problem that the costs are of."""
        return self.costs.problem

    @property
    def state(self) -> State:
        """State of the run, with the rows so far."""
        return self.recorder.state

    @property
    def clock(self) -> Clock:
        """Clock of the search."""
        return self.runner.clock

    @property
    def wanted(self) -> list[Key]:
        """Every (group, level) but those that leave a group alone."""
        groups = self.problem.space.groups
        return [(g, i) for g, group in enumerate(groups) for i, spec in enumerate(group.levels) if not spec.is_neutral]

    @property
    def relevant(self) -> list[str]:
        """Names of the costs that are objectives or have a limit, on all devices."""
        names = [objective.name for objective in guide_on_every_device(self.problem)]
        return relevant_costs(names, self.limits, self.costs.rows)

    def without_row(self, keys: Iterable[Key]) -> list[Key]:
        """Keys that no row is known of."""
        return [key for key in keys if key not in self.state.rows]


def measure_table(inputs: TableInputs, evaluations: float | None = None) -> SensitivityTable | None:
    """Measure the divergence of each (group, level) alone, all other groups left alone or at their dearest level.

    A row that fails is infinite, so that no searcher wants it. Rows that the table's share of the budget does not pay
    for, and those that the time did not suffice for, are filled in from the first guess. Returns None if the searcher
    uses no table, or if the time was up and there is no guess.

    evaluations  cost of the whole search, in full evaluations; default: the trials of its budget
    """
    task, state, policy = inputs.problem.task, inputs.state, inputs.policy
    if not uses_table(task.search.searcher, task.search.params):
        return None
    with inputs.recorder.watch.charge("table"):
        missing = inputs.without_row(inputs.wanted)
        guess = _estimate(inputs) if missing else _known_guess(inputs)
        skipped = _unpromising(inputs, guess, policy.unpromising)
        passes = policy.share * len(inputs.problem.context.split) * (evaluations or task.budget.trials)
        passes -= _passes_of_guess(inputs)
        chosen, n_samples = _affordable(inputs, guess, skipped, passes)
        is_whole = len(chosen) == len(inputs.wanted) - len(skipped)
        if missing and chosen:
            _record_frame(inputs, n_samples)
        _measure_missing(inputs, chosen, guess, n_samples)
        table = _assemble(inputs, guess, n_samples)
        if skipped and is_whole:
            skipped &= _unpromising(inputs, table.divergence, policy.unpromising_still)
            chosen = [key for key in inputs.wanted if key not in skipped]
            _measure_missing(inputs, chosen, guess, n_samples)
            table = _assemble(inputs, guess, n_samples)
        if missing := inputs.without_row(chosen):
            if guess is None:
                return None
            inputs.recorder.note(
                f"the time was up before the whole sensitivity table was measured: {len(missing)} of its "
                f"{len(chosen)} rows are estimates from gradients"
            )
            return table
        if is_whole and _refine(inputs, table, n_samples, passes):
            table = _assemble(inputs, guess, n_samples)
    if state.dropped is None and not inputs.clock.out_of_time:
        _record_dropped(inputs, table, skipped)
    return table


def _record_dropped(inputs: TableInputs, table: SensitivityTable, skipped: set[Key]) -> None:
    """Decide once for the run which levels the searcher does without."""
    dropped = dominated_levels(inputs.problem.space, table, inputs.relevant, inputs.limits)
    levels = sorted({*dropped, *inputs.without_row(skipped)})
    inputs.recorder.append({"type": "dropped", "levels": [list(key) for key in levels]})


def _record_frame(inputs: TableInputs, n_samples: int) -> None:
    """Record the reference outputs that the rows' shifts are measured against. They stay when a run goes on.

    Outputs of different kinds, such as boxes beside logits, have none: their rows' divergences are added up.
    """
    if inputs.state.frame is None and inputs.problem.context.distance.has_frame:
        inputs.recorder.append(frame_record(output_frame(inputs.problem.context, n_samples)))


def _measure_missing(inputs: TableInputs, keys: Sequence[Key], guess: Guess | None, n_samples: int) -> None:
    """Measure the rows that are missing.

    Where no group can be left alone, the base's own level is the same row in every group, and is measured once.
    """
    base_keys = set(enumerate(base_levels(inputs.problem.space))) & set(inputs.wanted)
    at_base = [key for key in keys if key in base_keys]
    rows, missing = inputs.state.rows, inputs.without_row(keys)
    done = next((key for key in at_base if key in rows), None)
    first = at_base[0] if at_base and done is None else None
    work = [key for key in missing if key not in at_base or key == first]
    _measure(inputs, _in_order(inputs, work, guess), n_samples, len(keys))
    source = done if done is not None else first
    if source is None or source not in rows:
        return
    row = replace(inputs.state.row_facts[source], passes=0.0)
    for g, level in inputs.without_row(at_base):
        inputs.recorder.append({"type": "row", "group": g, "level": level, **asdict(row)})


def _unpromising(inputs: TableInputs, guess: Guess | None, factor: float) -> set[Key]:
    """Return the rows that are not worth measuring. Where a cost must not be too low, there are none."""
    names = inputs.relevant
    if guess is None or any(low is not None for name, (low, _) in inputs.limits.items() if name in names):
        return set()
    finite = [[_finite(value) for value in row] for row in guess]
    return inputs.policy.find_unpromising(inputs.problem.space, finite, inputs.costs.rows, names, factor=factor)


def _affordable(inputs: TableInputs, guess: Guess | None, skipped: set[Key], passes: float) -> tuple[list[Key], int]:
    """Rows to measure and the samples of each: the task's, or fewer. Without a guess every row is measured."""
    keys = [key for key in inputs.wanted if key not in skipped]
    most = inputs.problem.task.search.table_samples
    least = min(most, inputs.policy.least_samples, len(inputs.problem.context.split))
    if guess is None:
        return keys, max(least, min(most, int(passes / max(1.0, USUAL_PART * len(keys)))))
    return affordable_rows(
        keys, guess, inputs.costs.rows, inputs.relevant, passes=passes, most=most, least=least,
        base=base_levels(inputs.problem.space),
    )  # fmt: skip


def _passes_of_guess(inputs: TableInputs) -> float:
    return float((inputs.state.estimate or {}).get("passes") or 0.0)


def _assemble(inputs: TableInputs, guess: Guess | None, n_samples: int) -> SensitivityTable:
    space, state = inputs.problem.space, inputs.state
    table = assemble(
        inputs.wanted, state.row_facts, space.n_levels, guess, costs=inputs.costs.rows, fixed=inputs.costs.fixed,
        n_samples=n_samples,
    )  # fmt: skip
    return replace(table, perturbations=perturbations_of(state, space), proxies=_proxies(inputs))


def _proxies(inputs: TableInputs) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Return what foretells the divergence without a measurement, see `SensitivityTable.proxies`."""
    estimate = inputs.state.estimate or {}
    found = {
        name: tuple(tuple(math.nan if value is None else float(value) for value in row) for row in estimate[key])
        for name, key in (("elements", "elements"), ("gradients", "values"))
        if estimate.get(key)
    }
    if "elements" not in found:
        return {}
    return found | {"weights": inputs.costs.weight_error}


def _estimate(inputs: TableInputs) -> Guess | None:
    """Return the first guess, from the ledger or made now. None where the model cannot be differentiated."""
    if inputs.state.estimate is None:
        task = inputs.problem.task
        samples = min(inputs.policy.estimate_samples, task.search.table_samples)
        job = EstimateSensitivity(n_samples=samples, seed=task.search.seed, timeout_s=task.budget.trial_timeout_s)
        for outcome in inputs.runner.run([job], within_budget=True):
            found = outcome.value
            record: dict[str, Any] = {"values": None, "reason": outcome.error, "passes": 0.0}
            if found is not None:
                record |= {"values": _finite_rows(found.values), "elements": _finite_rows(found.elements)}
                record["passes"] = found.passes
            inputs.recorder.append({"type": "estimate", **record})
    return _known_guess(inputs)


def _known_guess(inputs: TableInputs) -> Guess | None:
    estimate = inputs.state.estimate
    if estimate is None:
        return None
    if estimate["values"] is None:
        inputs.recorder.note(
            f"no gradients of this model ({estimate['reason']}): the sensitivity table is measured in the order of "
            "the layers"
        )
        return None
    values: Guess = estimate["values"]
    elements: Guess | None = estimate.get("elements")
    return values if elements is None else _in_unit_of(elements, values)


def _in_unit_of(elements: Guess, values: Guess) -> Guess:
    """Return the estimate by single elements, which has less noise, in the unit of the other: the median agrees."""
    ratios = [
        value / element
        for found, wanted in zip(elements, values, strict=True)
        for element, value in zip(found, wanted, strict=True)
        if element and value
    ]
    factor = float(np.median(ratios)) if ratios else 1.0
    return [[None if element is None else factor * element for element in row] for row in elements]


def _finite_rows(rows: Guess) -> list[list[float | None]]:
    return [[_finite(value) for value in row] for row in rows]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _in_order(inputs: TableInputs, missing: Sequence[Key], guess: Guess | None) -> Work:
    """Put the groups in the order of the divergence that is at stake in them, by the guess.

    Where the time is limited, the levels on the guess's own sweep come first in all groups.
    """
    by_group: dict[int, list[int]] = {}
    for g, level in missing:
        by_group.setdefault(g, []).append(level)
    if guess is None:
        return list(by_group.items())
    on_hull = {g: _hull(inputs, guess[g], g) for g in by_group}

    def stake(g: int) -> float:
        return max((guess[g][level] or 0.0 for level in on_hull[g]), default=0.0)

    order = sorted(by_group, key=lambda g: (-stake(g), g))
    budget = inputs.problem.task.budget
    if budget.time is None and budget.core_hours is None:
        return [(g, by_group[g]) for g in order]
    first = [(g, [level for level in by_group[g] if level in on_hull[g]]) for g in order]
    rest = [(g, [level for level in by_group[g] if level not in on_hull[g]]) for g in order]
    return [(g, levels) for g, levels in first + rest if levels]


def _hull(inputs: TableInputs, guessed: Sequence[float | None], g: int) -> set[int]:
    """Levels of a group on the lower hull of (cost, guess), for any of the relevant costs."""
    divergence = np.array([math.inf if value is None else value for value in guessed])
    return {
        level
        for name in inputs.relevant
        for level in lower_hull(divergence, np.array(inputs.costs.rows[name][g], dtype=np.float64))
    }


def _measure(inputs: TableInputs, work: Work, n_samples: int, total: int) -> None:
    """Measure each group's levels in one job. If that job hung, or its worker died, each level is tried alone."""
    again: list[MeasureRows] = []
    jobs = [_job(inputs, g, levels, n_samples) for g, levels in work]
    for outcome in inputs.runner.run(jobs, within_budget=True):
        job = outcome.job
        if outcome.error is not None and len(job.levels) > 1:
            again += [_job(inputs, job.group, [level], n_samples) for level in job.levels]
            continue
        _record(inputs, outcome, total)
    for outcome in inputs.runner.run(again, within_budget=True):
        _record(inputs, outcome, total)


def _job(inputs: TableInputs, g: int, levels: Sequence[int], n_samples: int) -> MeasureRows:
    limit = inputs.problem.task.budget.trial_timeout_s * len(levels)
    framed = inputs.state.frame["n"] if inputs.state.frame else 0
    framed = framed if framed <= n_samples else 0
    return MeasureRows(group=g, levels=tuple(levels), n_samples=n_samples, n_frame=framed, timeout_s=limit)


def _record(inputs: TableInputs, outcome: Outcome[MeasureRows, tuple[Row, ...]], total: int) -> None:
    g, levels = outcome.job.group, outcome.job.levels
    rows = outcome.value or (Row(value=None, reason=outcome.error),) * len(levels)
    for level, row in zip(levels, rows, strict=True):
        fields = {name: value for name, value in asdict(row).items() if name != "shift" or value is not None}
        inputs.recorder.append({"type": "row", "group": g, "level": level, **fields})
    inputs.recorder.say("table", done=len(inputs.state.rows), total=total)


def _refine(inputs: TableInputs, table: SensitivityTable, n_samples: int, passes: float) -> bool:
    """Measure the least certain rows of the table's own sweep again, on more samples. Returns False if there are none.

    passes  samples that the whole table may pass through the model
    """
    policy, split = inputs.policy, len(inputs.problem.context.split)
    n = min(policy.refined * n_samples, split)
    rows = inputs.state.row_facts
    spent = sum(row.passes for row in rows.values() if row.n > n_samples)
    first = sum(row.passes for row in rows.values() if row.n <= n_samples)
    share = policy.refine_share * first
    if n_samples < inputs.problem.task.search.table_samples:
        share = max(share, passes - first)
    left = min(share, policy.refine_trials * split, passes - first) - spent
    work: dict[int, list[int]] = {}
    for g, level in policy.find_unsure(table, inputs.relevant):
        row = rows.get((g, level), Row(value=None))  # a skipped level may turn out to be on the sweep
        cost = n * (_passes_per_sample(rows, g) + (0.0 if g in work else 1.0))
        if row.n < n and cost <= left:
            left -= cost
            work.setdefault(g, []).append(level)
    _measure(inputs, list(work.items()), n, len(rows))
    return bool(work)


def _passes_per_sample(rows: Mapping[Key, Row], g: int) -> float:
    """Cost of a further row of a group. Its first row also paid for the activations before the group."""
    return min((row.passes / row.n for (h, _), row in rows.items() if h == g and row.n), default=1.0)
