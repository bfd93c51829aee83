"""Contract of a searcher. Give `check_searcher` a function that makes yours.

    def make(context):
        return MySearcher(context, option=3)

    def test_my_searcher():
        check_searcher(make)

The function must be defined at the top of a module or file, because one clause runs it in another process.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..search import Candidate, Trial
from ..search.searchers import Reporting, make_searcher
from ._elsewhere import ContractViolation, SearcherFactory, asked_elsewhere
from ._elsewhere import play as _play
from ._problems import SyntheticProblem

N_SEEDS = 8
N_TRIALS = 40


def check_searcher(make: SearcherFactory, *, better_than_random: bool = True, keeps_limits: bool = False) -> None:
    """Check every clause. Raises `ContractViolation` for the first that is broken.

    better_than_random  False for a searcher that does not claim to be (random search itself)
    keeps_limits        True for one that claims to propose nothing that its static costs rule out (`check_limits`)
    """
    for clause in CLAUSES:
        clause(make)
    if keeps_limits:
        check_limits(make)
    if better_than_random:
        check_better_than_random(make)


def check_candidates(make: SearcherFactory) -> None:
    """Check that `ask(n)` gives at most n candidates of the space, whose levels are builtin ints; `ask(0)` gives
    none.
    """
    problem = SyntheticProblem(n_groups=5, n_levels=4)
    searcher = make(problem.context())
    _require(not searcher.ask(0), "candidates", "ask(0) must give no candidate")
    for n in (1, 3, 7):
        asked = searcher.ask(n)
        _require(
            0 < len(asked) <= n,
            "candidates",
            f"ask({n}) must give 1 to {n} candidates in a large space, gave {len(asked)}",
        )
        for candidate in asked:
            kinds = {type(level) for level in candidate.levels}
            _require(
                kinds == {int}, "candidates", f"levels must be builtin ints, got {sorted(k.__name__ for k in kinds)}"
            )
            problem.space.check(candidate)
        searcher.tell([problem.trial(i, c) for i, c in enumerate(asked)])


def check_no_duplicates(make: SearcherFactory) -> None:
    """Check that no candidate is proposed twice, nor one that was told: completed, raced out, failed, infeasible or
    running.
    """
    problem = SyntheticProblem(n_groups=3, n_levels=4)
    searcher = make(problem.context())
    searcher.tell([problem.trial(i, c) for i, c in enumerate(problem.uniform())])
    seen = set(problem.uniform())
    for i in range(10):
        for k, candidate in enumerate(searcher.ask(3)):
            _require(candidate not in seen, "no duplicates", f"{candidate.levels} was proposed or told before")
            seen.add(candidate)
            if k != i % 3:  # one of three is never told
                searcher.tell([_fate(problem, 10 * i + k, candidate)])


def check_exhaustion(make: SearcherFactory) -> None:
    """Check that a small space is proposed whole, each candidate once, and then nothing more; a space of one candidate
    too.
    """
    for n_groups, n_levels in ((1, 1), (2, 3)):
        problem = SyntheticProblem(n_groups=n_groups, n_levels=n_levels)
        searcher = make(problem.context())
        found: list[Candidate] = []
        for _ in range(2 * problem.space.size + 2):
            asked = searcher.ask(2)
            searcher.tell([_fate(problem, len(found) + i, c) for i, c in enumerate(asked)])
            found += asked
        _require(
            len(found) == problem.space.size and set(found) == set(problem.every_candidate()),
            "exhaustion",
            f"a space of {problem.space.size} candidates must be proposed whole and then no more; "
            f"{len(found)} were, {len(set(found))} of them different",
        )


def check_any_trial(make: SearcherFactory) -> None:
    """Check that `ask` works after trials in any order and of any type: late, never asked for, told twice, all
    failed.
    """
    problem = SyntheticProblem(n_groups=4, n_levels=4, limits={"divergence": (None, 0.5), "bytes": (None, 4e6)})
    searcher = make(problem.context())
    strangers = [c for i, c in enumerate(problem.every_candidate()) if i % 37 == 0]
    try:
        searcher.tell([])
        first = searcher.ask(6)
        second = searcher.ask(2)  # before anything is told
        searcher.tell(
            [problem.failure(50 + i, c, "failed" if i % 2 else "infeasible") for i, c in enumerate(strangers[:4])]
        )
        searcher.tell([problem.trial(60 + i, c) for i, c in enumerate(strangers[4:])])
        late = [_fate(problem, i, c) for i, c in enumerate(first)]
        searcher.tell(late[::-1])
        searcher.tell(late)  # again: after a resume the whole ledger is told
        third = searcher.ask(3)
        searcher.tell([problem.trial(20 + i, c) for i, c in enumerate(second)])
        fourth = searcher.ask(3)
    except Exception as error:
        raise ContractViolation(f"any trial: {type(error).__name__}: {error}") from error
    _require(bool(third) and bool(fourth), "any trial", "it stopped proposing although the space is not exhausted")
    searcher = make(problem.context())
    for i in range(12):
        asked = searcher.ask(2)
        _require(bool(asked), "any trial", "it stopped proposing because all trials failed")
        searcher.tell([problem.failure(2 * i + k, c, "failed") for k, c in enumerate(asked)])


def check_failures_are_not_results(make: SearcherFactory) -> None:
    """Check that a failed trial counts as no result: if the whole cheap half fails, the other half is still
    proposed.
    """
    problem = SyntheticProblem(n_groups=6, n_levels=5, seed=3)
    searcher = make(problem.context())
    middle = problem.table.cost_of("bytes", Candidate(levels=(1,) * 6))
    dear = 0
    for i in range(40):
        for candidate in searcher.ask(1):
            fails = problem.table.cost_of("bytes", candidate) < middle
            dear += not fails
            searcher.tell([problem.failure(i, candidate, "failed") if fails else problem.trial(i, candidate)])
    _require(dear >= 4, "failures", f"only {dear} of 40 proposals were where trials do not fail")


def check_dominated_are_not_results(make: SearcherFactory) -> None:
    """Check that a trial that was raced out counts as no result: if the whole cheap half is, the other half is still
    proposed.

    Its estimates may be learnt from, and it may lack any.
    """
    problem = SyntheticProblem(n_groups=6, n_levels=5, seed=3)
    searcher = make(problem.context())
    middle = problem.table.cost_of("bytes", Candidate(levels=(1,) * 6))
    dear = 0
    try:
        for i in range(40):
            for candidate in searcher.ask(1):
                loses = problem.table.cost_of("bytes", candidate) < middle
                dear += not loses
                dominated = problem.dominated(i, candidate, optimism=0.05)
                bare = replace(dominated, metrics={})
                searcher.tell([(bare if i % 4 == 3 else dominated) if loses else problem.trial(i, candidate)])
    except Exception as error:
        raise ContractViolation(f"dominated: {type(error).__name__}: {error}") from error
    _require(dear >= 4, "dominated", f"only {dear} of 40 proposals were where trials are not raced out")


def check_unmeasured_levels(make: SearcherFactory) -> None:
    """Check a sensitivity table with NaN and infinity, from levels that could not be measured: it is no obstacle."""
    problem = SyntheticProblem(n_groups=4, n_levels=4)
    rows = [list(row) for row in problem.table.divergence]
    rows[1][2], rows[2][3] = float("inf"), float("nan")
    table = replace(problem.table, divergence=tuple(tuple(row) for row in rows))
    try:
        asked = _play(make(replace(problem.context(), table=table)), problem, 60)
    except Exception as error:
        raise ContractViolation(f"unmeasured levels: {type(error).__name__}: {error}") from error
    _require(len(asked) == 60, "unmeasured levels", f"only {len(asked)} of 60 candidates came")


def check_limits(make: SearcherFactory) -> None:
    """Check that candidates whose static costs break a limit, by the table, come only after all others."""
    free = SyntheticProblem(n_groups=8, n_levels=5)
    cheapest, dearest = (free.table.cost_of("bytes", c) for c in (free.uniform()[-1], free.uniform()[0]))
    most = cheapest + 0.25 * (dearest - cheapest)
    problem = SyntheticProblem(n_groups=8, n_levels=5, limits={"bytes": (None, most)})
    searcher = make(problem.context())
    searcher.tell([problem.trial(1000 + i, c) for i, c in enumerate(problem.uniform())])
    over = [c for c in _play(searcher, problem, 30) if problem.table.cost_of("bytes", c) > most]
    _require(not over, "limits", f"{len(over)} of 30 proposals have more bytes than the limit allows, by the table")


def check_report(make: SearcherFactory) -> None:
    """Check a searcher's report on itself: JSON builtins, a trust in [0, 1], at any time; it changes no proposal."""
    problem = SyntheticProblem(n_groups=8)
    quiet, asked = make(problem.context()), make(problem.context())
    if not isinstance(asked, Reporting):
        return
    for start in (0, 3, 20):
        said = json.loads(_json(asked.report(), "report: what it reports"))
        trusts = [about["trust"] for about in said.values()]
        _require(all(0.0 <= trust <= 1.0 for trust in trusts), "report", f"trust must be in [0, 1], got {trusts}")
        same = _play(quiet, problem, 15, start=start) == _play(asked, problem, 15, start=start)
        _require(same, "report", "after a report it proposed other candidates")


