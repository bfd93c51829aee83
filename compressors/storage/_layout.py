"""Layout of a model's file, as the model alone determines it: names, shapes, number types, and shared tensors."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, IntegrityError
from ..anatomy import compressible, same_tensor, source_dtypes, stored_dtype, weight_at
from ..files import header_bytes
from ..values import is_inner, weight_name

FORMAT = "paredown.model"
SCHEMA_VERSION, WITH_CALLS = "2", "3"
"""Version that is written, and that of a file in which the calls of a layer have ranges of their own."""
READABLE = ("1", "2", "3")
"""Versions that can be read. Schema 1 had one sparse format, the bitmap, and no entropy coding; its files are a subset
of schema 2. The records of schema 3 are those of schema 2, and some end with ranges of calls.
"""
TENSORS = ("layers", "rest")
_MAX_LAYOUT = 64_000_000
_MOST_INFLATED = 200
"""Largest expansion of a description, as a multiple of its length: the names of a network compress tenfold."""
_MOST_ENTRIES = 2**28
_MOST_PER_BYTE = 2**14
"""Largest matrix that is accepted without a model of that size.

Zeros cost nearly nothing, so a small file may claim to be a large matrix.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored tensor: its name in the state_dict, shape and number type (`torch.float32` is "float32").

    The type is that of the model's source (`source_dtypes`), in which the tensor is stored where it is left alone.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * self.torch_dtype.itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or "quint" in self.dtype or "qint" in self.dtype or "bits" in self.dtype:
            raise IntegrityError(f"{self.name} is stored as {self.dtype!r}, which is no number type of torch")
        return dtype


