"""The tables of `benchmarks/results/pruning.md`, from the four files of figures beside it.

python benchmarks/pruning/summarise.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> None:
    lines = ["# Pruning, structure and low rank: figures", "", "Made by `benchmarks/pruning/summarise.py`;"]
    lines[-1] += " what it means: [`benchmarks/pruning`](../pruning/README.md)."
    goals: list[tuple[str, Mapping[str, Any]]] = []
    for name, tables in TABLES.items():
        data = json.loads((RESULTS / f"pruning-{name}.json").read_text())
        machine = data["machine"]
        packages = machine.get("packages", machine)
        lines += ["", f"# {name.capitalize()}", ""]
        lines.append(f"`{data['command']}`, {data['date']}, {machine['processor']}, torch {packages['torch']}.")
        for model, found in data["models"].items():
            lines += tables(model, found)
        goals += [(name, goal) for goal in data["goals"]]
    lines += ["", "# Goals", "", *_table("", "file", "model", "goal", "")]
    for name, goal in goals:
        kept = "kept" if goal["kept"] else "**missed**"
        lines.append(_row(kept, name, goal["model"], goal["goal"], goal["detail"]))
    (RESULTS / "pruning.md").write_text("\n".join(lines) + "\n")


def _weights(model: str, found: Mapping[str, Any]) -> Iterator[str]:
    original = found["original"]
    yield from _heading(
        f"{model}: {found['metric']}, FP32 {_figure(found, original['value'])}, {original['bytes']:,} B"
    )
    if "scores" in found:
        yield from _grid(found, "scores", "score", by_row=False)
    if "patterns" in found:
        yield from ("", "At 50 %:")
        yield from _grid(found, "patterns", "pattern", by_row=True)
    if "references" in found:
        yield from ("", "The textbook's, at 50 %:")
        yield from _grid(found, "references", "pattern", by_row=True)
    if "forms" in found:
        yield from ("", *_table("low rank", found["metric"], "bytes", "layers left alone"))
        for name, row in found["forms"].items():
            yield _row(name, _figure(found, row["value"]), f"{row['bytes']:,}", row["left"])
    for space, search in found.get("allocation", {}).items():
        yield from ("", f"Allocation, {space}, {search['evaluations']} evaluations:", "")
        yield from _table("baseline", "bytes", "its loss", "searched: bytes", "loss", "gain [95 %]")
        for row in search["baselines"]:
            yield _compared(row, "bytes", 100.0 if found["metric"] == "accuracy" else 1.0)


def _channels(model: str, found: Mapping[str, Any]) -> Iterator[str]:
    for speed_up, quality in found["quality"].items():
        yield from _heading(f"{model}, {speed_up} times fewer MACs: accuracy, FP32 {100 * quality['original']:.1f} %")
        yield from _table("score", "share of channels", "accuracy", "over random draws [95 %]")
        for row in quality["rows"]:
            if "skipped" in row:
                yield _row(row["score"], row["skipped"], "", "")
                continue
            over = f"{100 * row['gain']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
            yield _row(row["score"], row["allocation"], f"{100 * row['accuracy']:.1f} %", over)


def _joint(model: str, found: Mapping[str, Any]) -> Iterator[str]:
    for name, rows in found["allocation"].items():
        cost = "macs" if "MACs" in name else "bytes"
        yield from _heading(f"{model}, allocation: {name}; accuracy lost, in points")
        yield from _table("baseline", cost, "its loss", f"searched: {cost}", "loss", "gain [95 %]")
        yield from (_compared(row, cost, 100.0) for row in rows)
    if found["families"]:
        yield from _heading(f"{model}: hypervolume on the report split, each search at the same cost")
        yield from _table(*found["families"])
        yield _row(*(f"{family['volume']:.4f}" for family in found["families"].values()))


def _latency(model: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{model}: times faster than the original, in brackets as modelled")
    batches = list(found["latency"][0]["batch"])
    yield from _table("fewer MACs", "rounded to", "runtime", *(f"batch {batch}" for batch in batches), "file")
    for row in found["latency"]:
        timed = (f"{row['batch'][b]['faster']:.2f} ({row['batch'][b]['modelled']:.2f})" for b in batches)
        smaller = f"{row['file_ratio']:.2f} × smaller"
        yield _row(f"{row['speed_up']:.2f} ×", row["round_to"], row["runtime"], *timed, smaller)


TABLES: Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[str]]] = {
    "weights": _weights, "channels": _channels, "joint": _joint, "latency": _latency,
}  # fmt: skip


def _grid(found: Mapping[str, Any], section: str, corner: str, *, by_row: bool) -> Iterator[str]:
    """Figures named "A B", A and B down and across or, with `by_row`, A down and B across."""
    first = list(dict.fromkeys(name.split()[0] for name in found[section]))
    second = list(dict.fromkeys(name.split(" ", 1)[1] for name in found[section]))
    rows, columns = (first, second) if by_row else (second, first)
    yield from ("", *_table(corner, *columns))
    for row in rows:
        cells = [found[section].get(f"{row} {column}" if by_row else f"{column} {row}") for column in columns]
        yield _row(row, *("" if cell is None else _figure(found, cell["value"]) for cell in cells))


def _compared(row: Mapping[str, Any], cost: str, unit: float) -> str:
    mine = row["searched"]
    gain = f"{unit * row['gain']:+.2f} [{unit * row['low']:+.2f}, {unit * row['high']:+.2f}]"
    return _row(
        row["baseline"], f"{row[cost]:,.0f}", f"{unit * row['loss']:.2f}", f"{mine[cost]:,.0f}",
        f"{unit * mine['loss']:.2f}", gain,
    )  # fmt: skip


def _figure(found: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f} %" if found["metric"] == "accuracy" else f"{value:.3f}"


def _heading(text: str) -> Sequence[str]:
    return ("", f"## {text}", "")


def _table(*columns: str) -> Sequence[str]:
    return (_row(*columns), "|---" * len(columns) + "|")


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
