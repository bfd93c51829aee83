"""The config: what each layer becomes, as the JSON that a user exports, reads, edits and applies."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...compressors import SPEC_VERSION, Anatomy, LayerSpec
from ...errors import ConfigError, SpecError
from ...evaluators import Measurement
from ..values import is_structural

SCHEMA_VERSION = SPEC_VERSION
"""Version 1 is read too: in it an activation whose method is not named is by "affine"."""


def config_of(assignment: Mapping[str, LayerSpec]) -> dict[str, Any]:
    """`{"schema_version": 2, "layers": {fqn: what differs from the neutral spec}}`."""
    return {"schema_version": SCHEMA_VERSION, "layers": {fqn: spec.to_dict() for fqn, spec in assignment.items()}}


def with_claims(config: Mapping[str, Any], metrics: Mapping[str, Measurement]) -> dict[str, Any]:
    """The config, and beside it what is known of it; each figure says whether it was measured or modelled. Whoever
    applies the config reads the layers alone."""
    return {**config, "claims": {name: m.to_dict(samples=False) for name, m in metrics.items()}}


def read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"no such config: {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold an object, got {type(data).__name__}")
    return data


def assignment_of(config: Mapping[str, Any], anatomy: Anatomy) -> dict[str, LayerSpec]:
    """fqn -> spec; a layer that the config does not name is left alone. Sets and blocks of which something is removed
    (names with a colon) are handed on as they are: see `Structured.check`.

    What a config says of the weight of one layer holds for all layers that share the tensor, and one that never runs
    may stand for those that do.

    Raises `ConfigError` for a config of another model, naming the layers that do not fit.
    """
    from ...compressors import applicable

    if unknown := sorted(set(config) - {"schema_version", "layers", "claims"}):
        raise ConfigError(f"unknown key {unknown[0]!r} in the config; known are schema_version, layers, claims")
    version = config.get("schema_version")
    if not isinstance(version, int) or version not in range(1, SCHEMA_VERSION + 1):
        raise ConfigError(f"the config has schema version {version!r}; this paredown reads 1 to {SCHEMA_VERSION}")
    layers = config.get("layers")
    if not isinstance(layers, Mapping) or not all(isinstance(spec, Mapping) for spec in layers.values()):
        raise ConfigError(
            'a config\'s "layers" must map each layer\'s name to its spec, e.g. {"conv1": {"weight_bits": 8}}'
        )
    layers = _of_running_layers(layers, anatomy)
    if idle := [fqn for fqn in layers if fqn in anatomy.without_effect]:
        raise ConfigError(
            f"layer {idle[0]} runs, but influences none of the compared outputs; it cannot be judged, so leave it out"
        )
    if uncalled := [fqn for fqn in layers if fqn in anatomy.unused]:
        raise ConfigError(
            f"layer {uncalled[0]} never runs in this model, or its parent uses its weight by itself; it cannot be "
            "compressed, so leave it out"
        )
    strangers = [fqn for fqn in layers if fqn not in anatomy.fqns and not is_structural(fqn)]
    if strangers:
        near = difflib.get_close_matches(strangers[0], anatomy.fqns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; its layers are {', '.join(anatomy.fqns[:5])}, …"
        raise ConfigError(
            f"the config is for another model: {len(strangers)} of its {len(layers)} layers are not in this one, "
            f"first {', '.join(map(repr, strangers[:3]))}{hint}"
        )
    assignment = {fqn: LayerSpec() for fqn in anatomy.fqns}
    for fqn, spec in layers.items():
        try:
            assignment[fqn] = LayerSpec.from_dict(spec, version=version)
        except SpecError as error:
            raise ConfigError(f"layer {fqn}: {error}") from None
        if is_structural(fqn):
            continue
        if why := applicable(assignment[fqn], anatomy[fqn]):
            raise ConfigError(f"layer {fqn}: {why}")
    return _with_ties(assignment, layers, anatomy)


def _of_running_layers(layers: Mapping[str, Any], anatomy: Anatomy) -> dict[str, Any]:
    """The config's layers, those that never run under the name of a layer that runs and holds the same tensor."""
    found = dict(layers)
    for fqn, runs in anatomy.unused_ties:
        if fqn not in found:
            continue
        spec = found.pop(fqn)
        if found.setdefault(runs, spec) != spec:
            raise ConfigError(f"{fqn} and {runs} share one weight tensor, so their specs must treat it alike")
    return found


def _with_ties(assignment: dict[str, LayerSpec], named: Mapping[str, Any], anatomy: Anatomy) -> dict[str, LayerSpec]:
    """Give layers that the config does not name the weight's treatment of a named one that shares their tensor."""
    from ...compressors import applicable

    for group in anatomy.groups:
        given = [fqn for fqn in group if fqn in named]
        if len({assignment[fqn].weight_only for fqn in given}) > 1:
            raise ConfigError(f"{', '.join(given)} share one weight tensor, so their specs must treat it alike")
        for fqn in group if given else ():
            if fqn in given:
                continue
            assignment[fqn] = assignment[given[0]].weight_only
            if why := applicable(assignment[fqn], anatomy[fqn]):
                raise ConfigError(
                    f"layer {given[0]} cannot be {assignment[fqn].label()}: {fqn} shares its weight tensor, and there "
                    f"{why}; give it a spec that suits both"
                )
    return assignment
