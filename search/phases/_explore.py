"""The search itself: ask, evaluate, tell, until the budget is spent or the space is exhausted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from ...errors import SpecError
from ..evaluation import AnyJob
from ..searchers import Reporting, RoundRobinSearcher, SearchContext, Searcher, guides_of, limits_of, make_searcher
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
    violation,
)
from ._promotion import EVERY, Promotion, as_screened
from ._session import SearchSession, next_attempt, on_every_device

_PATIENCE = 100
"""So many known candidates in a row, and the searcher is taken to have nothing new."""


def explore(
    session: SearchSession,
    table: SensitivityTable | None,
    after_each: Callable[[], None],
    *,
    seeds: Mapping[Candidate, str] | None = None,
) -> None:
    """Workers are kept busy while there is budget, and told of in any order. What was found before is told first.

    A candidate that has a trial already is not evaluated again and costs nothing. `after_each` is called after each
    trial. Where the search split is large, candidates are screened on its first samples, and the searcher knows them
    from these alone; those that are on the front then are seen on the whole split (`Promotion`), also when the time is
    up: it was reckoned with.

    seeds  candidates that are proposed before the searcher is asked, and the names of the plans that they come from
    """
    exploration = _Exploration(session, table, after_each, seeds or {})
    while exploration.submit_some() or session.pool.busy or exploration.again:
        exploration.collect()
        session.recorder.say("search", done=session.state.n_mixed, total=session.task.budget.trials)
    while exploration.promote_some() or session.pool.busy or exploration.again:
        exploration.collect()
        session.recorder.say("finalists", done=exploration.n_promoted, total=exploration.n_finalists)
    exploration.record_report()
    left = session.task.budget.trials - session.state.n_mixed
    if exploration.is_exhausted and left > 0:
        session.recorder.note(f"the searcher has nothing left to propose, {left} trials before the end of the budget")


class _Exploration:
    def __init__(
        self,
        session: SearchSession,
        table: SensitivityTable | None,
        after_each: Callable[[], None],
        seeds: Mapping[Candidate, str],
    ) -> None:
        task, problem = session.task, session.problem
        self.session, self.after_each = session, after_each
        dropped = session.state.dropped or ()
        self.narrowed = reduce_space(problem.space, table, dropped) if table is not None and dropped else None
        devices = [device.profile.name for device in problem.devices]
        self.limits = limits_of(task, session.recorder.limits, session.original_costs, devices)
        wanted: list[tuple[tuple[Objective, ...], Limits]] = []
        for each in zip(guides_of(problem.guide, devices), self.limits, strict=True):
            if each not in wanted:  # where nothing depends on the device, one searcher serves all
                wanted.append(each)
        searchers = [self._searcher(guide, limits, table) for guide, limits in wanted]
        self.searcher: Searcher = (
            searchers[0] if len(searchers) == 1 else RoundRobinSearcher(searchers, turn=session.state.n_mixed)
        )
        self.promotion = None
        if session.n_screened:
            self.promotion = Promotion(on_every_device(problem), session.costs, self.limits)
            for trial in session.state.trials:
                self.promotion.add(trial)
        self.n_promoted, self.n_finalists = 0, 0
        self._tell([trial for trial in session.state.trials if _is_of(problem.space, trial)])
        self.known = {trial.candidate for trial in session.state.trials}
        for trial in session.state.trials:
            if trial.candidate in seeds and trial.kind != "original":
                session.recorder.note(f"t{trial.number} is the plan {seeds[trial.candidate]}")
        self.seeds = dict(seeds)
        self._seeds_left = [candidate for candidate in seeds if candidate not in self.known]
        self.left = task.budget.trials - session.state.n_mixed
        self.numbers = _free_numbers({trial.number for trial in session.state.trials})
        self.again: list[AnyJob] = []
        self.is_exhausted = False
        self._turn = 0

    def _searcher(self, guide: tuple[Objective, ...], limits: Limits, table: SensitivityTable | None) -> Searcher:
        session, narrowed = self.session, self.narrowed
        context = SearchContext(
            space=narrowed.space if narrowed else session.problem.space, objectives=guide, limits=limits,
            seed=session.task.search.seed, table=narrowed.table if narrowed else table,
        )  # fmt: skip
        return make_searcher(session.task.search.searcher, context, session.task.search.params)

    def record_report(self) -> None:
        """How far the searcher's own model is to be trusted, where it says so."""
        if isinstance(self.searcher, Reporting) and (report := self.searcher.report()) != self.session.state.searcher:
            self.session.recorder.append({"type": "searcher", "report": report})

    def submit_some(self) -> bool:
        """Give every worker something to do, and something to go on with. Whether anything was submitted."""
        submitted = False
        while self.session.pool.idle and self.again:  # also when the time is up: these count as asked for
            self.session.pool.submit(self.again.pop())
            submitted = True
        while self.session.pool.idle and self.left > 0 and not self._is_time_up():
            if self.promotion is not None and self._is_promotions_turn() and self._promote():
                submitted = True
                continue
            with self.session.recorder.watch.charge("searcher"):
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
        """Give every worker one of those that are on the front by their first samples. Whether any was submitted."""
        submitted = False
        if self.promotion is None or self.session.stopping.is_set():
            return False
        self.n_finalists = self.n_finalists or self.promotion.n_due()
        while self.session.pool.idle and (self.again or self.promotion.n_due()):
            if self.again:
                self.session.pool.submit(self.again.pop())
            else:
                self.n_promoted += self._promote()
            submitted = True
        return submitted

    def _promote(self) -> bool:
        trial = None if self.promotion is None else self.promotion.next()
        if trial is None or self.promotion is None:
            return False
        self.promotion.asked(trial)
        self._turn = self.session.state.n_mixed
        self.session.pool.submit(self.session.trial_job(next(self.numbers), "mixed", trial.candidate))
        return True

    def _is_promotions_turn(self) -> bool:
        return self.session.state.n_mixed - self._turn >= EVERY

    def _is_time_up(self) -> bool:
        """So that what is due can still be seen on the whole split."""
        due = 0 if self.promotion is None else self.promotion.n_due()
        return self.session.out_of_time or self.session.ends_within(due)

    def _ask(self) -> Candidate | None:
        if self._seeds_left:
            return self._seeds_left.pop(0)
        for _ in range(_PATIENCE):
            asked = self.searcher.ask(1)
            if not asked:
                return None
            candidate = self.narrowed.outer(asked[0]) if self.narrowed else asked[0]
            if candidate not in self.known:
                return candidate
        return None

    def _tell(self, trials: Sequence[Trial]) -> None:
        """What the searcher may know of: nothing that uses a level that was dropped from its space, and only what the
        first samples say where candidates are screened."""
        if self.promotion is not None:
            trials = [view for trial in trials if (view := as_screened(trial)) is not None]
        if told := self.narrowed.told(trials) if self.narrowed else trials:
            self.searcher.tell(told)

    def _submit(self, number: int, candidate: Candidate) -> None:
        """Send it to a worker, unless its static costs already break a limit on every device."""
        if candidate in self.seeds:
            self.session.recorder.note(f"t{number} is the plan {self.seeds[candidate]}")
        try:
            metrics = self.session.static(candidate)
        except SpecError as error:  # what is left of a layer is too small for what it is to become
            seed = self.session.task.search.seed
            failed = Failed(number=number, candidate=candidate, kind="mixed", reason=f"SpecError: {error}", seed=seed)
            self.session.recorder.trial(failed)
            self._finish(failed)
            return
        known = [{name: bound for name, bound in limits.items() if name in metrics} for limits in self.limits]
        if any(violation(metrics, limits) == 0.0 for limits in known):
            screened = self.promotion is not None
            job = self.session.screen_job if screened else partial(self.session.trial_job, kind="mixed")
            self.session.pool.submit(job(number, candidate=candidate))
            return
        reason = misses(metrics, known[0])
        trial = Infeasible(number=number, candidate=candidate, kind="mixed", reason=reason, metrics=metrics)
        self.session.recorder.trial(trial)
        self._finish(trial)

    def collect(self) -> None:
        with self.session.recorder.watch.charge("evaluation"):
            outcomes = self.session.pool.wait(timeout_s=1.0)
        for outcome in outcomes:
            if (again := next_attempt(outcome)) is not None:
                self.again.append(again)
            else:
                self._finish(self.session.record_trial(outcome))

    def _finish(self, trial: Trial) -> None:
        if self.promotion is not None:
            self.promotion.add(trial)
        with self.session.recorder.watch.charge("searcher"):
            self._tell([trial])
        self.after_each()


def _is_of(space: SearchSpace, trial: Trial) -> bool:
    """Whether the trial says something of its candidate. The original does so only where every layer may be left alone:
    elsewhere it bears another candidate's levels."""
    return trial.kind != "original" or space.candidate_of({}) is not None


def _free_numbers(used: set[int]) -> Iterator[int]:
    number = 0
    while True:
        if number not in used:
            yield number
        number += 1
