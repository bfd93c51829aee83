"""The tables of `results/quantization.md`, from `results/quantization.json`.

python benchmarks/quantization/summarise.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
WIDTHS = (8, 6, 5, 4, 3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULTS / "quantization.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "quantization.md")
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text())
    arguments.out.write_text("\n".join(lines(result)) + "\n")


def lines(result: dict[str, Any]) -> Iterator[str]:
    yield "# Quantization without training: figures"
    yield ""
    yield f"`{result['command']}`, {result['date']}, {result['machine']['processor']}."
    yield "Accuracy in %, or perplexity, on the report part; the stored model in kB. All layers alike."
    yield "What the goals call best was chosen by the divergence on the search part."
    yield ""
    yield "| | model | goal | |"
    yield "|---|---|---|---|"
    for goal in result["goals"]:
        yield f"| {'✓' if goal['kept'] else '✗'} | {goal['model']} | {goal['goal']} | {goal['detail']} |"
    for name, model in result["models"].items():
        yield from _model(name, model)


def _model(name: str, model: dict[str, Any]) -> Iterator[str]:
    percent = model["metric"] == "accuracy"

    def shown(row: dict[str, Any]) -> str:
        return f"{100 * row['value']:.2f}" if percent else f"{row['value']:.3f}"

    original = model["original"]
    yield ""
    yield f"## {name}"
    yield ""
    yield (
        f"FP32: {shown(original)} {model['metric']} on {model['n_report']} samples, {original['bytes'] / 1000:.0f} kB; "
        f"calibrated on {model['n_calibration']}."
    )
    yield ""
    yield "| | " + " | ".join(f"W{bits}" for bits in WIDTHS) + " |"
    yield "|---" * (len(WIDTHS) + 1) + "|"
    rows = model["settings"]
    ways = dict.fromkeys(key.partition(" ")[2] for key in rows if key.startswith("W") and key.split()[0][1:].isdigit())
    for way in ways:
        cells = [rows.get(f"W{bits} {way}") for bits in WIDTHS]
        text = ["" if row is None else f"{shown(row)} ({row['bytes'] / 1000:.0f})" for row in cells]
        yield f"| {way} | " + " | ".join(text) + " |"
    yield ""
    yield "| | value | difference from FP32 [95 %] | kB |"
    yield "|---|---|---|---|"
    for key, row in rows.items():
        if key.partition(" ")[2] not in ways or not key.split()[0][1:].isdigit():
            yield f"| {key} | {shown(row)} | {_gain(row, percent)} | {row['bytes'] / 1000:.0f} |"
    for key, row in model["rivals"].items():
        if "skipped" in row:
            yield f"| {key} | – | {row['skipped']} | |"
        else:
            yield f"| {key} | {shown(row)} | {_gain(row, percent)} | |"


def _gain(row: dict[str, Any], percent: bool) -> str:
    unit, digits = (100.0, 2) if percent else (1.0, 3)
    gain, low, high = (unit * row[key] for key in ("gain", "low", "high"))
    return f"{gain:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


if __name__ == "__main__":
    main()
