"""Methods named by an expression over others: weighted mixtures of scores, and survivors that are refitted.

    sparsity_method = "0.7*wanda+0.3*taylor"        a mixture: of each score the rank within the layer, weighted
    sparsity_method = "refit(0.5*obs+0.5*fisher)"   the mask of a score, the survivors by `_refit`

Ranks, because scores of different kinds have different units and tails. What a mixture needs is all that its parts
need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import SpecError
from ..registry import NEEDS, SPARSITY, SparsityMethod
from ..registry._registry import _Entry
from ._problem import SparsityProblem
from ._refit import refitted

_REFIT = re.compile(r"refit\((.+)\)")
_TERM = re.compile(r"(?:(\d+(?:\.\d+)?)\*)?([A-Za-z_]\w*)")


def composed(name: str) -> _Entry[SparsityMethod] | None:
    """Method of an expression; None if the name is no expression. Raises `SpecError` for an invalid expression."""
    if (match := _REFIT.fullmatch(name)) is not None:
        return _refit(match[1])
    if "+" not in name and "*" not in name:
        return None
    return _mixture(name)


def _refit(inner: str) -> _Entry[SparsityMethod]:
    part = _scores_of(inner)

    def method(problem: SparsityProblem) -> tuple[Tensor, Tensor]:
        mask = problem.mask(part.method(problem))
        return mask, refitted(problem, mask)

    return _Entry(method, f"refit {part.version}", None, _together({part.needs, "moments"}), "weights")


def _mixture(text: str) -> _Entry[SparsityMethod]:
    terms: dict[str, float] = {}
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None or match[2] in terms:
            raise SpecError(
                f"a mixture of scores must be like '0.7*wanda+0.3*taylor', each score once, got {text!r} ({term!r})"
            )
        terms[match[2]] = float(match[1] or 1.0)
    if not any(terms.values()):
        raise SpecError(f"a mixture of scores needs a weight above 0, got {text!r}")
    parts = {name: _scores_of(name) for name in terms}
    version = ",".join(f"{name} {part.version}" for name, part in parts.items())
    return _Entry(_mixer(terms, parts), version, None, _together({part.needs for part in parts.values()}), "scores")


def _mixer(terms: Mapping[str, float], parts: Mapping[str, _Entry[SparsityMethod]]) -> SparsityMethod:
    def scores(problem: SparsityProblem) -> Tensor:
        total = torch.zeros_like(problem.matrix)
        for name, weight in terms.items():
            total += weight * ranks(parts[name].method(problem))
        return total

    return scores


def ranks(scores: Tensor) -> Tensor:
    """Ranks of the scores, same shape, in [0, 1); the least score has rank 0."""
    flat = scores.reshape(-1)
    ranks = torch.empty_like(flat)
    ranks[torch.argsort(flat, stable=True)] = torch.arange(flat.numel(), dtype=flat.dtype) / flat.numel()
    return ranks.reshape(scores.shape)


def _scores_of(name: str) -> _Entry[SparsityMethod]:
    part = SPARSITY._entry(name)
    if part.gives != "scores":
        raise SpecError(f"{name!r} gives {part.gives}, and only methods that give scores can be mixed or refitted")
    return part


def _together(needs: set[str | None]) -> str | None:
    every = {word for need in needs if need for word in need.split("+")}
    return NEEDS[2] if len(every) == 2 else next(iter(every), None)


SPARSITY.compose = composed
