"""Crossover between sparse and dense products *on this machine*: it is measured, kept as JSON, and read by the rule.

Dense and sparse products are timed in turns, in a random order, and compared by their 10th percentiles. For each
structure of zeros, shape, batch and format the document holds the speed-up over the best dense product (numpy or torch)
at each density. The *crossover* is the density below which the sparse product was faster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._base import Pattern
from ._products import Matrix, Product, best_block, product

SCHEMA_VERSION = 1
STRUCTURES = ("random", "blocks", "rows", "banded")
"""Structures of zeros. `random`: anywhere; `blocks`: of 4 x 4; `rows`: equal numbers in each row; `banded`: near the
diagonal.
"""


def made(structure: str, shape: tuple[int, int], density: float, seed: int = 0) -> Matrix:
    """Random matrix with about that share of nonzeros."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    weight = rng.standard_normal(shape, dtype=np.float32)
    if structure == "random":
        mask = rng.random(shape) < density
    elif structure == "blocks":
        mask = np.kron(rng.random((-(-rows // 4), -(-columns // 4))) < density, np.ones((4, 4), dtype=bool))
        mask = mask[:rows, :columns]
    elif structure == "rows":
        mask = rng.random(shape).argsort(axis=1) < max(1, round(density * columns))
    elif structure == "banded":
        place = np.arange(columns) - np.arange(rows)[:, None] * columns // max(rows, 1)
        mask = np.abs(place) <= density * columns / 2
    else:
        raise ValueError(f"there is no structure {structure!r}; known are {', '.join(STRUCTURES)}")
    return np.where(mask, weight, np.float32(0))


def measure(
    *,
    shapes: Sequence[tuple[int, int]],
    batches: Sequence[int] = (1, 16),
    densities: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    formats: Sequence[str] = ("csr", "csc", "bsr", "ell", "dia", "nm", "bitmap"),
    structures: Sequence[str] = STRUCTURES,
    rounds: int = 40,
    seconds: float = 0.1,
) -> dict[str, Any]:
    """Measure the document that `fastest` reads; the caller adds the machine and the date.

    rounds, seconds  per comparison: at least this many rounds, and at most this much time after the first ten rounds
    """
    import torch

    rng = np.random.default_rng(0)
    found = []
    for structure in structures:
        for shape in shapes:
            for density in densities:
                weight = made(structure, shape, density)
                products = {name: product(weight, name) for name in formats if _sensible(name, weight)}
                dense = {"numpy": product(weight, "dense"), "torch": _torch_dense(torch.from_numpy(weight))}
                for batch in batches:
                    x = rng.standard_normal((shape[1], batch) if batch > 1 else shape[1], dtype=np.float32)
                    ms = _times({**dense, **products}, x, rounds, seconds, rng)
                    best = min(ms[name] for name in dense)
                    found += [
                        {"structure": structure, "rows": shape[0], "columns": shape[1], "batch": batch,
                         "density": float(np.count_nonzero(weight)) / weight.size, "format": name, "ms": ms[name],
                         "dense_ms": best, "speedup": best / ms[name]}
                        for name in products
                    ]  # fmt: skip
    return {"schema_version": SCHEMA_VERSION, "threads": torch.get_num_threads(), "products": found}


def crossover(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Crossover density of each structure, shape, batch and format, interpolated between measured densities; 0 where
    the sparse product was never faster.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    keys = ("structure", "rows", "columns", "batch", "format")
    for row in document["products"]:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {**dict(zip(keys, group, strict=True)), "density": _crossing(sorted(rows, key=lambda row: row["density"]))}
        for group, rows in groups.items()
    ]


def _crossing(rows: Sequence[Mapping[str, Any]]) -> float:
    """Density where the logarithm of the speed-up passes 0, by linear interpolation in the density's logarithm."""
    last: Mapping[str, Any] | None = None
    for row in rows:
        if row["speedup"] <= 1.0:
            if last is None:
                return 0.0
            above, below = np.log(last["speedup"]), np.log(row["speedup"])
            share = above / (above - below)
            return float(np.exp(np.log(last["density"]) * (1 - share) + np.log(row["density"]) * share))
        last = row
    return float(last["density"]) if last is not None else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Result of the rule: a format, and its speed-up over the dense product in the nearest measured case."""

    format: str
    speedup: float


def fastest(weight: Matrix, batch: int, document: Mapping[str, Any]) -> Choice:
    """Hybrid rule for products: the fastest format in the measured case most similar to this matrix, or "dense".

    Similarity compares the structure (derived from the matrix), then shape, batch and density in octaves.
    """
    structure = structure_of(Pattern(weight != 0))
    rows = [row for row in document["products"] if row["structure"] == structure] or document["products"]
    density = max(float(np.count_nonzero(weight)) / weight.size, 1e-6)

    def apart(row: Mapping[str, Any]) -> float:
        pairs = (
            (row["rows"], weight.shape[0]), (row["columns"], weight.shape[1]), (row["batch"], batch),
            (row["density"], density), (row["density"], density),
        )  # fmt: skip
        return float(sum(abs(np.log2(a / b)) for a, b in pairs))

    nearest = min((apart(row) for row in rows), default=0.0)
    like = [row for row in rows if apart(row) <= nearest + 1e-9]
    best = max(like, key=lambda row: row["speedup"], default=None)
    if best is None or best["speedup"] <= 1.0:
        return Choice(format="dense", speedup=1.0)
    return Choice(format=best["format"], speedup=best["speedup"])


def structure_of(pattern: Pattern) -> str:
    """Structure of `STRUCTURES` that a pattern is most similar to."""
    if pattern.n == 0:
        return "random"
    rows, columns = pattern.shape
    where = np.divmod(pattern.flat, columns)
    away = np.abs(where[1] - where[0] * columns // rows)
    if pattern.density < 0.5 and float(away.max()) <= max(1.0, 2 * pattern.density * columns):
        return "banded"
    blocks = pattern.blocks(4, 4)
    if blocks.n * 16 <= 1.5 * pattern.n:
        return "blocks"
    return "rows" if len(np.unique(pattern.per_row)) == 1 else "random"


def _sensible(name: str, weight: Matrix) -> bool:
    """Tell whether a format is worth timing: not diagonals that are mostly filled, nor blocks where there are none."""
    pattern = Pattern(weight != 0)
    if name == "dia":
        rows, columns = np.divmod(pattern.flat, weight.shape[1])
        return bool(len(np.unique(columns - rows)) * max(weight.shape) <= 4 * max(pattern.n, 1))
    return name != "bsr" or best_block(weight) != (1, 1)


def _torch_dense(weight: Any) -> Product:
    import torch

    def multiply(x: Matrix) -> Matrix:
        found: Matrix = (weight @ torch.from_numpy(x)).numpy()
        return found

    return multiply


def _times(
    products: Mapping[str, Product], x: Matrix, rounds: int, seconds: float, rng: np.random.Generator
) -> dict[str, float]:
    """10th percentiles in ms, one for each function. Each round runs all of them in a new random order."""
    names = list(products)
    ms: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        products[name](x)
    began = time.perf_counter()
    for n in range(rounds):
        if n >= 10 and time.perf_counter() - began > seconds * len(names):
            break
        for name in rng.permutation(names).tolist():
            start = time.perf_counter()
            products[name](x)
            ms[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.percentile(values, 10)) for name, values in ms.items()}
