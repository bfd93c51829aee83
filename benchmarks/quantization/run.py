"""Quality of every method, format and width on the report split, beside FP32 and other quantizers.

OMP_NUM_THREADS=1 python benchmarks/quantization/run.py --out benchmarks/results/quantization.json

Not a timing, so the machine need not be idle; deterministic. With one thread about twenty
minutes. A model that is in the file already is left as it is, so a run that was cut
off goes on; delete the file to begin anew. Rivals that are not installed are looked for in the folder PAREDOWN_PEERS,
and left out with the reason.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path

import torch
from quantbench.bench import Bench
from quantbench.goals import goals
from quantbench.machine import machine
from quantbench.measure import measure, rivals
from quantbench.subjects import SUBJECTS

SCHEMA_VERSION = 2
"""Since 2 each row has its divergence on the search part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--samples", type=int, help="of each part; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rivals-again", action="store_true", help="of the models that are there: ask others anew")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "schema_version": SCHEMA_VERSION,
        "command": shlex.join(["python", "benchmarks/quantization/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(arguments.threads),
        "models": {},
        "goals": [],
    }
    if arguments.out.is_file():
        known = json.loads(arguments.out.read_text())
        if known.get("schema_version") != SCHEMA_VERSION:
            parser.error(f"{arguments.out} was made by another version of this benchmark; delete it, or choose another")
        result["models"] = known["models"]
    for name in arguments.models:
        if name not in result["models"]:
            result["models"][name] = measure(SUBJECTS[name](), _say, arguments.samples)
        elif arguments.rivals_again:
            result["models"][name]["rivals"] = rivals(Bench(SUBJECTS[name]()), _say)
        else:
            continue
        result["goals"] = goals(result["models"])
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")  # what is there is not lost if the next one fails
    for goal in result["goals"]:
        _say(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:12} {goal['goal']}: {goal['detail']}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
