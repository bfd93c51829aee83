"""What the file of a model holds for each weight and for each layer, byte by byte.

A weight, once however many layers hold it:
    2 bytes   length of the spec, little endian
    spec      JSON with short keys; nothing where the weight is left alone
    1 byte    bit 0: the first stored matrix has a bitmap; bit 1: so has the second
    matrices  their tensors, in the order of `_parts.NAMES`; the lengths follow from the spec, the shape and the bitmap
A layer:
    2 bytes   length of the spec, little endian
    spec      the activation's part of it
    5 bytes   only with activations whose range was calibrated: scale (float32) and zero point (uint8)
    places    only with activation_scope "tensor": for the input and for the output, one byte of length and the fqn
              where it is rounded (none: at the layer; not at all), and behind that of an output its own 5 bytes
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...errors import IntegrityError, SpecError
from .._calibration import Rounding
from .._digest import tensor_bytes
from .._spec import FLOAT_BITS, LayerSpec
from .._variant import part_shapes
from ..quantization._grid import CASTS
from ._packing import packed_bytes, unpack_bits
from ._parts import NAMES, concrete_grid

_SHORT = {
    "weight_bits": "w",
    "activation_bits": "a",
    "sparsity": "s",
    "rank": "r",
    "weight_method": "wm",
    "activation_method": "am",
    "sparsity_method": "sm",
    "rank_method": "rm",
    "weight_format": "wf",
    "group_size": "g",
    "scale_bits": "sb",
    "activation_scheme": "as",
    "activation_scope": "ao",
}
_LONG = {short: long for long, short in _SHORT.items()}
_QPARAMS = struct.Struct("<fB")
_LENGTH = struct.Struct("<H")


def weight_record(spec: LayerSpec, tensors: Mapping[str, Tensor]) -> bytes:
    """`tensors` as in `Variant.tensors`."""
    prefixes = _prefixes(spec)
    flags = sum(1 << i for i, prefix in enumerate(prefixes) if f"{prefix}bitmap" in tensors)
    data = [tensors[prefix + name] for prefix in prefixes for name in NAMES if prefix + name in tensors]
    return _spec_bytes(spec.weight_only) + bytes([flags]) + b"".join(tensor_bytes(tensor) for tensor in data)


def weight_record_bytes(spec: LayerSpec, n_bytes: int) -> int:
    """Length of `weight_record`, for tensors of `n_bytes` together."""
    return len(_spec_bytes(spec.weight_only)) + 1 + n_bytes


def layer_record(spec: LayerSpec, fqn: str, rounding: Rounding | None) -> bytes:
    """`rounding`: of a layer whose activations change."""
    data = _spec_bytes(spec.activation_only)
    if rounding is None or rounding.input is None:
        return data
    data += _QPARAMS.pack(*rounding.input)
    if spec.activation_scope == "tensor":
        data += _name("" if rounding.input_at == fqn else rounding.input_at) + _name(rounding.output_at)
        data += _QPARAMS.pack(*rounding.output) if rounding.output is not None else b""
    return data


def layer_record_bytes(spec: LayerSpec, shared_input: str = "", sum_after: str = "") -> int:
    n_bytes = len(_spec_bytes(spec.activation_only)) + (_QPARAMS.size if spec.needs_range else 0)
    if spec.needs_range and spec.activation_scope == "tensor":
        n_bytes += len(_name(shared_input)) + len(_name(sum_after)) + (_QPARAMS.size if sum_after else 0)
    return n_bytes


def _name(fqn: str) -> bytes:
    data = fqn.encode()
    if len(data) > 255:
        raise SpecError(f"a module's name of more than 255 bytes cannot be stored: {fqn[:40]}…")
    return bytes([len(data)]) + data


class Reader:
    """Reads records from the front of `data`. Raises `IntegrityError` where they do not add up."""

    def __init__(self, data: Tensor, where: str) -> None:
        self._data = data
        self._position = 0
        self._where = where

    def weight(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[LayerSpec, dict[str, Tensor]]:
        spec = self._spec()
        flags = int(self._take(1)[0])
        tensors: dict[str, Tensor] = {}
        for i, (prefix, part_shape) in enumerate(part_shapes(spec, shape).items()):
            part = self._part(part_shape, spec, dtype, has_bitmap=bool(flags >> i & 1))
            tensors |= {prefix + name: tensor for name, tensor in part.items()}
        return spec, tensors

    def layer(self, fqn: str) -> tuple[LayerSpec, Rounding | None]:
        spec = self._spec()
        if not spec.changes_activation:
            return spec, None
        if not spec.needs_range:
            return spec, Rounding(bits=spec.activation_bits, input_at=fqn, input=None)
        input, output, input_at, output_at = self._qparams(), None, "", ""
        if spec.activation_scope == "tensor":
            input_at, output_at = self._fqn(), self._fqn()
            output = self._qparams() if output_at else None
        return spec, Rounding(
            bits=spec.activation_bits, input_at=input_at or fqn, input=input, output_at=output_at, output=output
        )

    def _qparams(self) -> tuple[float, int]:
        scale, zero_point = _QPARAMS.unpack(bytes(self._take(_QPARAMS.size).tolist()))
        return scale, zero_point

    def _fqn(self) -> str:
        (length,) = bytes(self._take(1).tolist())
        try:
            return bytes(self._take(length).tolist()).decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{self._where}: the name of a module cannot be read ({error})") from error

    def end(self) -> None:
        if self._position != self._data.numel():
            raise IntegrityError(
                f"{self._where}: {self._data.numel() - self._position} bytes are left over; the file contradicts itself"
            )

    def raw(self, n_bytes: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        return self._take(n_bytes).view(dtype).reshape(shape)

    def _part(
        self, shape: tuple[int, int], spec: LayerSpec, dtype: torch.dtype, *, has_bitmap: bool
    ) -> dict[str, Tensor]:
        n = shape[0] * shape[1]
        part = {}
        n_stored = n
        if spec.weight_bits != FLOAT_BITS and spec.weight_format == "adaptive":
            part["format"] = self._take(1)
        if has_bitmap:
            part["bitmap"] = self._take(packed_bytes(n, 1))
            n_stored = int(unpack_bits(part["bitmap"], n).sum())
        if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
            dtype = dtype if spec.weight_bits == FLOAT_BITS else CASTS[spec.weight_format]
            part["values"] = self.raw(n_stored * dtype.itemsize, dtype, (n_stored,))
            return part
        try:
            grid = concrete_grid(spec, shape, part.get("format"))
        except ValueError as error:
            raise IntegrityError(f"{self._where}: {error}; the file contradicts itself") from error
        part["codes"] = self._take(packed_bytes(n_stored, grid.bits))
        n_scales = prod(grid.scale_shape(shape))
        part["scale"] = self.raw(n_scales * grid.dtype.itemsize, grid.dtype, (n_scales,))
        if grid.format == "int_asym":
            part["zero"] = self._take(packed_bytes(n_scales, grid.bits))
        if grid.format == "palette":
            part["table"] = self.raw(2**grid.bits * grid.dtype.itemsize, grid.dtype, (2**grid.bits,))
        return part

    def _spec(self) -> LayerSpec:
        (length,) = _LENGTH.unpack(bytes(self._take(_LENGTH.size).tolist()))
        text = bytes(self._take(length).tolist())
        try:
            data: dict[str, Any] = json.loads(text) if text else {}
            return LayerSpec.from_dict({_LONG[short]: value for short, value in data.items()})
        except (ValueError, KeyError, AttributeError, SpecError) as error:
            raise IntegrityError(f"{self._where}: a layer's spec cannot be read: {text[:80]!r} ({error})") from error

    def _take(self, n: int) -> Tensor:
        if self._position + n > self._data.numel():
            raise IntegrityError(f"{self._where}: the data ends in the middle of a record; the file contradicts itself")
        taken = self._data[self._position : self._position + n].clone()
        self._position += n
        return taken


def _spec_bytes(spec: LayerSpec) -> bytes:
    data = {_SHORT[key]: value for key, value in spec.to_dict().items()}
    text = json.dumps(data, separators=(",", ":")).encode() if data else b""
    return _LENGTH.pack(len(text)) + text


def _prefixes(spec: LayerSpec) -> tuple[str, ...]:
    return ("",) if spec.rank >= 1.0 else ("u.", "v.")
