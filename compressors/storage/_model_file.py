"""A compressed model as one safetensors file, and back into a plain module.

The file holds two tensors of bytes: `layers` (the records of weights and layers, see `_records.py`) and `rest` (every
other tensor of the state_dict as it is). Names and shapes stand once, deflated, in the metadata: for a small network a
header with an entry for each tensor would weigh as much as its 4-bit weights. `describe_file` shows what is inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import ConfigError, IntegrityError
from ..anatomy import computed_weights, fold_weights
from ..calibration import Calibration, Rounding, install, rounding_of
from ..files import read_container, tensor_bytes, write_container
from ..sparse_formats import SPARSE_FORMATS
from ..values import FLOAT_BITS, LayerSpec, is_inner
from ..variants import Variant, check_names, decode, variant_of
from ._layout import FORMAT, READABLE, Layout, static_weights
from ._records import Reader, entropy_record, layer_record, weight_record

_NAME_OF = {format.number: format.name for format in SPARSE_FORMATS.values()}

_installed: WeakKeyDictionary[nn.Module, list[RemovableHandle]] = WeakKeyDictionary()
"""Activation quantizers that `load_model` installed, so that a second load replaces them."""


def save_model(
    path: Path,
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None = None,
    *,
    entropy: bool = False,
) -> int:
    """Write `model` as compressed by `assignment` and return the length of the file in bytes.

    `model` holds the original weights; layers that are not in `assignment` are stored as they are, in the type of the
    model's source (`source_dtypes`), and tied weights once.

    entropy  entropy-code each stream that becomes shorter (see `_entropy.py`); the file is smaller, and slower to load.
             Without it the length equals `stored_bytes`

    The file is written atomically. Raises `ConfigError` as `CompressedModel.apply` does.
    """
    layout = Layout.of(model)
    originals = static_weights(model)
    check_names(assignment, tuple(originals))
    records = [
        _weight_record(layout, index, originals[fqns[0]], assignment, variants, entropy)
        for index, fqns in _holders(layout).items()
    ]
    with_calls = False
    for fqn in layout.layers:
        spec = assignment.get(fqn, LayerSpec())
        rounding = rounding_of(calibration, fqn, spec) if spec.changes_activation else None
        with_calls |= rounding is not None and bool(rounding.calls)
        records.append(layer_record(spec, fqn, rounding))
    state = model.state_dict()
    rest = b"".join(tensor_bytes(state[entry.name].detach().to(entry.torch_dtype)) for entry in layout.rest)
    content = {"layers": _bytes(b"".join(records)), "rest": _bytes(rest)}
    return write_container(Path(path), layout.metadata(with_calls=with_calls), content)


def load_model(path: Path, model: nn.Module) -> dict[str, LayerSpec]:
    """Load what `save_model` wrote into `model`, and return each compressible layer's spec.

    `model` is a fresh module of the same architecture; its weights become the effective weights, and quantizers of
    activations are installed as forward pre-hooks, in place of those of an earlier `load_model`. Nothing is changed
    unless all of the file is in order, except that weights which are computed from other parameters (weight norm, …)
    become plain, as they were when the file was written, and a model in half precision becomes FP32, for it could not
    hold the effective weights.

    Raises `IntegrityError` if the file is damaged, truncated, contradicts itself or is no file of paredown (a pickle,
    say), and `ConfigError` if it belongs to another model; the first few names that differ are given.
    """
    path = Path(path)
    content = _Content.read(path)
    # before the weights inside recurrent layers and attentions were layers, they lay with the rest
    inner = any(is_inner(fqn) for fqn in content.layout.layers)
    stored = {entry.name for entry in content.layout.rest}  # earlier versions stored the parts of computed weights
    if not any(part in stored for computed in computed_weights(model) for part in computed.parts):
        fold_weights(model)
    content.layout.check_fits(Layout.of(model, inner=inner), str(path))
    weights, layers, rest = content.decode()
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    for _, rounding in layers.values():
        for name in (rounding.input_at, rounding.output_at, rounding.product_in) if rounding else ():
            if name and name not in names:
                raise ConfigError(f"{path} rounds at {name}, which this model has not; it belongs to another model")

    if any(t.is_floating_point() and t.dtype.itemsize < 4 for t in model.state_dict().values()):
        model.float()
    own = static_weights(model)
    state = model.state_dict()
    with torch.no_grad():
        for fqns, weight in zip(_holders(content.layout).values(), weights, strict=True):
            own[fqns[0]].copy_(weight.effective)
        for name, value in rest.items():
            state[name].copy_(value)
    for handle in _installed.pop(model, ()):
        handle.remove()
    _installed[model] = install(model, [rounding for _, rounding in layers.values() if rounding is not None])
    return {fqn: spec for fqn, (spec, _) in layers.items()}


def describe_file(path: Path) -> dict[str, Any]:
    """Description of a compressed model's file, JSON-ready; needs no model.

    Errors as `load_model`; also `IntegrityError` for weights that are implausibly large for the file.
    """
    content = _Content.read(Path(path))
    weights, layers, _ = content.decode(trusted=False)
    described = {}
    for fqn, (spec, rounding) in layers.items():
        weight = weights[content.layout.layers[fqn]]
        entry = content.layout.weights[content.layout.layers[fqn]]
        described[fqn] = {
            "spec": spec.to_dict(),
            "weight": entry.name,
            "shape": list(entry.shape),
            "stored": weight.stored,
            "n_bytes": weight.n_bytes,
            "zeros": float((weight.effective == 0).double().mean()),
            "activation": _described(rounding.input if rounding else None),
        }
        if rounding is not None and rounding.calls:
            described[fqn]["activation_calls"] = [_described(params) for params in rounding.calls]
    return {
        "format": FORMAT,
        "schema_version": int(content.schema),
        "n_bytes": Path(path).stat().st_size,
        "layers": described,
        "rest": {entry.name: list(entry.shape) for entry in content.layout.rest},
        "ties": content.layout.ties,
    }


def stored_integers(path: Path, fqns: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """fqn -> (codes, scales) as in `Variant.codes`, for layers of the file whose weight has such codes.

    Errors as `describe_file`.
    """
    content = _Content.read(Path(path))
    weights, _, _ = content.decode(trusted=False)
    found = {}
    for fqn in fqns:
        weight = weights[content.layout.layers[fqn]]
        variant = Variant(spec=weight.spec.weight_only, effective=weight.effective, tensors=weight.tensors)
        if (codes := variant.codes()) is not None:
            found[fqn] = codes
    return found


def stored_weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(fqn, effective weight) of each layer of the file; needs no model. Errors as `describe_file`."""
    content = _Content.read(Path(path))
    weights, layers, _ = content.decode(trusted=False)
    for fqn in layers:
        yield fqn, weights[content.layout.layers[fqn]].effective


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weight:
    """One weight of a file.

    stored   format of each of its matrices
    n_bytes  length of its record
    """

    spec: LayerSpec
    effective: Tensor
    stored: list[str]
    n_bytes: int
    tensors: dict[str, Tensor]


