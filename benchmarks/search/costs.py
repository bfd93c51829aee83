"""Measures what the search itself costs, and adds it to benchmarks/results/search/costs.json.

python benchmarks/search/costs.py                       # everything: about a quarter of an hour on two idle cores
python benchmarks/search/costs.py --parts ask trial     # only these
python benchmarks/search/costs.py --missing             # only what costs.json has not got yet, after an interruption

The machine must have nothing else to do (`memory` aside, which is no timing). Each part is written as soon as it is
done, with the command, the machine and the date. `search` stands for `search-2500` and `search-512`: so many images.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from searchbench import measure_memory, measure_parts, measure_search
from searchbench.play import context

ROOT = Path(__file__).resolve().parents[2]
SIZES = (2500, 512)
"""Images of the search split: that of examples/cifar10, and few."""
RESULTS: dict[str, tuple[str, ...]] = {
    "ask": ("ask_ms", "ask_without_shifts_ms"),
    "trial": ("trial_over_forward",),
    "store": ("store_s", "store_again"),
    "memory": ("memory",),
    "search-2500": ("own_work", "search_over_evaluations"),
    "search-512": ("own_work_512", "search_over_evaluations_512"),
}
"""Part -> the figures that it gives."""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    known = _read(arguments.out)
    parts = [name for part in arguments.parts for name in RESULTS if name == part or name.startswith(f"{part}-")]
    if arguments.missing:
        parts = [part for part in parts if not set(RESULTS[part]) <= set(known)]
    measures = _measures(arguments)
    for part in dict.fromkeys(parts):
        print(f"{part} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        found = dict(zip(RESULTS[part], measures[part]().values(), strict=True))
        stamp = {
            "command": f"python benchmarks/search/costs.py --parts {part}",
            "machine": _machine(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "context": context(),
            "measured_in_s": round(time.monotonic() - began, 1),
        }
        known = _read(arguments.out) | {name: {**figures, **stamp} for name, figures in found.items()}
        _write(arguments.out, known)
        for name, figures in found.items():
            print(f"{name}: {figures['figure']:.4g}  {figures.get('where', '')}", file=sys.stderr, flush=True)


def _measures(arguments: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    work: Path = arguments.work
    searches: dict[str, Callable[[], dict[str, Any]]] = {
        f"search-{size}": lambda size=size: measure_search.whole_search(work, samples=size)  # type: ignore[misc]
        for size in SIZES
    }
    return {
        "ask": measure_parts.ask,
        "trial": lambda: measure_parts.trial(work),
        "store": lambda: measure_search.store(work),
        "memory": measure_memory.memory,
        **searches,
    }


def _machine() -> dict[str, Any]:
    """As the manifests of artifacts have it, without what says where things lie."""
    from paredown.search.task import environment

    wanted = ("processor", "usable_cores", "memory_bytes", "instruction_sets", "platform", "python", "packages")
    return {name: value for name, value in environment().items() if name in wanted}


def _read(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known


def _write(path: Path, known: dict[str, Any]) -> None:
    """At once or not at all: an interruption must not cost what was measured before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=[*RESULTS, "search"], default=list(RESULTS))
    parser.add_argument("--missing", action="store_true", help="leave out what the file has already")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search" / "costs.json")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search-benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    main()
