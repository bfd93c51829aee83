"""A compressed model as one safetensors file, and back into a plain module.

The file holds two tensors of bytes: `layers` (the records of weights and layers, see `_records.py`) and `rest` (every
other tensor of the state_dict as it is). Names and shapes stand once, deflated, in the metadata: for a small network a
header with an entry for each tensor would weigh as much as its 4-bit weights. `describe_file` shows what is inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import ConfigError, IntegrityError
from .._calibration import Calibration, Rounding, install, rounding_of
from .._digest import tensor_bytes
from .._layers import weight_of
from .._resident import check_names, variant_of
from .._spec import LayerSpec
from .._variant import Variant, decode
from ._container import read_container, write_container
from ._layout import FORMAT, SCHEMA_VERSION, Layout, static_modules
from ._records import Reader, layer_record, weight_record

_installed: WeakKeyDictionary[nn.Module, list[RemovableHandle]] = WeakKeyDictionary()
"""The activation quantizers that `load_model` has installed, so that a second load replaces them."""


def save_model(
    path: Path,
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None = None,
) -> int:
    """Write `model` as compressed by `assignment` and return the length of the file in bytes.

    `model` holds the original weights; layers that are not in `assignment` are stored as they are, tied weights once.
    Written atomically. Raises `ConfigError` as `CompressedModel.apply` does.
    """
    layout = Layout.of(model)
    modules = static_modules(model)
    check_names(assignment, tuple(modules))
    records = [
        _weight_record(layout, index, weight_of(modules[fqns[0]]), assignment, variants)
        for index, fqns in _holders(layout).items()
    ]
    for fqn in layout.layers:
        spec = assignment.get(fqn, LayerSpec())
        rounding = rounding_of(calibration, fqn, spec) if spec.changes_activation else None
        records.append(layer_record(spec, fqn, rounding))
    state = model.state_dict()
    rest = b"".join(tensor_bytes(state[entry.name]) for entry in layout.rest)
    return write_container(Path(path), layout.metadata(), {"layers": _bytes(b"".join(records)), "rest": _bytes(rest)})


def load_model(path: Path, model: nn.Module) -> dict[str, LayerSpec]:
    """Load what `save_model` wrote into `model`, and return each compressible layer's spec.

    `model` is a fresh module of the same architecture; its weights become the effective weights, and quantizers of
    activations are installed as forward pre-hooks, in place of those of an earlier `load_model`. Nothing is changed
    unless all of the file is in order.

    Raises `IntegrityError` if the file is damaged, truncated, contradicts itself or is no file of paredown (a pickle,
    say), and `ConfigError` if it belongs to another model; the first few names that differ are given.
    """
    path = Path(path)
    content = _Content.read(path)
    content.layout.check_fits(Layout.of(model), str(path))
    weights, layers, rest = content.decode()
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    for _, rounding in layers.values():
        for name in (rounding.input_at, rounding.output_at) if rounding else ():
            if name and name not in names:
                raise ConfigError(f"{path} rounds at {name}, which this model has not; it belongs to another model")

    modules = static_modules(model)
    state = model.state_dict()
    with torch.no_grad():
        for fqns, (_, effective) in zip(_holders(content.layout).values(), weights, strict=True):
            weight_of(modules[fqns[0]]).copy_(effective)
        for name, value in rest.items():
            state[name].copy_(value)
    for handle in _installed.pop(model, ()):
        handle.remove()
    _installed[model] = install(model, [rounding for _, rounding in layers.values() if rounding is not None])
    return {fqn: spec for fqn, (spec, _) in layers.items()}


def describe_file(path: Path) -> dict[str, Any]:
    """What the file of a compressed model says of itself, JSON-ready; needs no model. Errors as `load_model`."""
    content = _Content.read(Path(path))
    weights, layers, _ = content.decode()
    described = {}
    for fqn, (spec, rounding) in layers.items():
        entry = content.layout.weights[content.layout.layers[fqn]]
        effective = weights[content.layout.layers[fqn]][1]
        described[fqn] = {
            "spec": spec.to_dict(),
            "weight": entry.name,
            "shape": list(entry.shape),
            "zeros": float((effective == 0).double().mean()),
            "activation": _described(rounding.input if rounding else None),
        }
    return {
        "format": FORMAT,
        "schema_version": int(SCHEMA_VERSION),
        "n_bytes": Path(path).stat().st_size,
        "layers": described,
        "rest": {entry.name: list(entry.shape) for entry in content.layout.rest},
        "ties": content.layout.ties,
    }


class _Content:
    """A file that was read and checked, but not decoded."""

    def __init__(self, path: Path, layout: Layout, layers: Tensor, rest: Tensor) -> None:
        self.path = path
        self.layout = layout
        self.layers = layers
        self.rest = rest

    @classmethod
    def read(cls, path: Path) -> _Content:
        metadata, tensors = read_container(path)
        if metadata.get("format") != FORMAT or not {"layers", "rest"} <= set(tensors):
            raise IntegrityError(
                f"{path} is no compressed model: its format is {metadata.get('format')!r}, not {FORMAT!r}"
            )
        if metadata.get("schema_version") != SCHEMA_VERSION:
            raise IntegrityError(
                f"{path} has schema_version {metadata.get('schema_version')!r}, this paredown reads "
                f"{SCHEMA_VERSION!r}; export the model again"
            )
        return cls(path, Layout.decode(metadata.get("layout", "")), tensors["layers"], tensors["rest"])

    def decode(
        self,
    ) -> tuple[list[tuple[LayerSpec, Tensor]], dict[str, tuple[LayerSpec, Rounding | None]], dict[str, Tensor]]:
        """Each distinct weight (spec, effective), each layer (spec, rounding of its activations or None), the rest."""
        reader = Reader(self.layers, str(self.path))
        weights = []
        for entry in self.layout.weights:
            if 0 in entry.shape or not entry.shape:
                raise IntegrityError(f"{self.path}: {entry.name} has the shape {list(entry.shape)}")
            spec, tensors = reader.weight(entry.shape, entry.torch_dtype)
            weights.append((spec, decode(spec, entry.shape, tensors)))
        layers = {}
        for fqn, index in self.layout.layers.items():
            activation, rounding = reader.layer(fqn)
            layers[fqn] = (_join(weights[index][0], activation), rounding)
        reader.end()
        reader = Reader(self.rest, str(self.path))
        rest = {entry.name: reader.raw(entry.n_bytes, entry.torch_dtype, entry.shape) for entry in self.layout.rest}
        reader.end()
        return weights, layers, rest


def _weight_record(
    layout: Layout,
    index: int,
    weight: Tensor,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
) -> bytes:
    """The record of one weight; layers that hold it and are in `assignment` must agree about it."""
    shape = layout.weights[index].shape
    named = {fqn: assignment[fqn].weight_only for fqn, i in layout.layers.items() if i == index and fqn in assignment}
    if len(set(named.values())) > 1:
        said = ", ".join(f"{fqn}: {spec.label()}" for fqn, spec in named.items())
        raise ConfigError(f"layers that share one weight must get the same treatment, got {said}")
    spec = next(iter(named.values()), LayerSpec())
    if not spec.changes_weight:
        return weight_record(spec, {"values": weight.detach().reshape(-1)})
    fqn = next((fqn for fqn in named if fqn in variants), next(iter(named)))
    return weight_record(spec, variant_of(fqn, spec, variants, shape).tensors)


def _holders(layout: Layout) -> dict[int, list[str]]:
    """Index of each distinct weight -> the layers that hold it, both in the layout's order."""
    holders: dict[int, list[str]] = {index: [] for index in range(len(layout.weights))}
    for fqn, index in layout.layers.items():
        holders[index].append(fqn)
    return holders


def _described(qparams: tuple[float, int] | None) -> dict[str, Any] | None:
    return None if qparams is None else {"scale": qparams[0], "zero_point": qparams[1]}


def _join(weight: LayerSpec, activation: LayerSpec) -> LayerSpec:
    return LayerSpec.from_dict({**weight.to_dict(), **activation.to_dict()})


def _bytes(content: bytes) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
