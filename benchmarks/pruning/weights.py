"""Scores, patterns, low rank and their allocation: quality on the report split, beside random, textbook and uniform.

OMP_NUM_THREADS=1 python benchmarks/pruning/weights.py --out benchmarks/results/pruning-weights.json

Not a timing, so the machine need not be idle; deterministic. With one thread about a quarter of an hour. A section that
is in the file already is left as it is, so a run that was cut off goes on; delete the file to begin anew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from weightbench import rows
from weightbench.allocation import EVALUATIONS, allocation
from weightbench.bench import Bench, opened
from weightbench.goals import goals

SECTIONS = {
    "resnet20": ("scores", "patterns", "forms"),
    "stories260k": ("scores", "patterns", "references", "forms"),
}
SAMPLES = {"resnet20": 1500, "stories260k": 32}
"""Of the report split, so that all of it takes a quarter of an hour."""
ALLOCATIONS = {"resnet20": ("magnitude", "low rank"), "stories260k": ("low rank", "wanda")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--samples", type=int, help="of the report split; default as in `SAMPLES`")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="that each search may spend")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where the searches' runs are kept; default a temporary folder")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/pruning/weights.py", *_without_work(sys.argv[1:])]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"processor": _processor(), "threads": arguments.threads, "torch": torch.__version__},
        "models": {},
        "goals": [],
    }
    if arguments.out.is_file():
        result["models"] = json.loads(arguments.out.read_text())["models"]
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            bench = opened(name, arguments.samples or SAMPLES[name])
            data = result["models"].setdefault(name, _head(bench))
            for section in SECTIONS[name]:
                if section not in data:
                    data[section] = getattr(rows, section)(bench, _say)
                    _write(arguments.out, result)
            found = data.setdefault("allocation", {})
            for space in ALLOCATIONS[name]:
                if space not in found:
                    work = arguments.work or Path(temporary)
                    found[space] = allocation(bench, space, work, _say, arguments.evaluations)
                    _write(arguments.out, result)
    _write(arguments.out, result)
    for goal in result["goals"]:
        _say(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:12} {goal['goal']}: {goal['detail']}")


def _without_work(words: list[str]) -> list[str]:
    """Where the searches' runs were kept is this machine's own business."""
    at = words.index("--work") if "--work" in words else len(words)
    return words[:at] + words[at + 2 :]


def _head(bench: Bench) -> dict[str, Any]:
    return {
        "metric": bench.subject.metric,
        "n_calibration": len(bench.subject.calibration),
        "n_report": len(bench.report),
        "original": {"value": bench.value(bench.original), "bytes": bench.of({})[0]["bytes"]},
    }


def _write(out: Path, result: dict[str, Any]) -> None:
    result["goals"] = goals(result["models"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")  # what is there is not lost if the next one fails


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
