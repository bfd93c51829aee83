"""The baselines phase: the original, and the settings that need no search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import InputError
from ..evaluation import TrialJob
from ..problem import Problem, original_quality
from ..run import Recorder, State
from ..space import plans, threshold_settings, uniform_settings, weights_of
from ..task import resolve_limits
from ..values import Candidate, Completed, Limits, LowFidelity, trial_to_record
from ._cost_model import CostModel, guide_on_every_device
from ._job_runner import JobRunner
from ._screened_baselines import FROM, screened_baselines
from ._trials import TrialFactory, screening_samples


def baselines_of(problem: Problem) -> dict[Candidate, str]:
    """Candidate -> label of the uniform settings and of the allocations that need no search.

    `space/_thresholds.py` makes these allocations. A candidate that has two labels keeps the first.
    """
    space, found = problem.space, dict[Candidate, str]()
    named = uniform_settings(space)
    named += plans(space, weights_of(problem.context.model), problem.task.space.rank_energy)
    if problem.context.structured is not None:
        named += threshold_settings(space, problem.context.structured)
    for label, candidate in named:
        found.setdefault(candidate, label)
    return found


def evaluate_baselines(
    costs: CostModel, runner: JobRunner, recorder: Recorder, *, screened_from: int = FROM
) -> TrialFactory:
    """Evaluate the original and the baselines that have no trial yet, and return the factory for further trials.

    Baselines do not count against the budget of trials. Of many, all are screened and only the promising ones are
    evaluated on the whole search split. The facts of the run are recorded before; here its limits are bound.

    screened_from  screen the baselines if there are more than so many, and the split is screened at all

    Raises `Interrupted` if a stop was asked for.
    """
    problem, state = costs.problem, recorder.state
    if state.facts is None:
        raise InputError("the facts of the run are to be recorded before its baselines: call record_facts first")
    # an old ledger does not list them
    listed = baselines_of(problem) if state.facts.baselines is None else [c for c, _ in state.facts.baselines]
    numbered = list(enumerate(listed, 1))
    _record_original(costs, recorder)
    trials = TrialFactory(costs, bind_limits(problem, recorder), state)
    if trials.n_screened and len(numbered) > screened_from:
        seen = {t.candidate for t in state.trials if t.kind == "uniform"}
        jobs = [trials.screen_job(n, c, "uniform") for n, c in numbered if c not in seen]
        _evaluate(trials, jobs, runner, recorder, total=len(numbered))
        chosen = _promising(problem, state, [candidate for _, candidate in numbered])
        recorder.say("baselines", message=f"{len(chosen)} of {len(numbered)} uniform settings are seen on all")
        numbered = list(enumerate(chosen, 1 + len(numbered)))
        done = {t.candidate for t in state.trials if t.kind == "uniform" and not isinstance(t, LowFidelity)}
    else:
        done = {t.candidate for t in state.trials if t.kind == "uniform"}
    jobs = [trials.trial_job(n, c, "uniform") for n, c in numbered if c not in done]
    _evaluate(trials, jobs, runner, recorder, total=len(numbered))
    return trials


def bind_limits(problem: Problem, recorder: Recorder) -> Limits:
    """Turn relative limits into figures, now that the original is known, and record them in the facts of the run.

    Such limits are "at most half a point lost" or "a quarter of the bytes".
    """
    state = recorder.state
    original = next(t for t in state.trials if t.kind == "original" and isinstance(t, Completed))
    values = {name: m.value for name, m in original.metrics.items()}
    limits = resolve_limits(problem.task, values, maximise=problem.context.metric.maximise)
    if state.facts is not None and state.facts.limits != limits:
        recorder.append(replace(state.facts, limits=limits).to_record())
    return limits


def _record_original(costs: CostModel, recorder: Recorder) -> None:
    """Record the original's trial, which was evaluated when the problem was prepared."""
    problem = costs.problem
    # a space need not have a level that leaves a layer alone; the original is then told apart by its kind only
    original = problem.space.candidate_of({}) or Candidate(levels=(0,) * len(problem.space))
    if any(t.kind == "original" and t.candidate == original for t in recorder.state.trials):
        return
    n = screening_samples(len(problem.context.split), problem.task.search.screen)
    screen = original_quality(problem.context, n) if n else {}
    metrics = {**costs.original_metrics(), **problem.quality}
    trial = Completed(number=0, candidate=original, kind="original", metrics=metrics, screen=screen)
    recorder.append(trial_to_record(trial))


def _promising(problem: Problem, state: State, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Select the screened baselines to evaluate on the whole search split."""
    screened = {t.candidate: t for t in state.trials if t.kind == "uniform" and isinstance(t, LowFidelity)}
    chosen = screened_baselines([screened[c] for c in candidates if c in screened], guide_on_every_device(problem))
    return [trial.candidate for trial in chosen]


def _evaluate(
    trials: TrialFactory, jobs: Sequence[TrialJob], runner: JobRunner, recorder: Recorder, *, total: int
) -> None:
    with recorder.watch.charge("evaluation"):
        for n, outcome in enumerate(runner.run(jobs), 1):
            trials.record(outcome, recorder)
            recorder.say("baselines", done=total - len(jobs) + n, total=total)
    runner.clock.stop_if_asked()
