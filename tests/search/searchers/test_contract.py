"""Our searchers keep the contract, and for each clause there is one that breaks it and is caught."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from paredown.search import Candidate, Completed, EarlyStopped, SearchContext, Searcher, Trial
from paredown.search.searchers import make_searcher
from paredown.testing import _searchers as contract
from paredown.testing._searchers import ContractViolation, check_searcher


def make_evolution(context: SearchContext) -> Searcher:
    return make_searcher("evolution", context, {"initial": 8})


def make_random(context: SearchContext) -> Searcher:
    return make_searcher("random", context)


def make_nsga2(context: SearchContext) -> Searcher:
    return make_searcher("optuna:nsga2", context, {"params": {"population_size": 10}})


def make_tpe(context: SearchContext) -> Searcher:
    return make_searcher("optuna:tpe", context, {"params": {"n_ei_candidates": 4}})


def make_qmc(context: SearchContext) -> Searcher:
    options = {"params": {"warn_independent_sampling": False, "scramble": True}}
    return make_searcher("optuna:optuna.samplers.QMCSampler", context, options)


def make_swept_nsga2(context: SearchContext) -> Searcher:
    """NSGA-II from the sweep, where there is a table."""
    options = {"seed_with_sweep": context.table is not None, "params": {"population_size": 10}}
    return make_searcher("optuna:nsga2", context, options)


def make_genetic(context: SearchContext) -> Searcher:
    return make_searcher("genetic", context, {"population": 8})


def make_swept_genetic(context: SearchContext) -> Searcher:
    """With reference directions, few elites, and the sweep where there is a table."""
    options = {"population": 8, "elites": 2, "survival": "reference", "seed_with_sweep": context.table is not None}
    return make_searcher("genetic", context, options)


def make_policy(context: SearchContext) -> Searcher:
    return make_searcher("policy", context)


@pytest.mark.parametrize(
    ("make", "better_than_random", "keeps_limits"),
    [
        (make_evolution, True, True),
        (make_genetic, False, True),
        (make_swept_genetic, True, True),
        (make_policy, False, True),
        (make_random, False, False),
        (make_nsga2, False, False),
        (make_tpe, False, False),
        (make_swept_nsga2, False, False),
        (make_qmc, False, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ours_keep_it(make: Callable[[SearchContext], Searcher], better_than_random: bool, keeps_limits: bool) -> None:
    check_searcher(make, better_than_random=better_than_random, keeps_limits=keeps_limits)


class Double:
    """Random search with one fault: each subclass overrides one thing."""

    def __init__(self, context: SearchContext) -> None:
        self.context = context
        self.inner = make_searcher("random", context)

    def ask(self, n: int) -> list[Candidate]:
        return self.inner.ask(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        self.inner.tell(trials)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class NumpyLevels(Double):
    def ask(self, n: int) -> list[Candidate]:
        return [Candidate(levels=tuple(np.array(c.levels))) for c in super().ask(n)]  # type: ignore[arg-type]


class Generous(Double):
    def ask(self, n: int) -> list[Candidate]:
        return super().ask(n + 1)


class Forgetful(Double):
    """Proposes what it was told."""

    def tell(self, trials: Sequence[Trial]) -> None:
        known = {tuple(levels) for levels in self.inner.state_dict()["known"]}
        self.inner.tell([t for t in trials if t.candidate.levels in known])


class Repeating(Double):
    """Proposes again what failed."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.failed: list[Candidate] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.failed += [t.candidate for t in trials if not isinstance(t, Completed)]

    def ask(self, n: int) -> list[Candidate]:
        again, self.failed = self.failed[:n], self.failed[n:]
        return again + super().ask(n - len(again))


