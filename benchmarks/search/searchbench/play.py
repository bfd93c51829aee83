"""One run of one searcher on one problem, to a trace. What was cut off goes on where it was."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import paredown
from paredown.search import Candidate, Completed
from paredown.search.searchers import make_searcher, uses_table
from paredown.search.values import trial_to_record
from paredown.testing import SyntheticProblem

from . import workbench
from .lab import BudgetSpent, RealLab, SyntheticLab
from .meter import Meter
from .problems import PROBLEMS, Problem, SyntheticSpec
from .rivals import NEEDS_A_MODEL, NEEDS_LABELS, RIVALS
from .traces import Box, Trace, trace_of
from .unseen import judged

PRODUCT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "evolution": ("evolution", {}),
    "random": ("random", {}),
    "tpe": ("optuna:tpe", {}),
    "nsga2": ("optuna:nsga2", {}),
    "tpe-full": ("optuna:tpe", {}),
    "nsga2-full": ("optuna:nsga2", {}),
    "tpe+sweep": ("optuna:tpe", {"seed_with_sweep": True}),
    "nsga2+sweep": ("optuna:nsga2", {"seed_with_sweep": True}),
    "genetic": ("genetic", {}),
    "policy": ("policy", {}),
}
"""Those that the product has: name here -> (name of the searcher, its options)."""
UNRACED = frozenset({"tpe-full", "nsga2-full"})
"""Those whose trials are all evaluated in full, as these samplers are used elsewhere; racing need not suit them."""
OWN = "evolution"
"""The default path, which everything else is compared with."""
ASSISTED = frozenset({"tpe+sweep", "nsga2+sweep"})
"""Rivals that are handed the product's own table and sweep."""
SEARCHERS = (*PRODUCT, *RIVALS)
_PATIENCE = 200


def plays(problem: str, searcher: str) -> bool:
    """Whether that searcher can take part there."""
    spec, (name, method) = PROBLEMS[problem], split_name(searcher)
    if isinstance(spec, SyntheticSpec):
        return name not in NEEDS_A_MODEL | UNRACED and not method
    return not (name in NEEDS_LABELS and spec.quality.get("metric") == "cosine")


def split_name(searcher: str) -> tuple[str, str]:
    """NAME@METHOD is the searcher NAME with another quantizer of the weights; "" where there is none."""
    name, _, method = searcher.partition("@")
    return name, method


def run(
    problem: str, searcher: str, seed: int, *, evaluations: float, work: Path, samples: int | None = None,
    table_for: float | None = None, judged_at: Sequence[float] = (),
) -> Trace:  # fmt: skip
    """Run a searcher until the cost of `evaluations` full evaluations is spent. `work` holds the runs and their store.

    samples    of a full evaluation, instead of the problem's own
    table_for  number of evaluations that the sensitivity table is planned for; default `evaluations`
    judged_at  costs in full evaluations; the fronts that were known then are judged on unseen samples
    """
    if split_name(searcher)[0] not in SEARCHERS:
        raise ValueError(f"searcher must be one of {', '.join(SEARCHERS)}, got {searcher!r}")
    spec = PROBLEMS[problem]
    if isinstance(spec, SyntheticSpec):
        return _synthetic(spec, searcher, seed, evaluations)
    return _real(
        spec, searcher, seed, evaluations, work, samples or spec.samples, table_for or evaluations, judged_at
    )  # fmt: skip


def _real(
    spec: Problem, searcher: str, seed: int, evaluations: float, work: Path, samples: int, table_for: float,
    judged_at: Sequence[float],
) -> Trace:  # fmt: skip
    plain, method = split_name(searcher)
    spec = spec.as_methods(method) if method else spec
    name, params = PRODUCT.get(plain, ("random", {}))  # a rival's run needs no searcher, but a task names one
    task = spec.task(name, params, seed, samples, race=plain not in UNRACED)
    folder = work / f"{spec.name}-{samples}" / f"{searcher}-{seed}"
    with workbench.opened(task, folder, work / "store") as bench:
        if plain in RIVALS:
            lab = RealLab(bench, evaluations * bench.full)
            with contextlib.suppress(BudgetSpent):
                RIVALS[plain](lab, np.random.default_rng(seed))
        else:
            _explore(bench, evaluations, table_for)
        trace = trace_of(
            bench.ledger.records, bench.box(spec.floor, spec.ceiling), problem=spec.name, searcher=searcher,
            seed=seed, full=bench.full, table_samples=bench.table_samples, metric=bench.problem.context.metric.name,
            seconds=workbench.seconds_of(bench.ledger.records), context=context(),
        )  # fmt: skip
        return judged(bench.problem, trace, spec.unseen, judged_at) if judged_at else trace


