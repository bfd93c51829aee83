"""What was to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TIE = 1.03
"""A ratio below this is no difference."""

Row = Mapping[str, Any]


def goals(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal: what was asked, what came, and "met" true, false, or None where it could not be seen."""
    found = []
    if "resnet20" in results:
        found += _resnet20(results["resnet20"]["rows"])
    if "kwt1" in results:
        found += _kwt1(results["kwt1"]["rows"])
    for name, result in results.items():
        found += _beside_the_makers(name, result["rows"])
        found += _zeros(name, result["rows"])
    return found


def _resnet20(rows: Sequence[Row]) -> list[dict[str, Any]]:
    original = _quality(rows)
    good = [row for row in _ours(rows) if row["format"] != "fp32" and row["quality"] >= 0.99 * original]
    goals = []
    for key, factor, of in (("ms_1", 6.0, "eager"), ("ms_1", 1.6, "best FP32"), ("ms_32", 2.2, "best FP32")):
        rival = _one(rows, "torch fp32").get(key) if of == "eager" else _best_fp32(rows, key)
        best = min((row for row in good if key in row), key=lambda row: row[key], default=None)
        ratio = rival / best[key] if best is not None and rival else None
        batch = key.removeprefix("ms_")
        goals.append(_goal(f"ResNet-20, batch {batch}: at least {factor} times {of}, at 99 %", ratio, factor, best))
    return goals


def _kwt1(rows: Sequence[Row]) -> list[dict[str, Any]]:
    rival = _one(rows, "openvino fp32").get("ms_1")
    good = [row for row in _ours(rows) if "ms_1" in row and row["quality"] >= 0.99 * _quality(rows)]
    good = [row for row in good if row["name"] != "openvino fp32"]
    best = min(good, key=lambda row: row["ms_1"], default=None)
    ratio = rival / best["ms_1"] if best is not None and rival else None
    return [_goal("KWT-1, batch 1: 1.2 times OpenVINO FP32, at 99 % (else: see where the time goes)", ratio, 1.2, best)]


def _beside_the_makers(model: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Our int8 in the same runtime against theirs, without and with attention's products: no slower beyond a tie, no
    less accurate beyond two standard errors of the difference of two shares of the report split."""
    goals = []
    for row in rows:
        if row["format"] != "int8 (theirs)" or "quality" not in row:
            continue
        for format in ("int8", "int8 + products"):
            mine = _one(rows, f"{row['runtime']} {format}")
            if "quality" in mine:
                goals += _beside(model, mine, row)
    return goals


def _beside(model: str, mine: Row, theirs: Row) -> list[dict[str, Any]]:
    goals = []
    for key in [key for key in ("ms_1", "ms_32") if key in theirs and key in mine]:
        text = f"{model}, {key.replace('ms_', 'batch ')}: no slower than {theirs['name']}"
        goals += [_goal(text, theirs[key] / mine[key], 1 / TIE, mine)]
    slack = 2.0 * (2.0 * max(theirs["quality"] * (1 - theirs["quality"]), 1e-4) / theirs["n_report"]) ** 0.5
    less = theirs["quality"] - mine["quality"]
    goals.append(
        {"goal": f"{model}: no less accurate than {theirs['name']}", "got": -less, "met": less <= slack,
         "by": f"{mine['name']}: {mine['quality']:.4f} for {theirs['quality']:.4f}, noise {slack:.4f}"}
    )  # fmt: skip
    return goals


def _zeros(model: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Zeros are dense FP32 to these runtimes: their time is a tie with FP32, and whoever reads a gain there is told."""
    goals = []
    for row in rows:
        plain = _one(rows, f"{row['runtime']} fp32")
        if row["format"] not in ("2:4", "sparse90"):
            continue
        for key in [key for key in ("ms_1", "ms_32") if key in row and key in plain]:
            ratio = plain[key] / row[key]
            goals.append(
                {"goal": f"{model}, {key.replace('ms_', 'batch ')}: {row['name']} takes FP32's time, no less",
                 "got": ratio, "met": 1 / TIE <= ratio <= TIE, "by": row["name"]}
            )  # fmt: skip
    return goals


def _goal(text: str, ratio: float | None, factor: float, row: Row | None) -> dict[str, Any]:
    return {
        "goal": text,
        "got": ratio,
        "met": None if ratio is None else ratio >= factor,
        "by": "" if row is None else row["name"],
    }


def _ours(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["format"] != "int8 (theirs)" and "quality" in row]


def _one(rows: Sequence[Row], name: str) -> Row:
    return next((row for row in rows if row["name"] == name), {})


def _quality(rows: Sequence[Row]) -> float:
    return float(_one(rows, "torch fp32")["quality"])


def _best_fp32(rows: Sequence[Row], key: str) -> float | None:
    times = [row[key] for row in rows if row["format"] == "fp32" and key in row]
    return min(times, default=None)
