"""Registry of searchers by name. A class is imported when a searcher is made: Optuna costs nothing before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeAlias

from ...errors import InputError
from ._base import SearchContext, Searcher

Factory: TypeAlias = Callable[..., Searcher]
"""`factory(context, **params)`; its keyword-only parameters are the searcher's options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearcherInfo:
    """The entry of a searcher in the registry.

    factory     class or function, or "module:name"
    uses_table  True if the sensitivity table should be measured for it
    summary     one line for the user
    """

    name: str
    factory: Factory | str
    uses_table: bool
    summary: str = ""

    def load(self) -> Factory:
        """Return the factory, imported if it is given by name."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, name = self.factory.partition(":")
        factory: Factory = getattr(import_module(module, __package__), name)
        return factory


_SEARCHERS: dict[str, SearcherInfo] = {}

SEARCHERS: Mapping[str, SearcherInfo] = MappingProxyType(_SEARCHERS)
"""Read-only view of every registered searcher (see `register_searcher`)."""


def register_searcher(name: str, factory: Factory | str, *, uses_table: bool = False, summary: str = "") -> None:
    """Register a searcher.

    factory     class or function, or "module:name", which is imported when it is needed
    uses_table  True if the sensitivity table should be measured for it
    summary     one line for the user

    Raises `InputError` for a name that is taken, is empty, or has a colon.
    """
    if name in _SEARCHERS:
        raise InputError(f"a searcher named {name!r} is registered already; choose another name")
    if not name or ":" in name:
        raise InputError(f"a searcher's name must not be empty and must have no colon, got {name!r}")
    _SEARCHERS[name] = SearcherInfo(name=name, factory=factory, uses_table=uses_table, summary=summary)


def make_searcher(name: str, context: SearchContext, params: Mapping[str, Any] | None = None) -> Searcher:
    """Return a new searcher for this context.

    name    name in the registry; "optuna:SAMPLER" is short for "optuna" with the option `sampler`
    params  options of the searcher

    Raises `InputError` for an unknown name or option (with the known ones), for a value that the searcher refuses, and
    for a context without objectives, groups or levels.
    """
    factory, options = _checked(name, params)
    if not context.objectives:
        raise InputError("a searcher needs at least one objective, got none")
    if not len(context.space) or min(context.space.n_levels) < 1:
        raise InputError(
            "a searcher needs a space with at least one group, and a level in each; there is nothing to decide here"
        )
    return factory(context, **options)


def check_searcher(name: str, params: Mapping[str, Any] | None = None) -> None:
    """Raise `InputError` for a name or an option that `make_searcher` would refuse, before there is a context."""
    _checked(name, params)


def _checked(name: str, params: Mapping[str, Any] | None) -> tuple[Factory, dict[str, Any]]:
    info, options = _resolve(name, params)
    factory = info.load()
    known = [p.name for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise InputError(f"unknown option {option!r} of searcher {name!r}; known are {', '.join(known) or 'none'}")
    return factory, options


def uses_table(name: str, params: Mapping[str, Any] | None = None) -> bool:
    """Say whether the sensitivity table should be measured for a searcher. Raises `InputError` for a bad name."""
    info, options = _resolve(name, params)
    return info.uses_table or bool(options.get("seed_with_sweep", False))


def _resolve(name: str, params: Mapping[str, Any] | None) -> tuple[SearcherInfo, dict[str, Any]]:
    options = dict(params or {})
    base, colon, sampler = name.partition(":")
    if colon:
        if base != "optuna":
            raise InputError(f"only optuna takes a sampler after a colon, got {name!r}")
        if options.setdefault("sampler", sampler) != sampler:
            raise InputError(f"two samplers given: {name!r} and the option sampler = {options['sampler']!r}; keep one")
    if base not in _SEARCHERS:
        raise InputError(f"searcher must be one of {', '.join(_SEARCHERS)}, got {name!r}")
    return _SEARCHERS[base], options


register_searcher(
    "evolution",
    "._evolution:EvolutionSearcher",
    uses_table=True,
    summary="sensitivity table, sweep over all budgets, refit, level switches and crossover (the default)",
)
register_searcher(
    "genetic", "._genetic:GeneticSearcher", summary="the classic generations: population, elites, crossover, mutation"
)
register_searcher(
    "policy", "._policy:PolicySearcher", uses_table=True, summary="policy gradient, layer by layer, to a drawn budget"
)
register_searcher("random", "._random:RandomSearcher", summary="uniform over what is left of the space")
register_searcher(
    "optuna", "._optuna:OptunaSearcher", summary="any Optuna sampler: tpe, nsga2, or an import path (optuna:SAMPLER)"
)