def check_objectives(make: SearcherFactory) -> None:
    """Check two to four objectives, one of them maximised, and a context without a sensitivity table."""
    names = ("divergence", "bytes", "bops", "accuracy")
    for n, with_table in ((2, False), (3, True), (4, True), (4, False)):
        problem = SyntheticProblem(
            n_groups=5, n_levels=4, objectives=names[:n], table_noise=0.3 if with_table else None
        )
        try:
            asked = _play(make(problem.context()), problem, 15)
        except Exception as error:
            table = "a" if with_table else "no"
            raise ContractViolation(
                f"objectives: with {n} objectives and {table} table: {type(error).__name__}: {error}"
            ) from error
        _require(len(asked) == 15, "objectives", f"with {n} objectives only {len(asked)} of 15 candidates came")


def check_determinism(make: SearcherFactory) -> None:
    """Check that the same context and calls give the same asks, whatever the global generators hold, and another seed
    others.
    """
    problem = SyntheticProblem(n_groups=8)
    before = np.random.get_state(), random.getstate()  # noqa: NPY002 - the global generators must not matter
    try:
        played = []
        for global_seed in (5, 6):
            np.random.seed(global_seed)  # noqa: NPY002
            random.seed(global_seed)
            played.append(_play(make(problem.context(seed=1)), problem, 30))
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
    _require(played[0] == played[1], "determinism", "the same calls gave other candidates")
    other = _play(make(problem.context(seed=2)), problem, 30)
    _require(played[0] != other, "determinism", "another seed gave the same 30 candidates")


