"""Mixed precision from the search against the best uniform setting, at the same bytes.

OMP_NUM_THREADS=1 python benchmarks/quantization/mixed.py --out benchmarks/results/mixed-precision.json

Not a timing, so the machine need not be idle; deterministic. Each comparison (a model at a budget) takes a few minutes
on one thread. What is in the file already is left as it is, and a search that was cut off goes on from its folder in
`--runs`, so that the whole can be done in pieces.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from quantbench.bench import Bench
from quantbench.goals import mixed_goals
from quantbench.machine import machine
from quantbench.mixed import BUDGETS, mixed
from quantbench.subjects import SUBJECTS

SCHEMA_VERSION = 1
OUT = "benchmarks/results/mixed-precision.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--budgets", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--trials", type=int, default=120, help="of each search")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/mixed-precision"), help="folder of the searches")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "models": {}}
    if arguments.out.is_file():
        result = json.loads(arguments.out.read_text())
        if result.get("schema_version") != SCHEMA_VERSION:
            parser.error(f"{arguments.out} was made by another version of this benchmark; delete it, or choose another")
    for name in arguments.models:
        missing = [budget for budget in arguments.budgets if budget not in result["models"].get(name, {})]
        if not missing:
            continue
        bench = Bench(SUBJECTS[name]())
        for budget in missing:
            row = mixed(bench, budget, arguments.trials, arguments.runs, _say)
            date = datetime.datetime.now(datetime.UTC).date().isoformat()
            row |= {"metric": bench.subject.metric, "n_search": len(bench.subject.search)}
            row |= {"n_report": len(bench.subject.report), "machine": machine(arguments.threads), "date": date}
            options = ["--models", name, "--budgets", budget, "--trials", str(arguments.trials)]
            row["command"] = shlex.join(["python", "benchmarks/quantization/mixed.py", *options, "--out", OUT])
            result["models"].setdefault(name, {})[budget] = row
            result["goals"] = mixed_goals(result["models"])
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")  # not lost if the next one fails
    for goal in mixed_goals(result["models"]):
        _say(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:12} {goal['goal']}: {goal['detail']}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
