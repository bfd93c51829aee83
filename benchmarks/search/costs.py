"""Measures what the search itself costs, and adds it to benchmarks/results/search/costs.json.

python benchmarks/search/costs.py                       # everything: about half an hour on two idle cores
python benchmarks/search/costs.py --parts ask trial     # only these

The machine must have nothing else to do. Each part is written as soon as it is done.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from searchbench import measure_memory, measure_parts, measure_search
from searchbench.play import context

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("ask", "trial", "store", "memory", "search")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, default=2500, help="of a full evaluation in the whole search")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search" / "costs.json")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search-benchmark")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "ask": measure_parts.ask,
        "trial": lambda: measure_parts.trial(arguments.work),
        "store": lambda: measure_search.store(arguments.work),
        "memory": measure_memory.memory,
        "search": lambda: measure_search.whole_search(arguments.work, samples=arguments.samples),
    }
    for part in arguments.parts:
        found = measures[part]()
        stamp = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "context": context()}
        known = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
        known |= {name: {**figures, **stamp} for name, figures in found.items()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        for name, figures in found.items():
            print(f"{name}: {figures['figure']:.4g}  {figures.get('where', '')}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
