"""Every score, pattern and form on one model: what `weights.py` writes down for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paredown.compressors import LayerSpec
from paredown.compressors.registry import SPARSITY

from .bench import Bench
from .reference import REFERENCES, watched

Say = Callable[[str], None]
Rows = dict[str, dict[str, Any]]

SCORES = (
    "magnitude", "gradient", "taylor", "fisher", "wanda", "obs", "sparsegpt", "0.5*wanda+0.5*fisher", "refit(wanda)",
    "refit(obs)",
)  # fmt: skip
SHARES = (0.5, 0.75, 0.9)
SEEDS = (0, 1, 2)
PATTERNS = ("", "row", "2:4", "4:8", "1x4", "4x4", "16x1", "column")
"""At 50 %, by magnitude, Wanda, block OBS, SparseGPT and refitted Wanda."""
PATTERNED = ("magnitude", "wanda", "block_obs", "sparsegpt", "refit(wanda)")
RANKS = (0.7, 0.5, 0.3, 0.2)


def scores(bench: Bench, say: Say) -> Rows:
    """Every score at every share, and three times at random: `s50 wanda`."""
    rows: Rows = {}
    for share in SHARES:
        for seed in SEEDS:
            with SPARSITY.temporarily("random", _random(seed), gives="scores"):
                rows[f"s{100 * share:g} random {seed}"] = bench.row(LayerSpec(sparsity=share, sparsity_method="random"))
        for name in SCORES:
            rows[f"s{100 * share:g} {name}"] = bench.row(LayerSpec(sparsity=share, sparsity_method=name))
            _told(say, bench, rows)
    return rows


def patterns(bench: Bench, say: Say) -> Rows:
    """Some scores in every pattern at 50 %: `2:4 wanda`. A layer that a pattern does not fit is left alone."""
    rows: Rows = {}
    for pattern in PATTERNS:
        for name in PATTERNED:
            spec = LayerSpec(sparsity=0.5, sparsity_method=name, pattern=pattern)
            rows[f"{pattern or 'anywhere'} {name}"] = bench.row(spec)
            _told(say, bench, rows)
    return rows


def references(bench: Bench, say: Say) -> Rows:
    """The textbook implementations at 50 % and 2:4, on the layers that ours treat: `2:4 wanda`."""
    with watched(bench.subject.model, bench.fqns) as seen, torch.no_grad():
        for inputs in bench.subject.calibration.split(16):
            bench.subject.model(inputs)
    rows: Rows = {}
    for pattern in ("", "2:4"):
        for name, prune in REFERENCES.items():
            weights = {fqn: prune(bench.resident.weight(fqn), torch.cat(seen[fqn]), pattern) for fqn in bench.fqns}
            rows[f"{pattern or 'anywhere'} {name}"] = bench.weights(weights)
            _told(say, bench, rows)
    return rows


def forms(bench: Bench, say: Say) -> Rows:
    """Every form at some ranks, by both methods, and residuals at few bits: `r50-spatial asvd`."""
    from paredown.compressors import applicable

    rows: Rows = {}
    for form in ("channel", "input", "spatial", "tucker2"):
        for rank in RANKS:
            for name in ("svd", "asvd"):
                spec = LayerSpec(rank=rank, rank_form=form, rank_method=name)
                if any(applicable(spec, bench.anatomy[fqn]) is None for fqn in bench.fqns):
                    rows[f"r{100 * rank:g}-{form} {name}"] = bench.row(spec)
                    _told(say, bench, rows)
    for way in ({"weight_bits": 3}, {"weight_bits": 2}, {"sparsity": 0.75, "sparsity_method": "wanda"}):
        plain = LayerSpec(**way)  # type: ignore[arg-type]
        joint = LayerSpec(**way, rank=0.1, rank_form="residual", rank_method="asvd")  # type: ignore[arg-type]
        rows[plain.label()] = bench.row(plain)
        rows[joint.label()] = bench.row(joint)
        _told(say, bench, rows)
    return rows


def _random(seed: int) -> Callable[[Any], Tensor]:
    def method(problem: Any) -> Tensor:
        return torch.rand(problem.shape, generator=torch.Generator().manual_seed(seed * 7919 + problem.matrix.numel()))

    return method


def _told(say: Say, bench: Bench, rows: Rows) -> None:
    name, row = list(rows.items())[-1]
    say(f"{bench.subject.name:12} {name:28} {row['value']:9.4f} {row.get('bytes', 0):9d} B")
