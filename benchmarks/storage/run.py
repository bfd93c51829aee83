"""File sizes beside the information-theoretic floor; decoding speeds; when sparse products beat dense ones.

export OMP_NUM_THREADS=1
python benchmarks/storage/run.py sizes --out benchmarks/results/storage/sizes.json
taskset -c 1 python benchmarks/storage/run.py speed --out benchmarks/results/storage/speed.json
taskset -c 1 python benchmarks/storage/run.py crossover --out benchmarks/results/storage/crossover.json

`sizes` is no timing (seconds); the other two want an idle machine (half a minute, and a minute or two).
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from storagebench.layers import layers
from storagebench.measure import measure
from storagebench.speed import coder_speed, layer_speed

from paredown.compressors.sparse_formats import crossover
from paredown.compressors.sparse_formats import measure as measure_products
from paredown.search.task import environment

WITH_ENTROPY, WITHOUT = 0.10, 0.25
"""The goals: at most so far above the floor."""
_SHAPES = ((64, 64), (256, 256), (256, 1024), (1024, 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sizes", "speed", "crossover"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--small", action="store_true", help="crossover: the smallest shape alone, to see that it works"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/storage/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {**{k: v for k, v in environment().items() if k != "executable"}, "threads": 1},
    }
    if arguments.what == "sizes":
        result |= sizes()
    elif arguments.what == "speed":
        result["layers"] = [layer_speed(layer) for layer in layers()]
        result["coder"] = [coder_speed(n, bits) for n in (10_000, 100_000, 4_000_000) for bits in (4, 8)]
    else:
        result |= measure_products(shapes=_SHAPES[:1] if arguments.small else _SHAPES)
        result["crossover"] = crossover(result)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(_text(result))


def sizes() -> dict[str, Any]:
    """All layers, and the goals on them; the table goes to stderr."""
    rows = [measure(layer) for layer in layers()]
    for row in rows:
        over, with_side = row["over_floor"], row["over_floor_with_side"]
        _say(
            f"{row['layer']:26} {row['structure']:28} {row['spec']:22} {row['stored']['plain']:>7}/"
            f"{row['stored']['entropy']:7} {row['bytes']['plain']:8} {row['bytes']['entropy']:8}  floor "
            f"{row['floor_bytes']:9.0f}  {100 * over['plain']:+6.1f} % {100 * over['entropy']:+6.1f} %  with side "
            f"{100 * with_side['plain']:+6.1f} % {100 * with_side['entropy']:+6.1f} %"
        )
    goals = []
    for name, most in (("plain", WITHOUT), ("entropy", WITH_ENTROPY)):
        for key in ("over_floor", "over_floor_with_side"):
            worst = max(rows, key=lambda row: row[key][name])
            goals.append({
                "goal": f"{name}: at most {100 * most:g} % over the floor of codes and positions, of every layer"
                + (", scales and spec counted" if key.endswith("side") else ""),
                "kept": bool(worst[key][name] <= most), "worst": worst["layer"], "over": worst[key][name],
                "layers_kept": sum(bool(row[key][name] <= most) for row in rows), "layers": len(rows),
                "mean_over": float(np.mean([row[key][name] for row in rows])),
            })  # fmt: skip
    for goal in goals:
        _say(f"{'kept' if goal['kept'] else 'MISSED':7} {goal['goal']}: {goal['layers_kept']}/{goal['layers']}, "
             f"worst {goal['worst']} {100 * goal['over']:+.1f} %")  # fmt: skip
    return {"layers": rows, "goals": goals}


def _text(result: dict[str, Any]) -> str:
    """JSON with a line for each of the many products, the rest spread out."""
    keys = ("products", "crossover")
    rows = {key: result[key] for key in keys if key in result}
    text = json.dumps(result | dict.fromkeys(rows, "@"), indent=1)
    for key, found in rows.items():
        lines = ",\n".join("  " + json.dumps(row) for row in found)
        text = text.replace(f'"{key}": "@"', f'"{key}": [\n{lines}\n ]')
    return text + "\n"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