def check_another_process(make: SearcherFactory) -> None:
    """Check for equal asks in another process with another hash seed, from the start and from a state saved in
    mid-run.
    """
    problem = SyntheticProblem(n_groups=8)
    searcher = make(problem.context(seed=4))
    head = _play(searcher, problem, 20)
    state = _json(searcher.state_dict())
    tail = _play(searcher, problem, 12, start=20)
    for hash_seed in ("0", "4321"):
        fresh = asked_elsewhere(make, hash_seed, None, 32)
        _require(
            fresh == [list(c.levels) for c in head + tail], "another process", "it proposed other candidates there"
        )
        loaded = asked_elsewhere(make, hash_seed, state, 12)
        _require(
            loaded == [list(c.levels) for c in tail],
            "another process",
            "from a saved state it proposed other candidates there",
        )


def check_state(make: SearcherFactory) -> None:
    """Check that `state_dict` is JSON and a snapshot; loaded in mid-run, with candidates out, it goes on as the old one
    would.
    """
    problem = SyntheticProblem(n_groups=8, limits={"divergence": (None, 1.0)})
    for n_before in (0, 1, 5, 25):
        searcher = make(problem.context(seed=2))
        searcher.tell([problem.trial(1000 + i, c) for i, c in enumerate(problem.uniform())])
        asked = _play(searcher, problem, n_before)
        out = searcher.ask(3)  # these are still being evaluated when the state is saved
        state = searcher.state_dict()
        text = _json(state)
        late = [_fate(problem, 500 + i, c) for i, c in enumerate(out)]
        searcher.tell(late)
        expected = _play(searcher, problem, 12, start=100)
        _require(_json(state) == text, "state", "a state that was given out changed afterwards: it must be a snapshot")
        loaded = make(problem.context(seed=2))
        loaded.load_state_dict(json.loads(text))
        _require(_json(loaded.state_dict()) == text, "state", "a loaded state is saved as another one")
        loaded.tell(late)
        got = _play(loaded, problem, 12, start=100)
        _require(
            got == expected, "state", f"loaded after {n_before} trials, it proposed other candidates than the old one"
        )
        repeated = (set(asked) | set(out)) & set(got)
        _require(not repeated, "state", "after loading it proposed a candidate that the old one had proposed")