class _Content:
    """File that was read and checked, but not decoded."""

    def __init__(self, path: Path, schema: str, layout: Layout, layers: Tensor, rest: Tensor) -> None:
        self.path = path
        self.schema = schema
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
        schema = metadata.get("schema_version")
        if schema not in READABLE:
            raise IntegrityError(
                f"{path} has schema_version {schema!r}, this paredown reads {', '.join(READABLE)}; read it with the "
                f"paredown that wrote it, or a later one"
            )
        if any(tensors[name].dtype != torch.uint8 or tensors[name].dim() != 1 for name in ("layers", "rest")):
            raise IntegrityError(f"{path}: layers and rest must be bytes in a row; the file contradicts itself")
        return cls(path, schema, Layout.decode(metadata.get("layout", "")), tensors["layers"], tensors["rest"])

    def decode(
        self, *, trusted: bool = True
    ) -> tuple[list[_Weight], dict[str, tuple[LayerSpec, Rounding | None]], dict[str, Tensor]]:
        """Decode each distinct weight, each layer (spec, rounding of its activations or None), and the rest.

        trusted  whether the shapes are known to be those of an existing model
        """
        if not trusted:
            self.layout.check_plausible(len(self.layers))
        reader = Reader(self.layers, str(self.path), schema=self.schema)
        weights = []
        for entry in self.layout.weights:
            if 0 in entry.shape or not entry.shape:
                raise IntegrityError(f"{self.path}: {entry.name} has the shape {list(entry.shape)}")
            start = reader.position
            spec, tensors = reader.weight(entry.shape, entry.torch_dtype)
            weights.append(
                _Weight(
                    spec=spec,
                    effective=_at_least_float32(decode(spec, entry.shape, tensors)),
                    stored=_stored_as(tensors),
                    n_bytes=reader.position - start,
                    tensors=tensors,
                )
            )
        layers = {}
        for fqn, index in self.layout.layers.items():
            activation, rounding = reader.layer(fqn)
            layers[fqn] = (_join(weights[index].spec, activation), rounding)
        reader.end()
        reader = Reader(self.rest, str(self.path))
        rest = {entry.name: reader.raw(entry.n_bytes, entry.torch_dtype, entry.shape) for entry in self.layout.rest}
        reader.end()
        return weights, layers, rest


