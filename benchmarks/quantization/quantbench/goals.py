"""The goals, from the measured rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CNNS = ("resnet20", "resnet8", "dscnn")


def goals(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each: the model, the goal in words, whether it was kept, and by which figures.

    Losses of accuracy are in points, of perplexity as they are. "Best" is the best on the report split itself, so a
    little lucky; the interval of its row says by how much.
    """
    return [goal for model, data in models.items() for goal in _goals_of(model, data)]


def _goals_of(model: str, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows, unit = data["settings"], 100.0 if data["metric"] == "accuracy" else 1.0
    lost = {name: -row["gain"] * unit for name, row in rows.items()}

    def rounded(bits: int, end: str = "") -> str:
        """Rounding to nearest: with the whole range, or with that of least squared error where it is better."""
        return min((f"W{bits} {name}{end}" for name in ("round to nearest", "affine")), key=lost.__getitem__)

    def goal(words: str, kept: bool, detail: str) -> dict[str, Any]:
        return {"model": model, "goal": words, "kept": bool(kept), "detail": detail}

    if unit == 100.0:
        best = min(names(rows, "W8A8"), key=lost.__getitem__)
        yield goal("W8A8 within 0.3 points", lost[best] <= 0.3, f"{best} loses {lost[best]:.2f}")
    if model in CNNS:
        best, plain = min(names(rows, "W4 "), key=lost.__getitem__), rounded(4)
        yield goal("W4 within 1.0 point with the best method", lost[best] <= 1.0, f"{best} loses {lost[best]:.2f}")
        detail = f"{plain} loses {lost[plain]:.2f}, {best} {lost[best]:.2f}"
        yield goal("W4: half of round to nearest's loss recovered", lost[best] <= lost[plain] / 2, detail)
    if data["metric"] == "perplexity":
        best, plain = min(names(rows, "W3 ", " g64"), key=lost.__getitem__), rounded(3, " g64")
        detail = f"{plain} loses {lost[plain]:.3f}, {best} {lost[best]:.3f}"
        yield goal("W3, groups of 64: at most half of round to nearest's loss", lost[best] <= lost[plain] / 2, detail)
    pairs = (("palette", "affine"), ("palette gptq", "gptq"), ("palette descent", "descent"), ("apot", "affine"))
    for ours, theirs in ((f"W3 {one}", f"W3 {other}") for one, other in pairs):
        n_bytes = rows[ours]["bytes"], rows[theirs]["bytes"]
        detail = f"{lost[ours]:.2f} and {lost[theirs]:.2f} lost, {n_bytes[0]} and {n_bytes[1]} B"
        better = n_bytes[0] <= n_bytes[1] and lost[ours] < lost[theirs]
        yield goal(f"{ours} beats {theirs} at no more bytes", better, detail)


def names(rows: Iterable[str], begin: str, end: str = "") -> list[str]:
    return [name for name in rows if name.startswith(begin) and name.endswith(end)]