def check_better_than_random(make: SearcherFactory) -> None:
    """Check for more hypervolume than random search, by a paired sign-flip test, on a problem whose whole front is
    known.

    The problem has few enough candidates to list them all; random search gets the same seeds and as many trials.
    """
    differences = []
    for seed in range(N_SEEDS):
        problem = SyntheticProblem(n_groups=5, n_levels=5, seed=seed)
        best = problem.score(list(problem.every_candidate()))
        mine = problem.score(_play(make(problem.context(seed=seed)), problem, N_TRIALS)) / best
        theirs = problem.score(_play(make_searcher("random", problem.context(seed=seed)), problem, N_TRIALS)) / best
        differences.append(mine - theirs)
    p = _sign_flip(differences)
    _require(
        p < 0.05,
        "better than random",
        f"over {N_SEEDS} seeds it led random search by {np.mean(differences):+.4f} of the front's hypervolume "
        f"(p = {p:.3f}, needed < 0.05)",
    )


CLAUSES: tuple[Callable[[SearcherFactory], None], ...] = (
    check_candidates,
    check_no_duplicates,
    check_exhaustion,
    check_any_trial,
    check_failures_are_not_results,
    check_dominated_are_not_results,
    check_unmeasured_levels,
    check_objectives,
    check_determinism,
    check_state,
    check_report,
    check_another_process,
)


def _require(ok: bool, clause: str, message: str) -> None:
    if not ok:
        raise ContractViolation(f"{clause}: {message}")


def _fate(problem: SyntheticProblem, number: int, candidate: Candidate) -> Trial:
    """Fate of a candidate, by its levels alone: a fifth each fail, are infeasible and are raced out."""
    dice = sum((i + 1) * level for i, level in enumerate(candidate.levels)) % 5
    if dice == 2:
        return problem.dominated(number, candidate)
    if dice == 3:
        return problem.failure(number, candidate, "failed")
    return problem.failure(number, candidate, "infeasible") if dice == 4 else problem.trial(number, candidate)


def _json(state: dict[str, Any], what: str = "state: state_dict") -> str:
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractViolation(f"{what} must be JSON: {error}") from error


def _sign_flip(differences: Sequence[float]) -> float:
    """Exact one-sided p: the share of sign patterns of the differences with a mean at least as large as theirs."""
    values = np.asarray(differences)
    patterns = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    return float(np.mean(patterns @ values >= values.sum() - 1e-12))