def _stored_as(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name of the format of each stored matrix: "dense", or a sparse format."""
    prefixes = [name.removesuffix(kind) for name in tensors for kind in ("codes", "values") if name.endswith(kind)]
    return [
        _NAME_OF[int(tensors[prefix + "layout"][0])] if prefix + "layout" in tensors else "dense" for prefix in prefixes
    ]


def _weight_record(
    layout: Layout,
    index: int,
    weight: Tensor,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    entropy: bool,
) -> bytes:
    """Record of one weight; the layers that hold it and are in `assignment` must agree about it."""
    shape, dtype = layout.weights[index].shape, layout.weights[index].torch_dtype
    named = {fqn: assignment[fqn].weight_only for fqn, i in layout.layers.items() if i == index and fqn in assignment}
    if len(set(named.values())) > 1:
        said = ", ".join(f"{fqn}: {spec.label()}" for fqn, spec in named.items())
        raise ConfigError(f"layers that share one weight must get the same treatment, got {said}")
    spec = next(iter(named.values()), LayerSpec())
    if not spec.changes_weight:
        return weight_record(spec, {"values": weight.detach().reshape(-1).to(dtype)})
    fqn = next((fqn for fqn in named if fqn in variants), next(iter(named)))
    tensors = variant_of(fqn, spec, variants, shape).tensors
    if spec.weight_bits == FLOAT_BITS and any(t.dtype != dtype for n, t in tensors.items() if n.endswith("values")):
        raise ConfigError(
            f"the variant of {fqn} should hold numbers of the type {dtype}, which is its source's; make it again with "
            f"the anatomy of this model"
        )
    return entropy_record(spec, tensors, shape) if entropy else weight_record(spec, tensors)


def _holders(layout: Layout) -> dict[int, list[str]]:
    """Index of each distinct weight -> the layers that hold it, both in the layout's order."""
    holders: dict[int, list[str]] = {index: [] for index in range(len(layout.weights))}
    for fqn, index in layout.layers.items():
        holders[index].append(fqn)
    return holders


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def _described(qparams: tuple[float, int] | None) -> dict[str, Any] | None:
    return None if qparams is None else {"scale": qparams[0], "zero_point": qparams[1]}


def _join(weight: LayerSpec, activation: LayerSpec) -> LayerSpec:
    return LayerSpec.from_dict({**weight.to_dict(), **activation.to_dict()})


def _bytes(content: bytes) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
