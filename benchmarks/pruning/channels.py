"""Channels of real nets: every score against random ones, and removed models measured.

OMP_NUM_THREADS=1 python benchmarks/pruning/channels.py --out benchmarks/results/pruning-channels.json
OMP_NUM_THREADS=1 python benchmarks/pruning/channels.py --latency --out benchmarks/results/pruning-latency.json

The first is no timing: the machine need not be idle, and a seed gives the same figures. It may be done in pieces:
`--minutes 2.5` stops after so many, and the same command again goes on, as long as code and settings are the same. The
second wants the machine for itself (about three minutes).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch
from channelbench.goals import goals
from channelbench.latency import latency
from channelbench.quality import quality
from channelbench.subjects import NAMES, opened
from pieces import Pieces

from paredown.evaluators import pinned
from paredown.evaluators.latency import last_cores, machine_facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--speed-ups", nargs="+", type=float, default=[1.5, 2.0], help="times fewer MACs")
    parser.add_argument("--seeds", type=int, default=10, help="random draws")
    parser.add_argument("--latency", action="store_true", help="measure latencies instead")
    parser.add_argument("--seconds", type=float, default=1.0, help="of runs for each pair that is timed")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command again goes on")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ["models", "speed_ups", "seeds"] if not arguments.latency else ["models", "seconds"]
    words = _without_minutes(sys.argv[1:])
    pieces = Pieces(
        arguments.out, command=shlex.join(["python", "benchmarks/pruning/channels.py", *words]),
        settings={name: getattr(arguments, name) for name in names},
        folders=("compressors", "benchmarks/pruning/channelbench", "benchmarks/quantization/quantbench"),
        minutes=arguments.minutes,
    )  # fmt: skip
    result = pieces.result
    say = lambda text: print(text, file=sys.stderr, flush=True)
    for name in arguments.models:
        head = result["models"].setdefault(name, {})
        if pieces.spent or head.get("done"):
            continue
        prunable = opened(name)
        head |= {
            "n_report": len(prunable.subject.report), "n_calibration": len(prunable.subject.calibration),
            "macs": prunable.anatomy.macs, "sets": {s.name: s.n_units for s in prunable.sets},
            "left": prunable.structure.left,
        }  # fmt: skip
        if arguments.latency:
            with pinned(last_cores(1)) as pinning:
                result["machine"] |= machine_facts(threads=1, pinning=pinning)
                say(name)
                head["latency"] = latency(prunable, seconds=arguments.seconds, say=say)
            head["done"] = True
        else:
            of_speed_ups = head.setdefault("quality", {})
            done = []
            for speed_up in arguments.speed_ups:
                say(f"{name}, {speed_up:g} times fewer MACs")
                found = of_speed_ups.setdefault(f"{speed_up:g}", {})
                done.append(quality(prunable, found, pieces, speed_up=speed_up, seeds=arguments.seeds, say=say))
            head["done"] = all(done)
        result["goals"] = goals(result)
        pieces.save()
    for goal in result.get("goals", []):
        print(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:10} {goal['goal']}: {goal['detail']}")
    if not all(head.get("done") for head in result["models"].values()):
        print("not all of it is done: the same command again goes on", file=sys.stderr)


def _without_minutes(words: list[str]) -> list[str]:
    """In how many pieces it was done is nobody's business."""
    at = words.index("--minutes") if "--minutes" in words else len(words)
    return words[:at] + words[at + 2 :]


if __name__ == "__main__":
    main()
