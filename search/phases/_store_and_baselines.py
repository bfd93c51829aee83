"""What stands before the first proposal: the store and the baselines. The sensitivity table is in `_table`.

Each looks at the ledger first and does what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose, isfinite
from typing import Any

from ...compressors import SPEC_VERSION, LayerSpec
from ...errors import IntegrityError, ParedownError, TaskError
from ..devices import describe_profile_mismatch
from ..evaluation import BuildVariants, TrialJob, original_costs, static_costs
from ..problem import Problem, original_quality
from ..space import (
    bounds,
    check_reachable,
    describe_structure_left,
    plans,
    threshold_settings,
    uniform_settings,
    weights_of,
    without_correction,
)
from ..task import environment
from ..values import (
    Candidate,
    Completed,
    Kind,
    LowFidelity,
    Objective,
    is_structural,
    metrics_on_device,
    space_to_dict,
    static_measurements,
    without_structure,
)
from ._latency_table import take_latency_table
from ._screened_baselines import FROM as MANY
from ._screened_baselines import screened_baselines
from ._session import SearchSession, on_every_device

_BUILD_TIMEOUT_S = 1800.0
_CHUNK = 8
"""Variants of one layer that a worker builds in one go."""

Sizes = Mapping[tuple[str, LayerSpec], int]
Errors = Mapping[tuple[str, LayerSpec], float]


def build_store(session: SearchSession) -> None:
    """Every layer at every level of its group, made once; from here on it is known what each level costs.

    Raises `TaskError` for a layer that cannot be compressed, for limits that no candidate can meet, and if the model
    or its data are not those that the run began with.
    """
    problem = session.problem
    wanted: dict[str, list[LayerSpec]] = {fqn: [LayerSpec()] for fqn in problem.anatomy.fqns}
    for group in without_structure(problem.space).groups:
        for fqn in group.layers:
            wanted[fqn] = list(dict.fromkeys([LayerSpec(), *group.levels]))
    jobs = [
        BuildVariants(fqn=fqn, specs=tuple(specs[i : i + _CHUNK]), timeout_s=_BUILD_TIMEOUT_S)
        for fqn, specs in wanted.items()
        for i in range(0, len(specs), _CHUNK)
    ]
    sizes: dict[tuple[str, LayerSpec], int] = {}
    errors: dict[tuple[str, LayerSpec], float] = {}
    with session.recorder.watch.charge("store"):
        for n, outcome in enumerate(session.run_jobs(jobs), 1):
            fqn, specs = outcome.job.fqn, outcome.job.specs
            if outcome.error is not None:
                raise _build_error(fqn, outcome.error)
            for spec, built in zip(specs, outcome.result, strict=True):
                sizes[fqn, spec], errors[fqn, spec] = built.n_bytes, built.weight_error
            session.recorder.say("store", done=n, total=len(jobs))
    session.stop_if_asked()
    for device in problem.devices:
        hardware = session.task.hardware
        for line in describe_profile_mismatch(
            device.profile, hardware.runtime, environment(), by_default=hardware.profile is None
        ):
            session.recorder.note(line)
    for line in describe_structure_left(problem.context.structured):
        session.recorder.note(line)
    if problem.task.repair.bias:
        for line in without_correction(problem.context.model, problem.anatomy, problem.context.repair_inputs):
            session.recorder.note(line)
    session.costs, session.fixed = static_costs(problem, sizes)
    session.original_costs = original_costs(problem, sizes)
    take_latency_table(session)
    least = {name: session.fixed[name] + sum(min(row) for row in rows) for name, rows in session.costs.items()}
    least.pop("memory_bytes", None)  # its rows are a guess and no bound
    _check_limits(session, least)
    _write_facts(session, sizes, errors)


def _build_error(fqn: str, why: str) -> ParedownError:
    """Whose fault it was that a variant is not in the store: the store's files', the disk's, or the layer's."""
    kind, _, text = why.partition(": ")
    if kind == IntegrityError.__name__:
        return IntegrityError(text)
    if kind == OSError.__name__:
        return ParedownError(f"the variants of {fqn} could not be stored: {text}")
    return TaskError(f"layer {fqn} cannot be compressed: {why}; leave it alone with [space] leave = [{fqn!r}]")


def _check_limits(session: SearchSession, least: Mapping[str, float]) -> None:
    """Limits that nothing keeps on any device end the search; those that nothing keeps on some of them are said."""
    refused: dict[str, TaskError] = {}
    for n, device in enumerate(session.problem.devices):
        name = device.profile.name
        low, most = (metrics_on_device(values, name if n else None) for values in (least, session.original_costs))
        try:
            check_reachable(session.task, low, most, profile=name, predicted=n == 0 and session.latency is not None)
        except TaskError as why:
            refused[name] = why
    if len(refused) == len(session.problem.devices):
        raise next(iter(refused.values()))
    for name, refusal in refused.items():
        session.recorder.note(f"no candidate can keep the limits on {name}: {refusal}")


def _write_facts(session: SearchSession, sizes: Sizes, errors: Errors) -> None:
    facts = _facts(session.problem, session, sizes, errors)
    before = session.state.facts
    if not before:
        session.recorder.append(facts)
        return
    for key, what in (
        ("model", "the model's weights"),
        ("search_data", "the search split"),
        ("report_data", "the report split"),
    ):
        if before[key] != facts[key]:
            raise TaskError(
                f"{what} changed since the run in {session.run.path} began, so its trials say nothing of it now; "
                "put the old files back, or start a new run"
            )
    if (other := _another_space(session, before, facts)) is not None:
        raise TaskError(
            f"the run in {session.run.path} was begun in another space: {other}; a plugin, a profile or paredown "
            "changed since. What was found stays readable (front, explain, export); go on with what it was begun with, "
            "or start a new run"
        )
    if "anatomy" not in before:
        session.recorder.append({**before, "anatomy": facts["anatomy"]})


def _another_space(session: SearchSession, before: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """In what the space of a run differs from the one that its task means now, in a clause. Trials and the table go by
    numbers of levels, which would mean something else there."""
    was, now = session.run.space, session.problem.space
    theirs, ours = ({group.name: group for group in space.groups} for space in (was, now))
    for name, group in theirs.items():
        if name not in ours:
            structured = session.problem.context.structured
            why = structured.left.get(name) if structured is not None else None
            return f"{name} is no part of it any more" + (f", for {why}" if why else "")
        if group != ours[name]:
            return f"{name} has other levels, or other layers"
    if was != now:
        more = [name for name in ours if name not in theirs]
        return f"{more[0]} is new in it" if more else "its groups come in another order"
    sets = [n for n, group in enumerate(now.groups) if is_structural(group.name)]
    # a share of a set says how many units only by what they are rounded to
    counted = [
        [data["fixed"]["macs"], *(x for n in sets for x in data["costs"]["macs"][n])] for data in (before, facts)
    ]
    if sets and not all(isclose(a, b, rel_tol=1e-6) for a, b in zip(*counted, strict=True)):
        return "what can be removed keeps other numbers of units"
    return None


def _as_fact(objective: Objective) -> dict[str, Any]:
    fact: dict[str, Any] = {"name": objective.name, "maximise": objective.maximise}
    return fact | (
        {"good_enough": objective.indifference_threshold} if isfinite(objective.indifference_threshold) else {}
    )


def _facts(problem: Problem, session: SearchSession, sizes: Sizes, errors: Errors) -> dict[str, Any]:
    """What stands before the first trial, for whoever reads the run later."""
    space = problem.space
    return {
        "type": "facts",
        "model": problem.model_digest,
        "search_data": problem.context.split.digest,
        "report_data": problem.report.digest,
        "space": space_to_dict(space),
        "spec_version": SPEC_VERSION,
        "objectives": [{"name": o.name, "maximise": o.maximise} for o in problem.objectives],
        "guide": [_as_fact(o) for o in problem.guide],
        "quality": problem.context.metric.name,
        "limits": {},
        "costs": {name: [list(row) for row in rows] for name, rows in session.costs.items()},
        "fixed": dict(session.fixed),
        "original_bytes": [
            max(session.costs["bytes"][n]) if is_structural(g.name) else sum(sizes[f, LayerSpec()] for f in g.layers)
            for n, g in enumerate(space.groups)
        ],
        "weight_error": [[max(errors.get((f, s), 0.0) for f in g.layers) for s in g.levels] for g in space.groups],
        "runs_as": [
            [
                _stays(problem, g.name, s) if is_structural(g.name) else _kernel(problem, g.layers[0], s)
                for s in g.levels
            ]
            for g in space.groups
        ],
        "profile": problem.profile.name,
        "profiles": [device.profile.name for device in problem.devices],
        "baselines": [[list(c.levels), label] for c, label in baselines_of(problem).items()],
        "activations": graph.to_dict() if (graph := problem.devices[0].graph) is not None else None,
        "unused": list(problem.anatomy.unused),
        "anatomy": problem.anatomy.to_dict(),
    }


def _stays(problem: Problem, name: str, spec: LayerSpec) -> str:
    """Of a set how many of its units, of a block whether it does."""
    structured = problem.context.structured
    coupled = None if structured is None else next((s for s in structured.sets if s.name == name), None)
    if structured is None or coupled is None:
        return "dropped" if spec.changes_structure else ""
    n = len(structured.kept(coupled, spec)) if spec.changes_structure else coupled.n_units
    return f"{n} of {coupled.n_units} units"


def _kernel(problem: Problem, fqn: str, spec: LayerSpec) -> str:
    from ...evaluators import lowered_as

    lowered = lowered_as(problem.anatomy[fqn], spec, problem.profile)
    idle = [
        what
        for what, asked, used in (
            ("zeros", spec.sparsity > 0.0, lowered.sparse), ("factors", spec.rank < 1.0, lowered.low_rank)
        )
        if asked and not used
    ]  # fmt: skip
    return lowered.kernel + (f" ({' and '.join(idle)} save bytes, no time)" if idle else "")


def baselines_of(problem: Problem) -> dict[Candidate, str]:
    """The uniform settings and the allocations that need no search, each with what it is called."""
    space, found = problem.space, dict[Candidate, str]()
    named = uniform_settings(space)
    named += plans(space, weights_of(problem.context.model), problem.task.space.rank_energy)
    if problem.context.structured is not None:
        named += threshold_settings(space, problem.context.structured)
    for label, candidate in named:
        found.setdefault(candidate, label)
    return found


def evaluate_baselines(session: SearchSession) -> None:
    """The original, every uniform setting, and the allocations that need no search (`_thresholds.py`). They do not
    count against the budget of trials.
    """
    space, state = session.problem.space, session.state
    # a space need not have a level that leaves a layer alone; the original is then told apart by its kind only
    original = space.candidate_of({}) or Candidate(levels=(0,) * len(space))
    wanted: list[tuple[Kind, Candidate]] = [("original", original)]
    named = state.facts.get("baselines")  # an old run does not say
    baselines = baselines_of(session.problem) if named is None else [Candidate(levels=tuple(c)) for c, _ in named]
    wanted += [("uniform", candidate) for candidate in baselines]
    have = {(trial.kind, trial.candidate) for trial in state.trials}
    if ("original", original) not in have:
        metrics = static_measurements(session.original_costs, session.task.hardware.grid_g_per_kwh)
        if session.latency is not None:
            metrics["latency_ms"] = session.latency.predict({})
        metrics |= session.problem.quality
        n = session.n_screened
        screen = original_quality(session.problem.context, n) if n else {}
        session.recorder.trial(Completed(number=0, candidate=original, kind="original", metrics=metrics, screen=screen))
    _bind_limits(session)
    numbered = [(number, candidate) for number, (kind, candidate) in enumerate(wanted) if kind == "uniform"]
    if session.n_screened and len(numbered) > MANY:
        jobs = [session.screen_job(n, c, "uniform") for n, c in numbered if ("uniform", c) not in have]
        _evaluate(session, jobs, total=len(numbered))
        seen = {t.candidate: t for t in state.trials if t.kind == "uniform" and isinstance(t, LowFidelity)}
        chosen = screened_baselines([seen[c] for _, c in numbered if c in seen], on_every_device(session.problem))
        session.recorder.say("baselines", message=f"{len(chosen)} of {len(numbered)} uniform settings are seen on all")
        numbered = [(len(wanted) + n, trial.candidate) for n, trial in enumerate(chosen)]
        have = {(t.kind, t.candidate) for t in state.trials if not isinstance(t, LowFidelity)}
    jobs = [session.trial_job(n, "uniform", c) for n, c in numbered if ("uniform", c) not in have]
    _evaluate(session, jobs, total=len(numbered))


def _evaluate(session: SearchSession, jobs: Sequence[TrialJob], *, total: int) -> None:
    with session.recorder.watch.charge("evaluation"):
        for n, outcome in enumerate(session.run_jobs(jobs), 1):
            session.record_trial(outcome)
            session.recorder.say("baselines", done=total - len(jobs) + n, total=total)
    session.stop_if_asked()


def _bind_limits(session: SearchSession) -> None:
    """Relative limits ("at most half a point lost", "a quarter of the bytes") become numbers, now that the original
    is known."""
    original = next(t for t in session.state.trials if t.kind == "original" and isinstance(t, Completed))
    values = {name: m.value for name, m in original.metrics.items()}
    limits = bounds(session.task, values, maximise=session.problem.context.metric.maximise)
    session.recorder.limits = limits
    bound = {name: [low, high] for name, (low, high) in limits.items()}
    if session.state.facts["limits"] != bound:
        session.recorder.append({**session.state.facts, "limits": bound})
