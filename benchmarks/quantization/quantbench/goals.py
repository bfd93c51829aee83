"""The goals, from the measured rows. What is "best" was chosen on the search part, and is judged on the report part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .measure import REFERENCE, best

CNNS = ("resnet20", "resnet8", "dscnn")
RIVALS = ("ONNX Runtime static W8A8", "NNCF W8A8")


def goals(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each: the model, the goal in words, whether it was kept, and by which figures.

    Losses of accuracy are in points, of perplexity as they are.
    """
    return [goal for model, data in models.items() for goal in _goals_of(model, data)]


def mixed_goals(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of model -> budget -> comparison: whether mixed precision is ahead in the model's own metric, beyond noise."""
    found, ahead = [], dict[str, list[str]]()
    for model, budgets in models.items():
        for budget, row in budgets.items():
            unit = 100.0 if row["metric"] == "accuracy" else 1.0
            apart = row["divergence"]
            moved = f"divergence {apart['uniform_value']:.4g} to {apart['value']:.4g}"
            detail = (
                f"{row['uniform_value'] * unit:.4g} to {row['value'] * unit:.4g}, "
                f"{row['gain'] * unit:+.3f} [{row['low'] * unit:+.3f}, {row['high'] * unit:+.3f}] against "
                f"{row['uniform']} in {row['bytes']} and {row['uniform_bytes']} B; {moved}, "
                f"{apart['gain']:+.2g} [{apart['low']:+.2g}, {apart['high']:+.2g}]"
            )
            kept = row["low"] > 0.0
            ahead.setdefault(budget, []).extend([model] if kept else [])
            words = f"mixed precision beats the best uniform {budget}"
            found.append({"model": model, "goal": words, "kept": kept, "detail": detail})
    for budget, names in ahead.items():
        n = sum(budget in budgets for budgets in models.values())
        detail = f"beyond noise on {len(names)} of {n}: {', '.join(names) or 'none'}"
        words = f"mixed precision beats the best uniform {budget} on three models"
        found.append({"model": "all", "goal": words, "kept": len(names) >= 3, "detail": detail})
    return found


def _goals_of(model: str, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows, unit = data["settings"], 100.0 if data["metric"] == "accuracy" else 1.0
    lost = {name: -row["gain"] * unit for name, row in rows.items()}

    def rounded(bits: int, end: str = "") -> str:
        """Rounding to nearest: with the whole range, or with that of least squared error where it is better."""
        return min((f"W{bits} {name}{end}" for name in ("round to nearest", "affine")), key=lost.__getitem__)

    def goal(words: str, kept: bool, detail: str) -> dict[str, Any]:
        return {"model": model, "goal": words, "kept": bool(kept), "detail": detail}

    chosen = best(rows, "W8A8", plain=False)
    if unit == 100.0:
        yield goal("W8A8 within 0.3 points", lost[chosen] <= 0.3, f"{chosen} loses {lost[chosen]:.2f}")
    for rival in RIVALS:
        row = data["rivals"].get(rival, {"skipped": ""})
        if "skipped" not in row:
            theirs = -row["gain"] * unit
            detail = f"{chosen} loses {lost[chosen]:.3f}, {rival} {theirs:.3f}"
            yield goal(f"W8A8 not below {rival}", lost[chosen] <= theirs, detail)
    if model in CNNS:
        four, plain = best(rows, "W4 ", plain=False), rounded(4)
        yield goal("W4 within 1.0 point with the best method", lost[four] <= 1.0, f"{four} loses {lost[four]:.2f}")
        detail = f"{plain} loses {lost[plain]:.2f}, {four} {lost[four]:.2f}"
        yield goal("W4: half of round to nearest's loss recovered", lost[four] <= lost[plain] / 2, detail)
    if data["metric"] == "perplexity":
        three, plain = best(rows, "W3 ", " g64"), rounded(3, " g64")
        detail = f"{plain} loses {lost[plain]:.3f}, {three} {lost[three]:.3f}"
        yield goal("W3, groups of 64: at most half of round to nearest's loss", lost[three] <= lost[plain] / 2, detail)
        detail = f"{three} loses {lost[three]:.3f} in {rows[three]['bytes']} B, the reference {lost[REFERENCE]:.3f} in "
        detail += f"{rows[REFERENCE]['bytes']} B"
        kept = lost[three] <= lost[REFERENCE] and rows[three]["bytes"] <= rows[REFERENCE]["bytes"]
        yield goal("W3, groups of 64: not worse than a reference GPTQ", kept, detail)
    pairs = (("palette", "affine"), ("palette gptq", "gptq"), ("palette descent", "descent"), ("apot", "affine"))
    for ours, theirs in ((f"W3 {one}", f"W3 {other}") for one, other in pairs):
        n_bytes = rows[ours]["bytes"], rows[theirs]["bytes"]
        detail = f"{lost[ours]:.2f} and {lost[theirs]:.2f} lost, {n_bytes[0]} and {n_bytes[1]} B"
        better = n_bytes[0] <= n_bytes[1] and lost[ours] < lost[theirs]
        yield goal(f"{ours} beats {theirs} at no more bytes", better, detail)