def _explore(bench: workbench.Workbench, evaluations: float, table_for: float) -> None:
    """Explore with one of the product's searchers until the evaluations are spent."""

    def stop_when_spent() -> None:
        if bench.meter.read() >= evaluations * bench.full:
            bench.runner.clock.stopping.set()

    table = bench.measure_table(table_for)
    stop_when_spent()
    bench.explore(table, stop_when_spent)


def _synthetic(spec: SyntheticSpec, searcher: str, seed: int, evaluations: float) -> Trace:
    """The seed makes the problem and seeds the searcher. No racing there: every trial is a full evaluation."""
    began = time.perf_counter()
    problem = SyntheticProblem(seed=seed, **spec.arguments)
    records: list[dict[str, Any]] = []
    budget = evaluations * spec.samples
    if searcher in RIVALS:
        lab = SyntheticLab(problem, budget, spec.samples, records)
        with contextlib.suppress(BudgetSpent):
            RIVALS[searcher](lab, np.random.default_rng(seed))
    else:
        _ask_and_tell(problem, spec, searcher, seed, budget, records)
    return trace_of(
        records, synthetic_box(problem, spec), problem=spec.name, searcher=searcher, seed=seed, full=spec.samples,
        table_samples=problem.table.n_samples, instance=seed, seconds=time.perf_counter() - began, context=context(),
    )  # fmt: skip


def _ask_and_tell(
    problem: SyntheticProblem, spec: SyntheticSpec, searcher: str, seed: int, budget: float,
    records: list[dict[str, Any]],
) -> None:  # fmt: skip
    name, params = PRODUCT[searcher]
    told = []
    for number, candidate in enumerate(problem.uniform()):
        metrics = problem.metrics(candidate)
        told.append(
            Completed(number=number, candidate=candidate, kind="uniform", metrics=metrics, samples=spec.samples)
        )
    records += map(trial_to_record, told)
    if uses_table(name, params):
        records += _rows(problem)
    player = make_searcher(name, problem.context(seed), params)
    player.tell(told)
    meter = Meter(records, full=spec.samples, table_samples=problem.table.n_samples)
    known = {trial.candidate for trial in told}
    while meter.read() < budget and (found := _new(player.ask, known)) is not None:
        known.add(found)
        trial = problem.trial(len(records), found)
        records.append({**trial_to_record(trial), "samples": spec.samples})
        player.tell([trial])


def _rows(problem: SyntheticProblem) -> list[dict[str, Any]]:
    """The table's cost, as in a chain of equal layers: what runs before the group is not run again."""
    n_groups = len(problem.space)
    return [
        {"type": "row", "group": g, "level": level, "passes": problem.table.n_samples * (n_groups - g) / n_groups}
        for g, group in enumerate(problem.space.groups)
        for level, spec in enumerate(group.levels)
        if not spec.is_neutral
    ]


def _new(ask: Any, known: set[Candidate]) -> Candidate | None:
    for _ in range(_PATIENCE):
        asked = ask(1)
        if not asked or asked[0] not in known:
            return asked[0] if asked else None
    return None


def synthetic_box(problem: SyntheticProblem, spec: SyntheticSpec) -> Box:
    fixed = problem.table.fixed["bytes"]
    return Box(
        floor=spec.floor, ceiling=spec.ceiling, cheapest=fixed + float(problem.bytes.min(axis=1).sum()),
        dearest=fixed + float(problem.bytes.max(axis=1).sum()),
    )  # fmt: skip


def known_optimum(spec: SyntheticSpec, instance: int) -> float:
    """Hypervolume of the true front of a small instance, by looking at every candidate."""
    problem = SyntheticProblem(seed=instance, **spec.arguments)
    points = [(problem.divergence(c), problem.table.cost_of("bytes", c)) for c in problem.every_candidate()]
    return synthetic_box(problem, spec).volume(points)


def context() -> dict[str, Any]:
    """Where it ran."""
    return {
        "paredown": paredown.__version__,
        "torch": str(torch.__version__),
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "processor": _processor(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
