"""What the figures were asked to show, and whether they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LOST = 0.005
"""Accuracy that a baseline must lose at least, for "half of it" to be more than noise."""


def goals(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each: the model, the goal in words, whether it was kept, and by which figures."""
    return [goal for model, data in models.items() for goal in _goals_of(model, data)]


def _goals_of(model: str, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    def goal(words: str, kept: bool, detail: str) -> dict[str, Any]:
        return {"model": model, "goal": words, "kept": kept, "detail": detail}

    for name, rows in data.get("allocation", {}).items():
        for row in rows:
            mine, theirs = row["searched"]["loss"], row["loss"]
            detail = f"{100 * theirs:.2f} points lost, {100 * mine:.2f} by the search"
            if name == "low rank":
                if theirs >= LOST:
                    yield goal(f"{row['baseline']}: at most half of the uniform loss", mine <= theirs / 2, detail)
            else:
                detail += f", {100 * row['gain']:+.2f} [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
                yield goal(f"{name}, {row['baseline']}: the search is better beyond noise", row["low"] > 0, detail)
    volumes = {name: family["volume"] for name, family in data.get("families", {}).items()}
    for name, volume in volumes.items():
        if name != "joint" and "joint" in volumes:
            detail = f"hypervolume {volumes['joint']:.3f} against {volume:.3f}"
            yield goal(f"the joint front is larger than that of {name} alone", volumes["joint"] > volume, detail)