@dataclass(frozen=True, slots=True)
class Layout:
    """Order of the contents in the file.

    weights  the distinct weights of the compressible layers, under the name of the first layer that holds them
    layers   fqn of each compressible layer -> index of its weight in `weights`
    rest     every other tensor of the state_dict, once
    ties     names in the state_dict of what is stored under another name -> that name
    """

    weights: tuple[Entry, ...]
    layers: dict[str, int]
    rest: tuple[Entry, ...]
    ties: dict[str, str]

    @classmethod
    def of(cls, model: nn.Module, *, inner: bool = True) -> Layout:
        """Layout of a model.

        inner  whether the weights inside recurrent layers and attentions are layers, or lie in `rest`

        Raises `ConfigError` if the state_dict holds anything but tensors.
        """
        weights: list[Entry] = []
        rest: list[Entry] = []
        layers: dict[str, int] = {}
        ties: dict[str, str] = {}
        index: dict[tuple[object, ...], int] = {}
        names: dict[tuple[object, ...], str] = {}
        sources = source_dtypes(model)
        for fqn, weight in static_weights(model).items():
            if is_inner(fqn) and not inner:
                continue
            key = same_tensor(weight)
            if key not in index:
                index[key] = len(weights)
                names[key] = weight_name(fqn)
                weights.append(_entry(weight_name(fqn), weight, sources))
            layers[fqn] = index[key]
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor):
                raise ConfigError(
                    f"the state of the model holds {name!r}, a {type(value).__name__}; "
                    f"only tensors can be stored safely"
                )
            key = same_tensor(value)
            if key not in names:
                names[key] = name
                rest.append(_entry(name, value, sources))
            elif names[key] != name:
                ties[name] = names[key]
        return cls(tuple(weights), layers, tuple(rest), ties)

    def encode(self) -> str:
        """Encode as compact text: JSON, deflated, in base 64. The names of a network compress tenfold."""
        data = {
            "weights": [[e.name, e.shape, e.dtype] for e in self.weights],
            "layers": self.layers,
            "rest": [[e.name, e.shape, e.dtype] for e in self.rest],
            "ties": self.ties,
        }
        return base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)).decode()

    @classmethod
    def decode(cls, text: str) -> Layout:
        """Inverse of `encode`. Raises `IntegrityError` for any other text."""
        try:
            inflate = zlib.decompressobj()
            most = min(_MAX_LAYOUT, 4096 + _MOST_INFLATED * len(text))
            raw = inflate.decompress(base64.b64decode(text, validate=True), most)
            data: Any = json.loads(raw)
            layers = {str(fqn): int(i) for fqn, i in data["layers"].items()}
            weights, rest = ([_entry_from(item) for item in data[key]] for key in ("weights", "rest"))
            ties = {str(name): str(target) for name, target in data["ties"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
            raise IntegrityError(f"the description of the model's tensors cannot be read: {error}") from error
        if any(not 0 <= i < len(weights) for i in layers.values()):
            raise IntegrityError("the description of the model's tensors names a weight that it does not have")
        return cls(tuple(weights), layers, tuple(rest), ties)

    def check_plausible(self, n_bytes: int) -> None:
        """Check sizes before memory is allocated. Raises `IntegrityError` for weights that no file of this length would
        hold.
        """
        sizes = {entry.name: prod(entry.shape) for entry in self.weights}
        name = max(sizes, key=lambda name: sizes[name], default="")
        if sizes and (sizes[name] > _MOST_ENTRIES or sum(sizes.values()) > _MOST_PER_BYTE * n_bytes):
            raise IntegrityError(
                f"{name} is said to have {sizes[name]} entries, in a file of {n_bytes} bytes; without the model that "
                f"it belongs to that is not believed. Load it with paredown.load(path, model_factory)"
            )

    def metadata(self, *, with_calls: bool = False) -> dict[str, str]:
        schema = WITH_CALLS if with_calls else SCHEMA_VERSION
        return {"format": FORMAT, "schema_version": schema, "layout": self.encode()}

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the file beside the records of weights and layers: its header, and `rest`."""
        return header_bytes(self.metadata(), TENSORS) + sum(entry.n_bytes for entry in self.rest)

    def check_fits(self, model_layout: Layout, where: str) -> None:
        """Check that `model_layout` is equal, but for the widths of floating-point numbers, which the file decides.

        Raises `ConfigError`, naming the first few names that differ.
        """
        mine, theirs = self._shapes(), model_layout._shapes()
        fits = self._comparable(), model_layout._comparable()
        problems = []
        if missing := [name for name in mine if name not in theirs]:
            problems.append(f"the model has no {_few(missing)}")
        if unexpected := [name for name in theirs if name not in mine]:
            problems.append(f"the file has no {_few(unexpected)}")
        differing = [name for name in mine if name in theirs and fits[0][name] != fits[1][name]]
        problems.extend(f"{n} is {mine[n]} in the file and {theirs[n]} in the model" for n in differing[:3])
        if not problems and (self.ties, self.layers) != (model_layout.ties, model_layout.layers):
            problems.append(f"they differ in what shares a tensor ({self.ties} and {model_layout.ties})")
        if not problems and list(fits[0]) != list(fits[1]):
            problems.append("they list their tensors in another order")
        if problems:
            raise ConfigError(f"{where} belongs to another model: {'; '.join(problems)}")

    def _shapes(self) -> dict[str, str]:
        shapes = {entry.name: f"{entry.dtype} {list(entry.shape)}" for entry in (*self.weights, *self.rest)}
        return shapes | dict.fromkeys(self.ties, "shared")

    def _comparable(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (kind of number, shape), in the order of the file."""
        return {
            entry.name: ("float" if entry.torch_dtype.is_floating_point else entry.dtype, entry.shape)
            for entry in (*self.weights, *self.rest)
        } | dict.fromkeys(self.ties, ("shared", ()))


def static_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """fqn -> weight of every compressible layer, in the order of `named_modules`."""
    return {fqn: weight_at(model, fqn) for fqn in compressible(model)}


def _entry(name: str, tensor: Tensor, sources: Mapping[str, str]) -> Entry:
    dtype = stored_dtype(tensor.detach(), sources.get(name, ""))
    return Entry(name, tuple(tensor.shape), str(dtype).removeprefix("torch."))


def _entry_from(item: Any) -> Entry:
    name, shape, dtype = item
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"{name} has the shape {shape!r}")
    return Entry(str(name), tuple(shape), str(dtype))


def _few(names: list[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
