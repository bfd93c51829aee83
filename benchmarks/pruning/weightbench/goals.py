"""The goals, from the measured rows. Losses of accuracy are in points, of perplexity as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .rows import SCORES, SEEDS, SHARES


def goals(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each: the model, the goal in words, whether it was kept, and by which figures."""
    return [goal for model, data in models.items() for goal in _goals_of(model, data)]


def _goals_of(model: str, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    unit = 100.0 if data["metric"] == "accuracy" else 1.0

    def goal(words: str, kept: bool, detail: str) -> dict[str, Any]:
        return {"model": model, "goal": words, "kept": bool(kept), "detail": detail}

    def lost(section: str, name: str) -> float:
        return float(-data[section][name]["gain"] * unit)

    if "scores" in data:
        for name in SCORES:
            misses = []
            for share in SHARES:
                s = f"s{100 * share:g}"
                best_random = max(data["scores"][f"{s} random {seed}"]["high"] for seed in SEEDS)
                if data["scores"][f"{s} {name}"]["low"] <= best_random:
                    misses.append(s)
            yield goal(f"{name} beats random beyond noise", not misses, f"not at {', '.join(misses)}" if misses else "")
    if "references" in data:
        for ours, theirs in (("sparsegpt", "magnitude"), ("wanda", "magnitude")):
            for where, row in (("anywhere", "row" if ours == "wanda" else "anywhere"), ("2:4", "2:4")):
                detail = f"{lost('patterns', f'{row} {ours}'):.3f} and {lost('patterns', f'{where} {theirs}'):.3f} lost"
                better = lost("patterns", f"{row} {ours}") < lost("patterns", f"{where} {theirs}")
                yield goal(f"50 % {where}: {ours} beats magnitude", better, detail)
        for name in ("magnitude", "wanda", "sparsegpt"):
            for where in ("anywhere", "2:4"):
                row = "row" if name == "wanda" and where == "anywhere" else where
                mine, book = lost("patterns", f"{row} {name}"), lost("references", f"{where} {name}")
                detail = f"{mine:.4f} and {book:.4f} lost"
                yield goal(f"50 % {where}: {name} no worse than the textbook's", mine <= book * 1.005 + 1e-4, detail)
    for space, found in data.get("allocation", {}).items():
        for row in found["baselines"]:
            mine, theirs = row["searched"]["loss"] * unit, row["loss"] * unit
            if theirs <= 0.0:
                continue
            detail = f"{theirs:.3f} lost by {row['baseline']}, {mine:.3f} by the search, {row['bytes']} B"
            if space == "low rank":
                yield goal(f"{row['baseline']}: at most half of the uniform loss", mine <= theirs / 2, detail)
            else:
                yield goal(f"{row['baseline']}: the search is better beyond noise", row["low"] > 0.0, detail)
