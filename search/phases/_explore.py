"""The exploration phase: ask, evaluate, tell, until the budget is spent or the space is exhausted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ...errors import SpecError
from ..devices import guides_of, limits_of
from ..evaluation import AnyJob
from ..run import Recorder
from ..searchers import Reporting, RoundRobinSearcher, SearchContext, Searcher, make_searcher, shrunk_table
from ..space import reduce_space
from ..values import (
    Candidate,
    Failed,
    Infeasible,
    Limits,
    Objective,
    SearchSpace,
    SensitivityTable,
    Trial,
    misses,
    trial_to_record,
    violation,
)
from ._cost_model import guide_on_every_device
from ._job_runner import JobRunner, next_attempt
from ._promotion import EVERY, Promotion, as_screened
from ._trials import TrialFactory, free_numbers

PATIENCE = 100
"""Number of known candidates in a row after which the searcher counts as having nothing new."""

MakeSearcher: TypeAlias = Callable[[str, SearchContext, Mapping[str, Any]], Searcher]


def explore(
    trials: TrialFactory,
    runner: JobRunner,
    recorder: Recorder,
    table: SensitivityTable | None,
    *,
    after_each: Callable[[], None] = lambda: None,
    seeds: Mapping[Candidate, str] | None = None,
    make: MakeSearcher = make_searcher,
    promote_every: int = EVERY,
) -> None:
    """Ask the searcher, evaluate, and tell it, until the budget is spent or the space is exhausted.

    Workers are kept busy while there is budget, and results are told in any order. Trials of an earlier session are
    told first. A candidate that has a trial already is not evaluated again and costs nothing.

    Where the search split is large, candidates are screened on its first samples, and the searcher knows them from
    these alone. Those on the front are then promoted to the whole split (`Promotion`), also when the time is up: it was
    kept for them.

    after_each     called after each trial
    seeds          candidates that are proposed before the searcher is asked -> names of the plans that they come from
    make           makes the searcher of a name
    promote_every  one candidate is promoted after so many proposals
    """
    exploration = _Exploration(trials, runner, recorder, table, after_each, seeds or {}, make, promote_every)
    budget, state = trials.problem.task.budget, recorder.state
    while exploration.submit_some() or runner.pool.busy or exploration.again:
        exploration.collect()
        recorder.say("search", done=state.n_mixed, total=budget.trials)
    while exploration.promote_some() or runner.pool.busy or exploration.again:
        exploration.collect()
        recorder.say("finalists", done=exploration.n_promoted, total=exploration.n_finalists)
    exploration.record_report()
    left = budget.trials - state.n_mixed
    if exploration.is_exhausted and left > 0:
        recorder.note(f"the searcher has nothing left to propose, {left} trials before the end of the budget")


class _Exploration:
    """State of one exploration: the searcher, the promotion, the seeds, and the jobs that get another attempt."""

    def __init__(
        self,
        trials: TrialFactory,
        runner: JobRunner,
        recorder: Recorder,
        table: SensitivityTable | None,
        after_each: Callable[[], None],
        seeds: Mapping[Candidate, str],
        make: MakeSearcher,
        promote_every: int,
    ) -> None:
        self.trials, self.runner, self.recorder, self.after_each = trials, runner, recorder, after_each
        self.promote_every = promote_every
        self.state, problem = recorder.state, trials.problem
        table = None if table is None else shrunk_table(table, problem.space)
        dropped = self.state.dropped or ()
        self.reduced = reduce_space(problem.space, table, dropped) if table is not None and dropped else None
        devices = [device.profile.name for device in problem.devices]
        self.limits = limits_of(problem.task, trials.limits, trials.costs.original, devices)
        self.searcher = self._searcher(table, devices, make)
        self.promotion = None
        if trials.n_screened:
            self.promotion = Promotion(guide_on_every_device(problem), trials.costs.rows, self.limits)
            for trial in self.state.trials:
                self.promotion.add(trial)
        self.n_promoted, self.n_finalists = 0, 0
        self._tell([trial for trial in self.state.trials if _is_of(problem.space, trial)])
        self.known = {trial.candidate for trial in self.state.trials}
        for trial in self.state.trials:
            if trial.candidate in seeds and trial.kind != "original":
                recorder.note(f"t{trial.number} is the plan {seeds[trial.candidate]}")
        self.seeds = dict(seeds)
        self._seeds_left = [candidate for candidate in seeds if candidate not in self.known]
        self.left = problem.task.budget.trials - self.state.n_mixed
        self.numbers = free_numbers({trial.number for trial in self.state.trials})
        self.again: list[AnyJob] = []
        self.is_exhausted = False
        self._promoted_at = 0

    def _searcher(self, table: SensitivityTable | None, devices: Sequence[str], make: MakeSearcher) -> Searcher:
        """Make one searcher for each device; where nothing depends on the device, one serves all."""
        problem, reduced = self.trials.problem, self.reduced
        wanted: list[tuple[tuple[Objective, ...], Limits]] = []
        for each in zip(guides_of(problem.guide, devices), self.limits, strict=True):
            if each not in wanted:
                wanted.append(each)
        options = problem.task.search
        searchers = [
            make(
                options.searcher,
                SearchContext(
                    space=reduced.space if reduced else problem.space, objectives=guide, limits=limits,
                    seed=options.seed, table=reduced.table if reduced else table,
                ),
                options.params,
            )
            for guide, limits in wanted
        ]  # fmt: skip
        return searchers[0] if len(searchers) == 1 else RoundRobinSearcher(searchers, turn=self.state.n_mixed)

    def record_report(self) -> None:
        """Record how far the searcher's own model is to be trusted, where it says so."""
        if isinstance(self.searcher, Reporting) and (report := self.searcher.report()) != self.state.searcher:
            self.recorder.append({"type": "searcher", "report": report})

    def submit_some(self) -> bool:
        """Give every worker a job, and a next one. Returns False if there was nothing to submit."""
        submitted, pool = False, self.runner.pool
        while pool.idle and self.again:  # also when the time is up: these count as asked for
            pool.submit(self.again.pop())
            submitted = True
        while pool.idle and self.left > 0 and not self._is_time_up():
            if self.promotion is not None and self._is_promotions_turn() and self._promote():
                submitted = True
                continue
            with self.recorder.watch.charge("searcher"):
                candidate = self._ask()
            self.is_exhausted = candidate is None
            if candidate is None:
                break
            self.known.add(candidate)
            self.left -= 1
            submitted = True
            self._submit(next(self.numbers), candidate)
        return submitted

    def promote_some(self) -> bool:
        """Give every worker a candidate that is on the front of the first samples. Returns False if there is none."""
        submitted, pool = False, self.runner.pool
        if self.promotion is None or self.runner.clock.is_stopping:
            return False
        self.n_finalists = self.n_finalists or self.promotion.n_due()
        while pool.idle and (self.again or self.promotion.n_due()):
            if self.again:
                pool.submit(self.again.pop())
            else:
                self.n_promoted += self._promote()
            submitted = True
        return submitted

    def _promote(self) -> bool:
        trial = None if self.promotion is None else self.promotion.next()
        if trial is None or self.promotion is None:
            return False
        self.promotion.asked(trial)
        self._promoted_at = self.state.n_mixed
        self.runner.pool.submit(self.trials.trial_job(next(self.numbers), trial.candidate))
        return True

    def _is_promotions_turn(self) -> bool:
        return self.state.n_mixed - self._promoted_at >= self.promote_every

    def _is_time_up(self) -> bool:
        """True if the time is up, or if the promotions that are due would take the rest of it."""
        due = 0 if self.promotion is None else self.promotion.n_due()
        return self.runner.clock.out_of_time or self.runner.clock.ends_within(due)

    def _ask(self) -> Candidate | None:
        """Return a candidate that has no trial yet; None if the searcher has nothing new."""
        if self._seeds_left:
            return self._seeds_left.pop(0)
        for _ in range(PATIENCE):
            asked = self.searcher.ask(1)
            if not asked:
                return None
            candidate = self.reduced.to_full(asked[0]) if self.reduced else asked[0]
            if candidate not in self.known:
                return candidate
        return None

    def _tell(self, trials: Sequence[Trial]) -> None:
        """Tell the searcher of trials.

        It hears of no level that was dropped from its space. Where candidates are screened, it hears of the figures on
        the first samples only.
        """
        if self.promotion is not None:
            trials = [view for trial in trials if (view := as_screened(trial)) is not None]
        if told := self.reduced.visible(trials) if self.reduced else trials:
            self.searcher.tell(told)

    def _submit(self, number: int, candidate: Candidate) -> None:
        """Send a candidate to a worker, unless its costs already break a limit on every device."""
        if candidate in self.seeds:
            self.recorder.note(f"t{number} is the plan {self.seeds[candidate]}")
        try:
            metrics = self.trials.costs.metrics_of(candidate)
        except SpecError as error:  # what is left of a layer is too small for what it is to become
            seed = self.trials.problem.task.search.seed
            failed = Failed(number=number, candidate=candidate, kind="mixed", reason=f"SpecError: {error}", seed=seed)
            self.recorder.append(trial_to_record(failed))
            self._finish(failed)
            return
        known = [{name: bound for name, bound in limits.items() if name in metrics} for limits in self.limits]
        if any(violation(metrics, limits) == 0.0 for limits in known):
            make_job = self.trials.trial_job if self.promotion is None else self.trials.screen_job
            self.runner.pool.submit(make_job(number, candidate))
            return
        reason = misses(metrics, known[0])
        trial = Infeasible(number=number, candidate=candidate, kind="mixed", reason=reason, metrics=metrics)
        self.recorder.append(trial_to_record(trial))
        self._finish(trial)

    def collect(self) -> None:
        """Wait for results, and record and tell them. A job whose worker died gets another attempt."""
        with self.recorder.watch.charge("evaluation"):
            outcomes = self.runner.pool.wait(timeout_s=1.0)
        for outcome in outcomes:
            if (again := next_attempt(outcome)) is not None:
                self.again.append(again)
            else:
                self._finish(self.trials.record(outcome, self.recorder))

    def _finish(self, trial: Trial) -> None:
        if self.promotion is not None:
            self.promotion.add(trial)
        with self.recorder.watch.charge("searcher"):
            self._tell([trial])
        self.after_each()


def _is_of(space: SearchSpace, trial: Trial) -> bool:
    """Return False for a trial that says nothing of its candidate.

    This is the original where not every layer may be left alone: it bears the levels of another candidate.
    """
    return trial.kind != "original" or space.candidate_of({}) is not None
