"""Allocation against uniform settings, and the joint space against each family alone, at the same cost of searching.

OMP_NUM_THREADS=1 python benchmarks/pruning/joint.py --out benchmarks/results/pruning-joint.json

Not a timing: the machine need not be idle. `--minutes 2.5` stops after so many, and the same command again goes on.
Points are chosen on the search split; every figure is of the report split, which nothing before has seen.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import torch
from jointbench.families import ALLOCATIONS, COSTS, FAMILIES, MODELS, task
from jointbench.goals import goals
from jointbench.play import allocations, front_on_report, searched, volume
from pieces import Pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--evaluations",
        type=int,
        default=150,
        help="the cost of so many is what each search may spend; default as many as a task has by itself",
    )
    parser.add_argument("--samples", type=int, default=256, help="of the search split, in a full evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command again goes on")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "paredown-joint", help="for the runs"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: getattr(arguments, name) for name in ("models", "evaluations", "samples", "seed")}
    pieces = Pieces(
        arguments.out, command=shlex.join(["python", "benchmarks/pruning/joint.py", *_shared(sys.argv[1:])]),
        settings=settings, folders=("compressors", "search", "evaluators", "benchmarks/pruning/jointbench"),
        minutes=arguments.minutes,
    )  # fmt: skip
    work = arguments.work / f"{pieces.result['code']}-{arguments.samples}-{arguments.seed}"
    n_left = 0
    for name in arguments.models:
        data = pieces.result["models"].setdefault(name, {"allocation": {}, "families": {}})
        for kind, spaces in (("allocation", ALLOCATIONS), ("families", FAMILIES)):
            for label, space in spaces.items():
                if label in data[kind]:
                    continue
                n_left += 1
                if pieces.spent:
                    continue
                _say(f"{name}, {kind}: {label}")
                cost = COSTS.get(label, "bytes")
                made = task(name, space, cost=cost, samples=arguments.samples, seed=arguments.seed)
                folder = work / f"{name}-{kind}-{label.replace(' ', '-')}"
                found = searched(
                    made, folder, work / "store", evaluations=arguments.evaluations, spent=lambda: pieces.spent
                )
                if found is None:
                    continue
                if kind == "allocation":
                    data[kind][label] = allocations(found, cost, _say)
                else:
                    points = front_on_report(found, cost)
                    data[kind][label] = {
                        "trials": len(found.trials), "volume": volume(points, cost, found.original_bytes),
                        "front": points,
                    }  # fmt: skip
                    _say(f"  {len(points)} points, hypervolume {data[kind][label]['volume']:.3f}")
                n_left -= 1
                pieces.result["goals"] = goals(pieces.result["models"])
                pieces.save()
    for goal in pieces.result.get("goals", []):
        print(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:10} {goal['goal']}: {goal['detail']}")
    if n_left:
        _say("not all of it is done: the same command again goes on")


def _shared(words: list[str]) -> list[str]:
    """Without what is this machine's business, or how many pieces it was done in."""
    for name in ("--minutes", "--work"):
        at = words.index(name) if name in words else len(words)
        words = words[:at] + words[at + 2 :]
    return words


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
