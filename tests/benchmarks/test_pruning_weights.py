"""The benchmark of sparse weights and low rank: its goals by hand, its textbook rivals, and what it treats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "pruning"))

from paredown.compressors import Pattern
from paredown.compressors.sparsity import SparsityProblem, sparsify


def row(gain: float, low: float | None = None, high: float | None = None, **rest: Any) -> dict[str, Any]:
    return {
        "value": 0.0,
        "gain": gain,
        "low": gain if low is None else low,
        "high": gain if high is None else high,
        **rest,
    }


def kept(data: dict[str, Any]) -> dict[str, bool]:
    from weightbench.goals import goals

    return {goal["goal"]: goal["kept"] for goal in goals({"model": data})}


def test_a_score_must_beat_the_best_random_draw_at_every_share() -> None:
    from weightbench.rows import SCORES, SEEDS, SHARES

    rows = {}
    for share in SHARES:
        rows |= {f"s{100 * share:g} random {seed}": row(-0.5, high=-0.4) for seed in SEEDS}
        rows |= {f"s{100 * share:g} {name}": row(-0.1) for name in SCORES}
    rows["s75 taylor"] = row(-0.1, low=-0.45)
    found = kept({"metric": "accuracy", "scores": rows})
    assert not found.pop("taylor beats random beyond noise")
    assert all(found.values())


def test_the_allocation_must_halve_the_loss_or_be_better_beyond_noise() -> None:
    def of(loss: float, mine: float, low: float) -> dict[str, Any]:
        return {"baseline": "s50", "loss": loss, "bytes": 1, "searched": {"loss": mine}, "low": low}

    def goal(space: str, *rows: dict[str, Any]) -> list[bool]:
        return list(kept({"metric": "accuracy", "allocation": {space: {"baselines": list(rows)}}}).values())

    assert goal("low rank", of(0.1, 0.05, 0.0)) == [True]
    assert goal("low rank", of(0.1, 0.06, 0.01)) == [False]
    assert goal("magnitude", of(0.1, 0.09, 0.01)) == [True]
    assert goal("magnitude", of(0.1, 0.01, -0.01)) == [False]
    assert goal("magnitude", of(-0.1, 0.0, -0.01)) == []


@pytest.mark.parametrize("pattern", ["", "2:4"])
@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
def test_ours_does_as_the_textbook(name: str, pattern: str) -> None:
    """The same mask, and where survivors move nearly the same error of the output."""
    from weightbench.reference import REFERENCES

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 32, generator=generator) @ torch.randn(32, 32, generator=generator)
    weight = torch.randn(24, 32, generator=generator)
    book = REFERENCES[name](weight, inputs, pattern)
    ours = SparsityProblem(
        matrix=weight,
        share=0.5,
        pattern=Pattern.parse("row" if name == "wanda" and not pattern else pattern),
        moments=(inputs.T @ inputs / len(inputs))[None],
    )
    mask, values = sparsify(ours, name)
    assert float(((book != 0) == mask).double().mean()) > (0.97 if name == "sparsegpt" else 0.9999)
    mine = ours.output_error(torch.where(mask, weight if values is None else values, 0.0))
    assert mine <= 1.01 * ours.output_error(book)
