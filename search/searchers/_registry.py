"""Registry of searchers by name. A class is imported when a searcher is made: Optuna costs nothing before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeAlias

from ...errors import InputError
from ._base import SearchContext, Searcher
from ._optuna import SAMPLERS, sampler_class, short_name

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


def canonical_name(name: str | type) -> str:
    """Return what the registry calls a searcher: every other spelling of one becomes "optuna:SAMPLER".

    name  name in the registry; a sampler's short name ("tpe"), class name ("TPESampler"), import path
          ("optuna.samplers.TPESampler"), or class; any of these after "optuna:"

    Raises `InputError`, with the names near it, for a name that is neither in the registry nor a sampler's.
    """
    if isinstance(name, type):
        name = f"{name.__module__}.{name.__qualname__}"
    if name in _SEARCHERS:
        return name
    base, colon, sampler = name.partition(":")
    if colon and base != "optuna":
        raise InputError(f"only optuna takes a sampler after a colon, got {name!r}")
    if (short := short_name(sampler if colon else name)) is not None:
        return f"optuna:{short}"
    known = (*_SEARCHERS, *(each for each in SAMPLERS if each not in _SEARCHERS))
    near = get_close_matches(name.removeprefix("optuna:").lower(), known, n=3, cutoff=0.5)
    raise InputError(
        f"searcher must be one of {', '.join(known)}, or the import path of a sampler of Optuna's, got {name!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def make_searcher(name: str | type, context: SearchContext, params: Mapping[str, Any] | None = None) -> Searcher:
    """Return a new searcher for this context.

    name    as for `canonical_name`; "optuna:SAMPLER" is short for "optuna" with the option `sampler`
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


def check_searcher(name: str | type, params: Mapping[str, Any] | None = None) -> None:
    """Raise `InputError` for a name or an option that `make_searcher` would refuse, before there is a context."""
    info, options = _resolve(name, params)
    _checked(name, params)
    if info.name == "optuna":
        sampler_class(options.get("sampler", "tpe"))


def _checked(name: str | type, params: Mapping[str, Any] | None) -> tuple[Factory, dict[str, Any]]:
    info, options = _resolve(name, params)
    factory = info.load()
    known = [p.name for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise InputError(f"unknown option {option!r} of searcher {name!r}; known are {', '.join(known) or 'none'}")
    return factory, options


def uses_table(name: str | type, params: Mapping[str, Any] | None = None) -> bool:
    """Say whether the sensitivity table should be measured for a searcher. Raises `InputError` for a bad name."""
    info, options = _resolve(name, params)
    return info.uses_table or bool(options.get("seed_with_sweep", False))


def _resolve(name: str | type, params: Mapping[str, Any] | None) -> tuple[SearcherInfo, dict[str, Any]]:
    options = dict(params or {})
    base, colon, sampler = canonical_name(name).partition(":")
    if colon and options.setdefault("sampler", sampler) != sampler:
        raise InputError(f"two samplers given: {name!r} and the option sampler = {options['sampler']!r}; keep one")
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
