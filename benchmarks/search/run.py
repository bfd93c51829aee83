"""Lets searchers play on the benchmark's problems and writes a trace of each run.

python benchmarks/search/run.py --problem resnet20-bits --searchers evolution tpe --seeds 5 --budget 100

A run that is there already (with at least that budget) is left as it is, one that was cut off goes on. Two processes
may share the work: --share 1/2 and --share 2/2. `--list` says what there is, and for how long it would run.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from searchbench.play import SEARCHERS, plays, run
from searchbench.problems import PROBLEMS
from searchbench.traces import Trace

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    part, parts = (int(number) for number in arguments.share.split("/"))
    wanted = [
        (problem, searcher, seed)
        for problem, seed, searcher in product(arguments.problem, range(arguments.seeds), arguments.searchers)
        if plays(problem, searcher)
    ]
    for number, (problem, searcher, seed) in enumerate(wanted):
        if number % parts != part - 1:
            continue
        name = problem if arguments.samples is None else f"{problem}-{arguments.samples}"
        path = arguments.out / name / f"{searcher}-{seed}.json"
        if path.is_file() and Trace.load(path).context["budget"] >= arguments.budget:
            continue
        if arguments.list:
            print(path)
            continue
        began = time.monotonic()
        trace = run(
            problem, searcher, seed, evaluations=arguments.budget, work=arguments.work, samples=arguments.samples
        )
        trace = _with_budget(trace, arguments.budget, name)
        trace.save(path)
        print(
            f"{name:18} {searcher:12} seed {seed}: hypervolume {trace.volume_at(arguments.budget):.4f} at the cost of "
            f"{trace.evaluations:.0f} evaluations, {time.monotonic() - began:.0f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _with_budget(trace: Trace, budget: float, name: str) -> Trace:
    return replace(trace, problem=name, context={**trace.context, "budget": budget})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--searchers", nargs="+", choices=SEARCHERS, default=list(SEARCHERS))
    parser.add_argument("--seeds", type=int, default=5, help="so many: 0, 1, 2, …")
    parser.add_argument("--budget", type=float, default=100, help="full evaluations, or what costs as much")
    parser.add_argument("--samples", type=int, help="of a full evaluation; default the problem's own number")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", default="1/1", help="this process does the n-th of m parts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search" / "traces")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search-benchmark", help="runs and variant store")
    parser.add_argument("--list", action="store_true", help="say what would be done, and do nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
