"""The facts of a run: recorded before the first trial, and compared when a run goes on."""

from __future__ import annotations

from dataclasses import replace
from math import isclose
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ...errors import TaskError
from ..run import Recorder, RunFacts, StoredRun
from ..space import Structured
from ..values import SearchSpace, is_structural
from ._baselines import baselines_of
from ._cost_model import CostModel

if TYPE_CHECKING:
    from ..problem import Problem


def record_facts(run: StoredRun, costs: CostModel, recorder: Recorder) -> None:
    """Record the facts of a new run; check that a run that goes on still has the same ones.

    Raises `TaskError` if the model, its data, or the space are not those that the run began with.
    """
    facts, before = facts_of(costs), run.state.facts
    if before is None:
        recorder.append(facts.to_record())
        return
    for was, now, what in (
        (before.model, facts.model, "the model's weights"),
        (before.search_data, facts.search_data, "the search split"),
        (before.report_data, facts.report_data, "the report split"),
    ):
        if was != now:
            raise TaskError(
                f"{what} changed since the run in {run.path} began, so its trials say nothing of it now; "
                "put the old files back, or start a new run"
            )
    if before.quality_is != facts.quality_is:
        raise TaskError(
            f"{facts.quality} of the run in {run.path} is {before.quality_is or 'the mean over samples'}, and now it "
            f"would be {facts.quality_is or 'the mean over samples'}, so its trials cannot be compared with new ones; "
            "what was found stays readable (front, explain, export); start a new run"
        )
    other = _difference(before.space, facts.space, costs.problem.context.structured)
    if other is None and not _keeps_as_many_units(before, facts):
        other = "what can be removed keeps other numbers of units"
    if other is not None:
        raise TaskError(
            f"the run in {run.path} was begun in another space: {other}; a plugin, a profile or paredown "
            "changed since. What was found stays readable (front, explain, export); go on with what it was begun with, "
            "or start a new run"
        )
    if before.anatomy is None:
        recorder.append(replace(before, anatomy=facts.anatomy).to_record())


def facts_of(costs: CostModel) -> RunFacts:
    """Collect the facts of a run that begins now. Its limits are not bound yet."""
    problem = costs.problem
    return RunFacts(
        model=problem.model_digest,
        search_data=problem.context.split.digest,
        report_data=problem.report.digest,
        space=problem.space,
        objectives=problem.objectives,
        guide=problem.guide,
        quality=problem.context.metric.name,
        quality_is=problem.context.metric.kind_of_mean(problem.context.split),
        outputs=problem.context.distance.names,
        limits={},
        costs=costs.rows,
        fixed=costs.fixed,
        original_bytes=costs.original_bytes,
        weight_error=costs.weight_error,
        runs_as=tuple(
            tuple(
                _units(problem, g.name, s) if is_structural(g.name) else _kernel(problem, g.layers[0], s)
                for s in g.levels
            )
            for g in problem.space.groups
        ),
        profile=problem.profile.name,
        profiles=tuple(device.profile.name for device in problem.devices),
        baselines=tuple(baselines_of(problem).items()),
        activations=problem.devices[0].graph,
        unused=problem.anatomy.unused,
        anatomy=problem.anatomy,
        repair={name: getattr(problem.context.repair, name) for name in ("bias", "batch_norm", "samples")},
    )


def _difference(was: SearchSpace, now: SearchSpace, structured: Structured | None) -> str | None:
    """Say in a clause how the space of the run differs from the one that its task means now; None if it does not.

    Trials and the table go by numbers of levels, which would mean something else in another space.
    """
    theirs, ours = ({group.name: group for group in space.groups} for space in (was, now))
    for name, group in theirs.items():
        if name not in ours:
            why = structured.left.get(name) if structured is not None else None
            return f"{name} is no part of it any more" + (f", for {why}" if why else "")
        if group != ours[name]:
            return f"{name} has other levels, or other layers"
    if was != now:
        more = [name for name in ours if name not in theirs]
        return f"{more[0]} is new in it" if more else "its groups come in another order"
    return None


def _keeps_as_many_units(before: RunFacts, now: RunFacts) -> bool:
    """Compare the MACs of the structural groups: a share of a set may be rounded to another number of units."""
    structural = [n for n, group in enumerate(now.space.groups) if is_structural(group.name)]
    was, has = (
        [facts.fixed["macs"], *(macs for n in structural for macs in facts.costs["macs"][n])] for facts in (before, now)
    )
    return not structural or all(isclose(a, b, rel_tol=1e-6) for a, b in zip(was, has, strict=True))


def _units(problem: Problem, name: str, spec: LayerSpec) -> str:
    """Say how many of its units a set keeps at a level, or that a block is dropped."""
    structured = problem.context.structured
    coupled = None if structured is None else next((s for s in structured.sets if s.name == name), None)
    if structured is None or coupled is None:
        return "dropped" if spec.changes_structure else ""
    n = len(structured.kept(coupled, spec)) if spec.changes_structure else coupled.n_units
    return f"{n} of {coupled.n_units} units"


def _kernel(problem: Problem, fqn: str, spec: LayerSpec) -> str:
    """Name the kernel that the profile expects for a layer, and what saves bytes there but no time."""
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
