"""Comparison of two configs or artifacts, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ...errors import ConfigError, InputError, SpecError
from ..space import read_config
from ._manifest import CONFIG, MANIFEST, read_artifact

if TYPE_CHECKING:
    from torch import Tensor

Diff = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side of the comparison.

    kind    "config", "artifact", or "file" (a stored model alone)
    layers  fqn -> spec
    stored  fqn -> {"n_bytes", "stored", "shape"}, where the stored weights are at hand
    file    file of the stored weights; None without them
    facts   other values to compare: "format", "model", "bytes"
    """

    path: Path
    kind: str
    layers: Mapping[str, LayerSpec]
    stored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file: Path | None = None
    claims: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        return {"path": str(self.path), "kind": self.kind, **self.facts}


def diff(a: Path | str, b: Path | str) -> Diff:
    """Compare two, each a config (JSON), the folder of an artifact, or a stored model (`model.safetensors`).

    `{"a", "b", "same", "layers": [{"layer", "same", "a", "b", "weight_error"}], "claims", "notes"}`; `docs/json.md` has
    the keys. A layer that a config does not name is unchanged.
    Raises `InputError`, `ConfigError` or `IntegrityError` where one of the two cannot be read.
    """
    left, right = _read(Path(a)), _read(Path(b))
    errors, notes = _weight_errors(left, right)
    names = list(dict.fromkeys([*left.layers, *right.layers]))
    layers = [_layer(name, left, right, errors.get(name)) for name in names]
    models = left.facts.get("model"), right.facts.get("model")
    if None not in models and models[0] != models[1]:
        notes.append("they were made from different original models")
    claims = {
        name: {"a": left.claims.get(name), "b": right.claims.get(name)}
        for name in dict.fromkeys([*left.claims, *right.claims])
    }
    return {
        "a": left.describe(),
        "b": right.describe(),
        "same": all(layer["same"] for layer in layers),
        "layers": layers,
        "claims": claims,
        "notes": notes,
    }


def _layer(name: str, a: _Side, b: _Side, error: float | None) -> dict[str, Any]:
    sides = [_layer_on(side, name) for side in (a, b)]
    specs = [side and side["spec"] for side in sides]
    return {
        "layer": name,
        "same": specs[0] == specs[1] and error in (None, 0.0),
        "a": sides[0],
        "b": sides[1],
        "weight_error": error,
    }


def _layer_on(side: _Side, name: str) -> dict[str, Any] | None:
    """Spec and bytes of a layer on one side; None where there is no such layer."""
    if name not in side.layers and side.kind != "config":
        return None
    spec = side.layers.get(name, LayerSpec())
    stored = side.stored.get(name, {})
    return {
        "spec": spec.to_dict(),
        "label": spec.label(),
        "bytes": stored.get("n_bytes"),
        "stored": stored.get("stored"),
    }


def _read(path: Path) -> _Side:
    if not path.exists():
        raise InputError(f"there is nothing at {path}; give an artifact's folder, or a config")
    if path.suffix == ".safetensors":
        return _file(path)
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        return _artifact(path)
    if (path / CONFIG).is_file():
        path /= CONFIG
    if path.is_dir():
        raise InputError(f"{path} has neither {MANIFEST} nor {CONFIG}; give an artifact's folder, or a config")
    return _config(path)


def _config(path: Path) -> _Side:
    data = read_config(path)
    return _Side(path=path, kind="config", layers=_specs(data, path), claims=_values(data.get("claims")))


def _artifact(path: Path) -> _Side:
    artifact = read_artifact(path)
    facts = {"format": artifact.format, "model": artifact.model, "bytes": artifact.main_path.stat().st_size}
    claims = {name: claim.value for name, claim in artifact.claims.items()}
    if artifact.format == "paredown":
        found = _file(artifact.main_path)
        return _Side(
            path=path, kind="artifact", layers=found.layers, stored=found.stored, file=found.file, claims=claims,
            facts=facts,
        )  # fmt: skip
    return _Side(path=path, kind="artifact", layers=_specs(artifact.config, path), claims=claims, facts=facts)


def _file(path: Path) -> _Side:
    from ...compressors import describe_file

    described = describe_file(path)
    stored, paid = {}, set()
    for fqn, layer in described["layers"].items():  # a shared weight counts for its first layer
        stored[fqn] = {**layer, "n_bytes": 0 if layer["weight"] in paid else layer["n_bytes"]}
        paid.add(layer["weight"])
    return _Side(
        path=path, kind="file", stored=stored, file=path, facts={"bytes": described["n_bytes"]},
        layers={fqn: LayerSpec.from_dict(layer["spec"]) for fqn, layer in described["layers"].items()},
    )  # fmt: skip


def _specs(config: Mapping[str, Any], path: Path) -> dict[str, LayerSpec]:
    layers = config.get("layers")
    if not isinstance(layers, Mapping) or not all(isinstance(spec, Mapping) for spec in layers.values()):
        raise ConfigError(f'{path}: "layers" must map each layer\'s name to its spec; is it a config?')
    specs = {}
    for fqn, spec in layers.items():
        try:
            specs[fqn] = LayerSpec.from_dict(spec)
        except SpecError as error:
            raise ConfigError(f"{path}: layer {fqn}: {error}") from None
    return specs


def _values(claims: object) -> dict[str, float]:
    if not isinstance(claims, Mapping):
        return {}
    return {name: claim["value"] for name, claim in claims.items() if isinstance(claim, Mapping) and "value" in claim}


def _weight_errors(a: _Side, b: _Side) -> tuple[dict[str, float], list[str]]:
    """(layer -> ‖Wa - Wb‖² / ‖Wa‖² where both store weights of one shape, notes on weights that were not compared)."""
    from ...compressors.storage import stored_weights

    if a.file is None or b.file is None:
        return {}, [] if a.kind == b.kind == "config" else ["weights are compared where both are of our own format"]
    theirs = dict(stored_weights(b.file))
    errors, odd = {}, []
    for name, weight in stored_weights(a.file):
        if name in theirs and theirs[name].shape == weight.shape:
            errors[name] = _error(weight, theirs[name])
        else:
            odd.append(name)
    return errors, [f"{', '.join(odd[:3])}: not in both, or of another shape"] if odd else []


def _error(mine: Tensor, other: Tensor) -> float:
    energy = float(mine.double().square().sum())
    error = float((mine.double() - other.double()).square().sum())
    return error / energy if energy > 0.0 else float(error > 0.0)
