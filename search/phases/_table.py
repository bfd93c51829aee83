"""The sensitivity table: a first guess from gradients, the rows in the order of their use, and more samples where the
sweep needs them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TypeAlias

import numpy as np

from ..allocation import lower_hull, sweep
from ..evaluation import EstimateSensitivity, MeasureRows, Outcome, output_frame
from ..run import Guess, Key, assemble, frame_record, perturbations_of
from ..searchers import uses_table
from ..space import dominated_levels, relevant_costs, unpromising_levels
from ..values import Row, SensitivityTable, base_levels
from ._session import SearchSession, on_every_device

ESTIMATE_SAMPLES = 16
"""Samples that the first guess looks at."""
UNPROMISING = 3.0
"""A level is not measured if the first guess says that another one, no dearer, has less divergence by this factor. On
ResNet-20 the guess is off by a factor of 1.4 (one standard deviation)."""
UNPROMISING_STILL = 1.5
"""It is measured after all if, with what was measured since, that other one is not better by this factor."""
TABLE_SHARE = 0.2
"""The table may cost this share of the search: of all trials, each on the whole split. Fewer samples are used where it
would cost more, but no fewer than `LEAST_SAMPLES`; what is left of it goes into the rows that the sweep needs."""
LEAST_SAMPLES = 8
_USUAL_PART = 0.6
"""Of a pass, that a row costs where what comes before its group is known."""
REFINED = 4
"""A row that is measured again gets so many times the table's samples, as far as the search split goes."""
UNSURE = 0.25
"""Rows on the sweep with a larger standard error than this share of their value are measured again."""
REFINE_SHARE, REFINE_TRIALS = 0.1, 4
"""What measuring again may cost: this share of the table, or what is left of `TABLE_SHARE` where samples were saved,
and at most so many full evaluations."""

Work: TypeAlias = list[tuple[int, list[int]]]
"""Groups, each with the levels to be measured in one go."""


def measure_table(session: SearchSession, evaluations: float | None = None) -> SensitivityTable | None:
    """Divergence of each (group, level) alone, all other groups left alone or at their dearest level.

    evaluations  what the search may cost, in full evaluations; default as many as its budget has trials

    A row that fails is infinite, so that no searcher wants it. Rows that the time did not suffice for are filled in
    from the first guess. None if the searcher uses no table, or there is no guess to fill it with.
    """
    task, state = session.task, session.state
    if not uses_table(task.search.searcher, task.search.params):
        return None
    wanted = _wanted(session)
    with session.recorder.watch.charge("table"):
        missing = [key for key in wanted if key not in state.rows]
        guess = _estimate(session) if missing else _known_guess(session)
        skipped = _unpromising(session, guess, UNPROMISING)
        passes = TABLE_SHARE * len(session.problem.context.split) * (evaluations or task.budget.trials)
        n_samples = _n_samples(task.search.table_samples, passes, len(wanted) - len(skipped))
        chosen = [key for key in wanted if key not in skipped]
        if missing:
            _note_frame(session, n_samples)
        _measure_missing(session, chosen, guess, n_samples)
        table = _assemble(session, wanted, guess, n_samples)
        if skipped:
            skipped &= _unpromising(session, table.divergence, UNPROMISING_STILL)
            chosen = [key for key in wanted if key not in skipped]
            _measure_missing(session, chosen, guess, n_samples)
            table = _assemble(session, wanted, guess, n_samples)
        if missing := _without_row(session, chosen):
            if guess is None:
                return None
            session.recorder.note(
                f"the time was up before the whole sensitivity table was measured: {len(missing)} of its "
                f"{len(chosen)} rows are estimates from gradients"
            )
            return table
        if _refine(session, table, n_samples, passes):
            table = _assemble(session, wanted, guess, n_samples)
    if state.dropped is None and not session.out_of_time:
        dropped = dominated_levels(session.problem.space, table, _relevant(session), session.recorder.limits)
        levels = sorted({*dropped, *_without_row(session, skipped)})
        session.recorder.append({"type": "dropped", "levels": [list(key) for key in levels]})
    return table


def _note_frame(session: SearchSession, n_samples: int) -> None:
    """Which outputs the rows' shifts are looked at in. It stays what it is when a run goes on."""
    if session.state.frame is None:
        session.recorder.append(frame_record(output_frame(session.problem.context, n_samples)))


