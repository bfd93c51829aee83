"""Channels of real nets: every score against random ones, and removed models measured.

OMP_NUM_THREADS=1 python benchmarks/pruning/channels.py --out benchmarks/results/pruning-channels.json
OMP_NUM_THREADS=1 python benchmarks/pruning/channels.py --latency --out benchmarks/results/pruning-latency.json

The first is no timing: the machine need not be idle, and a seed gives the same figures. The second wants the machine
for itself (about three minutes).
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
from channelbench.goals import goals
from channelbench.latency import latency
from channelbench.quality import quality
from channelbench.subjects import NAMES, opened

from paredown.evaluators.latency import last_cores, machine_facts, pinned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--speed-ups", nargs="+", type=float, default=[1.5, 2.0], help="times fewer MACs")
    parser.add_argument("--seeds", type=int, default=10, help="random draws")
    parser.add_argument("--latency", action="store_true", help="measure latencies instead")
    parser.add_argument("--seconds", type=float, default=1.0, help="of runs for each pair that is timed")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/pruning/channels.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "models": {},
    }
    for name in arguments.models:
        prunable = opened(name)
        head = {
            "n_report": len(prunable.subject.report), "n_calibration": len(prunable.subject.calibration),
            "macs": prunable.anatomy.macs, "sets": {s.name: s.n_units for s in prunable.sets},
            "left": prunable.structure.left,
        }  # fmt: skip
        result["models"][name] = head
        say = lambda text: print(text, file=sys.stderr, flush=True)
        if arguments.latency:
            with pinned(last_cores(1)) as pinning:
                result["machine"] = machine_facts(threads=1, cores=pinning.got)
                say(name)
                head["latency"] = latency(prunable, seconds=arguments.seconds, say=say)
        else:
            head["quality"] = {}
            for speed_up in arguments.speed_ups:
                say(f"{name}, {speed_up:g} times fewer MACs")
                found = quality(prunable, speed_up=speed_up, seeds=arguments.seeds, say=say)
                head["quality"][f"{speed_up:g}"] = found
        result["goals"] = goals(result)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for goal in result["goals"]:
        print(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['model']:10} {goal['goal']}: {goal['detail']}")


if __name__ == "__main__":
    main()
