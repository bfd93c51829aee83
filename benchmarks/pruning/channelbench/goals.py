"""What the figures were asked to show, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALPHA = 0.05


def goals(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each model: every score beats random channels at 1.5 times fewer MACs; twice fewer are 1.5 times faster at
    batch 1 and 1.7 times at the best batch."""
    found = []
    for name, model in result["models"].items():
        rows = model.get("quality", {}).get("1.5", {}).get("rows", [])
        found += [
            {
                "model": name,
                "goal": f"{row['score']} beats random channels",
                "kept": row["p"] <= ALPHA,
                "detail": f"{100 * row['gain']:+.2f} ± {100 * row['error']:.2f} points",
            }
            for row in rows
            if row.get("allocation") == "uniform"
        ]
        for row in model.get("latency", []):
            if row["speed_up"] < 1.9:
                continue
            one = row["batch"][min(row["batch"], key=int)]["faster"]
            best = max(entry["faster"] for entry in row["batch"].values())
            found.append(
                {
                    "model": name,
                    "goal": f"2 x fewer MACs, {row['runtime']}, rounded to {row['round_to']}",
                    "kept": one >= 1.5 and best >= 1.7,
                    "detail": f"{one:.2f} x at batch 1 (1.5), {best:.2f} x at the best batch (1.7)",
                }
            )
    return found