def _measure_missing(session: SearchSession, keys: Sequence[Key], guess: Guess | None, n_samples: int) -> None:
    """Where no group can be left alone, the base's own level is the same row in every group: it is measured once."""
    at_base = [key for key in keys if key in _base_keys(session)]
    rows, missing = session.state.rows, _without_row(session, keys)
    done = next((key for key in at_base if key in rows), None)
    first = at_base[0] if at_base and done is None else None
    work = [key for key in missing if key not in at_base or key == first]
    _measure(session, _in_order(session, work, guess), n_samples, len(keys))
    source = done if done is not None else first
    if source is None or source not in rows:
        return
    row = replace(session.state.row_facts[source], passes=0.0)
    for g, level in _without_row(session, at_base):
        session.recorder.append({"type": "row", "group": g, "level": level, **asdict(row)})


def _base_keys(session: SearchSession) -> set[Key]:
    return {key for key in enumerate(base_levels(session.problem.space)) if key in set(_wanted(session))}


def _without_row(session: SearchSession, keys: Iterable[Key]) -> list[Key]:
    return [key for key in keys if key not in session.state.rows]


def _unpromising(session: SearchSession, guess: Guess | None, factor: float) -> set[Key]:
    """Rows that are not worth measuring. None are, where a cost must not be too low."""
    names = _relevant(session)
    if guess is None or any(low is not None for name, (low, _) in session.recorder.limits.items() if name in names):
        return set()
    finite = [[None if value is None or not math.isfinite(value) else value for value in row] for row in guess]
    return unpromising_levels(session.problem.space, finite, session.costs, names, factor=factor)


def _n_samples(most: int, passes: float, n_rows: int) -> int:
    """The task's, or fewer where the table would otherwise cost more than so many passes."""
    return min(most, max(LEAST_SAMPLES, int(passes / max(1.0, _USUAL_PART * n_rows))))


def _assemble(session: SearchSession, wanted: Sequence[Key], guess: Guess | None, n_samples: int) -> SensitivityTable:
    n_levels = [len(group.levels) for group in session.problem.space.groups]
    table = assemble(
        wanted, session.state.row_facts, n_levels, guess, costs=session.costs, fixed=session.fixed, n_samples=n_samples
    )
    return replace(table, perturbations=perturbations_of(session.state, session.problem.space))


def _wanted(session: SearchSession) -> list[Key]:
    groups = session.problem.space.groups
    return [(g, i) for g, group in enumerate(groups) for i, spec in enumerate(group.levels) if not spec.is_neutral]


def _relevant(session: SearchSession) -> list[str]:
    names = [objective.name for objective in on_every_device(session.problem)]
    return relevant_costs(names, session.recorder.limits, session.costs)


def _estimate(session: SearchSession) -> Guess | None:
    """The first guess: from the ledger, or made now. None where the model cannot be differentiated."""
    if session.state.estimate is None:
        task = session.task
        samples = min(ESTIMATE_SAMPLES, task.search.table_samples)
        job = EstimateSensitivity(n_samples=samples, seed=task.search.seed, timeout_s=task.budget.trial_timeout_s)
        for outcome in session.run_jobs([job], within_budget=True):
            found = outcome.value
            values = None if found is None else [[_finite(v) for v in row] for row in found.values]
            record = {"values": values, "reason": outcome.error, "passes": 0.0 if found is None else found.passes}
            session.recorder.append({"type": "estimate", **record})
    return _known_guess(session)


def _known_guess(session: SearchSession) -> Guess | None:
    estimate = session.state.estimate
    if estimate is None:
        return None
    if estimate["values"] is None:
        session.recorder.note(
            f"no gradients of this model ({estimate['reason']}): the sensitivity table is measured in the order of "
            "the layers"
        )
        return None
    values: Guess = estimate["values"]
    return values


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _in_order(session: SearchSession, missing: Sequence[Key], guess: Guess | None) -> Work:
    """The groups by what the guess says is at stake in them. Where the time is limited, what lies on the guess's own
    sweep comes first in all groups."""
    by_group: dict[int, list[int]] = {}
    for g, level in missing:
        by_group.setdefault(g, []).append(level)
    if guess is None:
        return list(by_group.items())
    on_hull = {g: _hull(session, guess[g], g) for g in by_group}

    def stake(g: int) -> float:
        return max((guess[g][level] or 0.0 for level in on_hull[g]), default=0.0)

    order = sorted(by_group, key=lambda g: (-stake(g), g))
    budget = session.task.budget
    if budget.time is None and budget.core_hours is None:
        return [(g, by_group[g]) for g in order]
    first = [(g, [level for level in by_group[g] if level in on_hull[g]]) for g in order]
    rest = [(g, [level for level in by_group[g] if level not in on_hull[g]]) for g in order]
    return [(g, levels) for g, levels in first + rest if levels]