class GivesUp(Double):
    """Draws ten times, and stops although something is left."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.left = 6 if context.space.size < 100 else 10_000

    def ask(self, n: int) -> list[Candidate]:
        self.left -= n
        return super().ask(n) if self.left > 0 else []


class NeverEnds(Double):
    """Begins again when the space is exhausted."""

    def ask(self, n: int) -> list[Candidate]:
        found = super().ask(n)
        return found if found or n == 0 else make_searcher("random", self.context).ask(n)


class KnowsOnlyItsOwn(Double):
    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.mine: set[Candidate] = set()

    def ask(self, n: int) -> list[Candidate]:
        found = super().ask(n)
        self.mine |= set(found)
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.mine.remove(trial.candidate)
        super().tell(trials)


class NeedsASuccess(Double):
    """Stops when everything that it proposed failed."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.n_told, self.n_good = 0, 0

    def tell(self, trials: Sequence[Trial]) -> None:
        self.n_told += len(trials)
        self.n_good += sum(isinstance(t, Completed) for t in trials)
        super().tell(trials)

    def ask(self, n: int) -> list[Candidate]:
        return [] if self.n_told > 8 and not self.n_good else super().ask(n)


class FailureRanksFirst(Double):
    """Takes a failure for an excellent result, and searches around it."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.best = Candidate(levels=tuple(n - 1 for n in context.space.n_levels))
        self.known: set[Candidate] = set()

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.known.add(trial.candidate)
            if not isinstance(trial, Completed):
                self.best = trial.candidate
        super().tell(trials)

    def ask(self, n: int) -> list[Candidate]:
        found = []
        rng = random.Random(len(self.known))
        for _ in range(n):
            candidate = self.best
            while candidate in self.known:
                g = rng.randrange(len(candidate.levels))
                levels = list(candidate.levels)
                levels[g] = min(levels[g] + rng.randrange(-1, 2), self.context.space.n_levels[g] - 1)
                candidate = Candidate(levels=tuple(max(level, 0) for level in levels))
            self.known.add(candidate)
            found.append(candidate)
        return found


class EstimateRanksFirst(FailureRanksFirst):
    """Takes what was raced out for an excellent result, and searches around it."""

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell([t for t in trials if isinstance(t, Completed | EarlyStopped)])


class NeedsEstimates(Double):
    """Reads an estimate that a trial need not have."""

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if isinstance(trial, EarlyStopped):
                _ = trial.metrics["divergence"].value
        super().tell(trials)


class TrustsTheTable(Double):
    """Rounds the table's divergences, which NaN does not like."""

    def ask(self, n: int) -> list[Candidate]:
        if self.context.table is not None:
            _ = [round(value) for row in self.context.table.divergence for value in row]
        return super().ask(n)


class NumpyReport(Double):
    def report(self) -> dict[str, Any]:
        return {"divergence": {"trust": np.float32(0.5)}}


class Boastful(Double):
    def report(self) -> dict[str, Any]:
        return {"divergence": {"trust": 1.5}}


class DistractedByReport(Double):
    """Proposes something for itself when it is asked for a report."""

    def report(self) -> dict[str, Any]:
        self.inner.ask(1)
        return {}


class TwoObjectivesOnly(Double):
    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if isinstance(trial, Completed):
                _quality, _cost = self.context.vector(trial)
        super().tell(trials)


class NeedsTheTable(Double):
    def ask(self, n: int) -> list[Candidate]:
        if self.context.table is None:
            raise ValueError("no table")
        return super().ask(n)


class GlobalState(Double):
    """Draws from numpy's global generator."""

    def ask(self, n: int) -> list[Candidate]:
        np.random.random()  # noqa: NPY002
        high = self.context.space.n_levels
        return [Candidate(levels=tuple(np.random.randint(0, high).tolist())) for _ in range(n)]  # noqa: NPY002


class SeedBlind(Double):
    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.inner = make_searcher(
            "random",
            SearchContext(
                space=context.space, objectives=context.objectives, seed=0, table=None, limits=context.limits
            ),
        )


class HashOrder(Double):
    """Its order depends on the hash of a string."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.inner = make_searcher(
            "random",
            SearchContext(
                space=context.space,
                objectives=context.objectives,
                seed=context.seed + (hash("layer") % 1000),
                table=None,
                limits=context.limits,
            ),
        )


class NotJson(Double):
    def state_dict(self) -> dict[str, Any]:
        return {"known": {(1, 2)}}


class LiveState(Double):
    """Gives out its own list instead of a copy."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.n_asked = [0]

    def ask(self, n: int) -> list[Candidate]:
        self.n_asked[0] += n
        return super().ask(n)

    def state_dict(self) -> dict[str, Any]:
        return {"inner": super().state_dict(), "n_asked": self.n_asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["inner"])
        self.n_asked = list(state["n_asked"])


