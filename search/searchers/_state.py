"""The envelope of every searcher's state: its searcher, its space and its version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ..values import Candidate, SearchSpace
from ._known import Levels, levels_of

SCHEMA_VERSION = 1


def write_state(searcher: str, space: SearchSpace, **fields: Any) -> dict[str, Any]:
    """Return the state of a searcher with its envelope."""
    return {"schema_version": SCHEMA_VERSION, "searcher": searcher, "n_levels": list(space.n_levels), **fields}


def read_state(state: Mapping[str, Any], searcher: str, space: SearchSpace, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a state of `write_state`.

    Raises `ConfigError` for the state of another searcher, space or version, and for missing or unknown fields.
    """
    expected = {"schema_version": SCHEMA_VERSION, "searcher": searcher, "n_levels": list(space.n_levels)}
    for key, value in expected.items():
        if state.get(key) != value:
            raise ConfigError(
                f"this searcher's state has {key} = {state.get(key)!r}, expected {value!r}; "
                "it belongs to another searcher, space or version: start the searcher afresh and tell it the ledger"
            )
    if missing := [name for name in fields if name not in state]:
        raise ConfigError(f"a searcher's state has no {missing[0]!r}; it needs {', '.join(fields)}")
    if unknown := sorted(set(state) - set(expected) - set(fields)):
        raise ConfigError(
            f"unknown key {unknown[0]!r} in a searcher's state; known are {', '.join([*expected, *fields])}"
        )
    return {name: state[name] for name in fields}


def read_levels(levels: Any, space: SearchSpace) -> Levels:
    """Return stored levels. Raises `ConfigError` if they are not of this space."""
    candidate = Candidate(levels=tuple(levels))
    space.check(candidate)
    return levels_of(candidate)