def _hull(session: SearchSession, guessed: Sequence[float | None], g: int) -> set[int]:
    divergence = np.array([math.inf if value is None else value for value in guessed])
    return {
        level
        for name in _relevant(session)
        for level in lower_hull(divergence, np.array(session.costs[name][g], dtype=np.float64))
    }


def _measure(session: SearchSession, work: Work, n_samples: int, total: int) -> None:
    """A group's levels are one job. Where that fails as a whole (it hung, or its worker died), each is tried alone."""
    again: list[MeasureRows] = []
    for outcome in session.run_jobs([_job(session, g, levels, n_samples) for g, levels in work], within_budget=True):
        job = outcome.job
        if outcome.error is not None and len(job.levels) > 1:
            again += [_job(session, job.group, [level], n_samples) for level in job.levels]
            continue
        _record(session, outcome, total)
    for outcome in session.run_jobs(again, within_budget=True):
        _record(session, outcome, total)


def _job(session: SearchSession, g: int, levels: Sequence[int], n_samples: int) -> MeasureRows:
    limit = session.task.budget.trial_timeout_s * len(levels)
    framed = session.state.frame["n"] if session.state.frame else 0
    framed = framed if framed <= n_samples else 0
    return MeasureRows(group=g, levels=tuple(levels), n_samples=n_samples, n_frame=framed, timeout_s=limit)


def _record(session: SearchSession, outcome: Outcome[MeasureRows, tuple[Row, ...]], total: int) -> None:
    g, levels = outcome.job.group, outcome.job.levels
    rows = outcome.value or (Row(value=None, reason=outcome.error),) * len(levels)
    for level, row in zip(levels, rows, strict=True):
        fields = {name: value for name, value in asdict(row).items() if name != "shift" or value is not None}
        session.recorder.append({"type": "row", "group": g, "level": level, **fields})
    session.recorder.say("table", done=len(session.state.rows), total=total)


def _refine(session: SearchSession, table: SensitivityTable, n_samples: int, passes: float) -> bool:
    """Measure the least certain rows of the table's own sweep again, on more samples. Whether anything was measured."""
    split = len(session.problem.context.split)
    n = min(REFINED * n_samples, split)
    rows = session.state.row_facts
    spent = sum(row.passes for row in rows.values() if row.n > n_samples)
    first = sum(row.passes for row in rows.values() if row.n <= n_samples)
    share = REFINE_SHARE * first
    if n_samples < session.task.search.table_samples:
        share = max(share, passes - first)
    left = min(share, REFINE_TRIALS * split) - spent
    work: dict[int, list[int]] = {}
    for g, level in unsure(table, _relevant(session)):
        row = rows.get((g, level), Row(value=None))  # a level that was not worth a row may turn out to be on the sweep
        # the first row of a group bore what was recorded for all of them
        per_sample = min((r.passes / r.n for (h, _), r in rows.items() if h == g and r.n), default=1.0)
        cost = n * (per_sample + (0.0 if g in work else 1.0))
        if row.n < n and cost <= left:
            left -= cost
            work.setdefault(g, []).append(level)
    _measure(session, list(work.items()), n, len(rows))
    return bool(work)


def unsure(table: SensitivityTable, costs: Sequence[str]) -> list[Key]:
    """Rows on the table's sweep whose standard error is large, those first that matter in most of it."""
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
    found = [key for key in used if error[key] > UNSURE]
    return sorted(found, key=lambda key: (-used[key] * error[key], key))


def _relative_error(table: SensitivityTable, key: Key) -> float:
    g, level = key
    value, stderr = table.divergence[g][level], table.stderr[g][level] if table.stderr else math.nan
    return stderr / value if math.isfinite(stderr) and math.isfinite(value) and value > 0 else 0.0