class StateWithoutMemory(Double):
    """Loads a state and forgets what was proposed."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class ByProcess(Double):
    """Says the same in this process, and something else in another."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.inner = make_searcher(
            "random",
            SearchContext(
                space=context.space,
                objectives=context.objectives,
                seed=context.seed + os.getpid(),
                table=None,
                limits=context.limits,
            ),
        )


# The clause that must catch each, and the beginning of what it says.
CAUGHT: list[tuple[type[Double], Callable[[Callable[[SearchContext], Searcher]], None], str]] = [
    (NumpyLevels, contract.check_candidates, "candidates: levels must be builtin ints"),
    (Generous, contract.check_candidates, "candidates: ask"),
    (Forgetful, contract.check_no_duplicates, "no duplicates"),
    (Repeating, contract.check_no_duplicates, "no duplicates"),
    (GivesUp, contract.check_exhaustion, "exhaustion"),
    (NeverEnds, contract.check_exhaustion, "exhaustion"),
    (KnowsOnlyItsOwn, contract.check_any_trial, "any trial: KeyError"),
    (NeedsASuccess, contract.check_any_trial, "any trial: it stopped proposing because all trials failed"),
    (FailureRanksFirst, contract.check_failures_are_not_results, "failures"),
    (EstimateRanksFirst, contract.check_dominated_are_not_results, "dominated: only"),
    (NeedsEstimates, contract.check_dominated_are_not_results, "dominated: KeyError"),
    (TrustsTheTable, contract.check_unmeasured_levels, "unmeasured levels: OverflowError"),
    (NumpyReport, contract.check_report, "report: what it reports must be JSON"),
    (Boastful, contract.check_report, "report: trust must be in [0, 1], got [1.5]"),
    (DistractedByReport, contract.check_report, "report: after a report it proposed other candidates"),
    (TwoObjectivesOnly, contract.check_objectives, "objectives: with 3 objectives and a table: ValueError"),
    (NeedsTheTable, contract.check_objectives, "objectives: with 2 objectives and no table: ValueError"),
    (GlobalState, contract.check_determinism, "determinism: the same calls"),
    (SeedBlind, contract.check_determinism, "determinism: another seed"),
    (NotJson, contract.check_state, "state: state_dict must be JSON"),
    (LiveState, contract.check_state, "state: a state that was given out changed"),
    (StateWithoutMemory, contract.check_state, "state: "),
    (HashOrder, contract.check_another_process, "another process: it proposed other"),
    (ByProcess, contract.check_another_process, "another process: it proposed other"),
    (Double, contract.check_better_than_random, "better than random"),
    (Double, contract.check_limits, "limits: "),
]


@pytest.mark.parametrize(("double", "clause", "message"), CAUGHT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_one_is_caught(
    double: type[Double], clause: Callable[[Callable[[SearchContext], Searcher]], None], message: str
) -> None:
    with pytest.raises(ContractViolation) as caught:
        clause(double)
    assert str(caught.value).startswith(message)


def test_every_clause_has_a_broken_one() -> None:
    assert {clause for _, clause, _ in CAUGHT} == {
        *contract.CLAUSES,
        contract.check_better_than_random,
        contract.check_limits,
    }


def test_the_doubles_are_whole_but_for_their_fault() -> None:
    """Random search in the same wrapping keeps every clause, so it is the fault that is caught."""
    check_searcher(Double, better_than_random=False)


def test_the_whole_suite_refuses_each_of_them() -> None:
    for double in (Generous, Repeating, StateWithoutMemory):
        with pytest.raises(ContractViolation):
            check_searcher(double, better_than_random=False)


def test_a_factory_that_cannot_be_found_elsewhere_is_refused() -> None:
    with pytest.raises(ContractViolation, match="must be a function at the top of a module"):
        contract.check_another_process(lambda context: make_searcher("random", context))
