"""The tables of `pruning-weights.md`, from the figures.

python benchmarks/pruning/weights_summary.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> None:
    data = json.loads((RESULTS / "pruning-weights.json").read_text())
    lines = [
        "# Sparse weights and low rank: figures",
        "",
        f"`{data['command']}`, {data['date']}, {data['machine']['processor']}, torch {data['machine']['torch']}.",
        "Made by `benchmarks/pruning/weights_summary.py`; what it means: `benchmarks/pruning/weights.md`.",
    ]
    for model, found in data["models"].items():
        original = found["original"]
        lines += [
            "",
            f"## {model}: {found['metric']}, FP32 {_figure(found, original['value'])}, {original['bytes']:,} B",
        ]
        if "scores" in found:
            shares = list(dict.fromkeys(name.split()[0] for name in found["scores"]))
            methods = list(dict.fromkeys(name.split(" ", 1)[1] for name in found["scores"]))
            lines += ["", *_grid(found, "scores", "score", methods, shares, lambda s, m: f"{s} {m}")]
        if "patterns" in found:
            patterns = list(dict.fromkeys(name.split()[0] for name in found["patterns"]))
            methods = list(dict.fromkeys(name.split(" ", 1)[1] for name in found["patterns"]))
            lines += [
                "",
                "At 50 %:",
                "",
                *_grid(found, "patterns", "pattern", patterns, methods, lambda m, p: f"{p} {m}"),
            ]
        if "references" in found:
            lines += ["", "The textbook's, at 50 %:", ""]
            names = list(dict.fromkeys(name.split(" ", 1)[1] for name in found["references"]))
            lines += _grid(found, "references", "pattern", ["anywhere", "2:4"], names, lambda m, p: f"{p} {m}")
        if "forms" in found:
            lines += ["", "| low rank | " + found["metric"] + " | bytes | layers left alone |", "|---|---|---|---|"]
            for name, row in found["forms"].items():
                lines.append(f"| {name} | {_figure(found, row['value'])} | {row['bytes']:,} | {row['left']} |")
        for space, search in found.get("allocation", {}).items():
            lines += ["", f"Allocation, {space}, {search['evaluations']} evaluations:", ""]
            lines += [
                "| baseline | bytes | its loss | searched: bytes | loss | gain [95 %] |",
                "|---|---|---|---|---|---|",
            ]
            lines += [_compared(found, row) for row in search["baselines"]]
    lines += ["", "## Goals", "", "| | model | goal | |", "|---|---|---|---|"]
    for goal in data["goals"]:
        lines.append(
            f"| {'kept' if goal['kept'] else '**missed**'} | {goal['model']} | {goal['goal']} | {goal['detail']} |"
        )
    (RESULTS / "pruning-weights.md").write_text("\n".join(lines) + "\n")


def _grid(
    found: Mapping[str, Any], section: str, corner: str, rows: Sequence[str], columns: Sequence[str], name: Any
) -> list[str]:
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [found[section].get(name(column, row)) for column in columns]
        lines.append(f"| {row} | {' | '.join('' if c is None else _figure(found, c['value']) for c in cells)} |")
    return lines


def _figure(found: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f} %" if found["metric"] == "accuracy" else f"{value:.3f}"


def _compared(found: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    unit = 100.0 if found["metric"] == "accuracy" else 1.0
    mine = row["searched"]
    gain = f"{unit * row['gain']:+.2f} [{unit * row['low']:+.2f}, {unit * row['high']:+.2f}]"
    return (
        f"| {row['baseline']} | {row['bytes']:,} | {unit * row['loss']:.2f} | {mine['bytes']:,} | "
        f"{unit * mine['loss']:.2f} | {gain} |"
    )


if __name__ == "__main__":
    main()
