"""Records of a model's file for each weight and for each layer, byte by byte.

A weight, once however many layers hold it:
    2 bytes   length of the spec, little endian
    spec      JSON with short keys; nothing where the weight is left alone
    1 byte    bit i: the i-th stored matrix is sparse; bit 7: streams are marked
    matrices  their tensors, in the order of `_parts.NAMES`; the lengths follow from the spec, the shape and the layout
Where streams are marked, each stream of a sparse matrix's index, and the codes, have a byte before them: 0, and the
stream is packed as ever; 1, and it is entropy-coded (see `_entropy.py`).
A layer:
    2 bytes   length of the spec, little endian; the highest bit is set where `calls` follow
    spec      the activation's part of it
    5 bytes   only with activations whose range was calibrated: scale (float32) and zero point (uint8)
    places    only with activation_scope "tensor": for the input and for the output, one byte of length and the fqn
              where it is rounded (none: at the layer; not at all), and behind that of an output its own 5 bytes
    product   only with activation_scope "product": the 5 bytes of the output; one byte of length and the fqn of the
              module with attention's product; one byte, 1 where scores are rounded there, and their 5 bytes then
    calls     only with the bit (schema 3): one byte, the number of calls with a range of their own, and the 5 bytes of
              each; further calls have the layer's one range
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import IntegrityError, SpecError
from ..anatomy import LayerInfo
from ..calibration import Rounding
from ..files import MAX_SYMBOL_BITS, Bytes, Ints, pack_ints, packed_bytes, tensor_bytes, unpack_ints
from ..files import decode as decode_stream
from ..files import encode as encode_stream
from ..quantization import CASTS, Rounder
from ..sparse_formats import check_width
from ..sparse_formats import decode as decode_layout
from ..values import FLOAT_BITS, LayerSpec, spec_field, spec_fields
from ..variants import (
    NAMES,
    concrete_grid,
    index_source,
    load_coded,
    load_values,
    part_shapes,
    part_spec,
    prefixes,
    slots_of,
    store_coded,
    store_values,
)

_QPARAMS = struct.Struct("<fB")
_LENGTH = struct.Struct("<H")
_MARKED = 128
_HAS_CALLS = 0x8000
_PACKED, _CODED = 0, 1


def weight_record(spec: LayerSpec, tensors: Mapping[str, Tensor]) -> bytes:
    """Record of a weight; `tensors` as in `Variant.tensors`."""
    data = [tensors[prefix + name] for prefix in prefixes(spec) for name in NAMES if prefix + name in tensors]
    head = _spec_bytes(spec.weight_only) + bytes([_flags(spec, tensors)])
    return head + b"".join(tensor_bytes(tensor) for tensor in data)


def entropy_record(spec: LayerSpec, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> bytes:
    """Record of the same weight with entropy-coded streams, in the sparse formats that suit them; never longer."""
    plain = weight_record(spec, tensors)
    if not spec.changes_weight:
        return plain
    data = []
    recoded: dict[str, Tensor] = {}
    for prefix, part_shape in part_shapes(spec, shape).items():
        own = part_spec(spec, prefix)
        part = _recoded(_part_of(tensors, prefix), part_shape, own)
        recoded |= {prefix + name: tensor for name, tensor in part.items()}
        data += [_marked(name, part, part_shape, own) for name in NAMES if name in part]
    flags = _flags(spec, recoded) | _MARKED
    coded = _spec_bytes(spec.weight_only) + bytes([flags]) + b"".join(data)
    return min(coded, plain, key=len)


def weight_record_bytes(spec: LayerSpec, n_bytes: int) -> int:
    """Length of `weight_record` for tensors of `n_bytes` in total."""
    return len(_spec_bytes(spec.weight_only)) + 1 + n_bytes


def layer_record(spec: LayerSpec, fqn: str, rounding: Rounding | None) -> bytes:
    """Record of a layer; `rounding` for a layer whose activations change."""
    if rounding is None or rounding.input is None:
        return _spec_bytes(spec.activation_only)
    data = _spec_bytes(spec.activation_only, _HAS_CALLS if rounding.calls else 0)
    data += _QPARAMS.pack(*rounding.input)
    if spec.rounds_tensors:
        data += _name("" if rounding.input_at == fqn else rounding.input_at) + _name(rounding.output_at)
        data += _QPARAMS.pack(*rounding.output) if rounding.output is not None else b""
    if rounding.product_in is not None and rounding.output is not None:
        data += _QPARAMS.pack(*rounding.output) + _name(rounding.product_in)
        data += b"\0" if rounding.scores is None else b"\1" + _QPARAMS.pack(*rounding.scores)
    if rounding.calls:
        data += bytes([len(rounding.calls)]) + b"".join(_QPARAMS.pack(*params) for params in rounding.calls)
    return data


def layer_record_bytes(spec: LayerSpec, layer: LayerInfo) -> int:
    """Length of `layer_record`, by a traced anatomy."""
    n_bytes = len(_spec_bytes(spec.activation_only)) + (_QPARAMS.size if spec.needs_range else 0)
    if spec.needs_range and spec.rounds_tensors:
        n_bytes += len(_name(layer.shared_input)) + len(_name(layer.residual_output))
        n_bytes += _QPARAMS.size if layer.residual_output else 0
    if spec.needs_range and spec.rounds_products:
        n_bytes += _QPARAMS.size + len(_name(layer.product_in)) + 1
        n_bytes += _QPARAMS.size if layer.product == "value" else 0
    if spec.needs_range and layer.n_ranges:
        n_bytes += 1 + layer.n_ranges * _QPARAMS.size
    return n_bytes


def _name(fqn: str) -> bytes:
    data = fqn.encode()
    if len(data) > 255:
        raise SpecError(f"a module's name of more than 255 bytes cannot be stored: {fqn[:40]}…")
    return bytes([len(data)]) + data


class Reader:
    """Reader of records from the front of `data`. Raises `IntegrityError` where they do not add up.

    schema  of the file: in schema 1 a sparse matrix is always a bitmap, and no header says so
    """

    def __init__(self, data: Tensor, where: str, *, schema: str = "2") -> None:
        self._data = data.numpy()
        self.position = 0
        self._where = where
        self._schema = schema

    def weight(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[LayerSpec, dict[str, Tensor]]:
        """Read the spec, and tensors as in `Variant.tensors`: entropy-coded streams are packed again."""
        spec, _ = self._spec()
        flags = int(self._take(1)[0])
        tensors: dict[str, Tensor] = {}
        try:
            for i, (prefix, part_shape) in enumerate(part_shapes(spec, shape).items()):
                part = self._part(
                    part_shape, part_spec(spec, prefix), dtype,
                    sparse=bool(flags >> i & 1), marked=bool(flags & _MARKED),
                )  # fmt: skip
                tensors |= {prefix + name: tensor for name, tensor in part.items()}
        except ValueError as error:
            raise IntegrityError(f"{self._where}: {error}; the file contradicts itself") from error
        return spec, tensors

    def layer(self, fqn: str) -> tuple[LayerSpec, Rounding | None]:
        spec, has_calls = self._spec()
        if not spec.changes_activation:
            return spec, None
        if not spec.needs_range:
            return spec, Rounding(bits=spec.activation_bits, input_at=fqn, input=None)
        input, output, input_at, output_at = self._qparams(), None, "", ""
        if spec.rounds_tensors:
            input_at, output_at = self._fqn(), self._fqn()
            output = self._qparams() if output_at else None
        product_in, scores = None, None
        if spec.rounds_products:
            output_at, output, product_in = fqn, self._qparams(), self._fqn()
            scores = self._qparams() if self._take(1)[0] else None
        calls = tuple(self._qparams() for _ in range(int(self._take(1)[0]))) if has_calls else ()
        return spec, Rounding(
            bits=spec.activation_bits, input_at=input_at or fqn, input=input, output_at=output_at, output=output,
            product_in=product_in, scores=scores, calls=calls,
        )  # fmt: skip

    def _qparams(self) -> tuple[float, int]:
        scale, zero_point = _QPARAMS.unpack(self._take(_QPARAMS.size).tobytes())
        return scale, zero_point

    def _fqn(self) -> str:
        length = int(self._take(1)[0])
        try:
            return self._take(length).tobytes().decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{self._where}: the name of a module cannot be read ({error})") from error

    def end(self) -> None:
        if self.position != len(self._data):
            raise IntegrityError(
                f"{self._where}: {len(self._data) - self.position} bytes are left over; the file contradicts itself"
            )

    def raw(self, n_bytes: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        taken = self._take(n_bytes)
        if n_bytes == 0:  # a view of nothing as wider numbers is refused
            return torch.empty(shape, dtype=dtype)
        return torch.from_numpy(taken).view(dtype).reshape(shape)

    def _part(
        self, shape: tuple[int, int], spec: LayerSpec, dtype: torch.dtype, *, sparse: bool, marked: bool
    ) -> dict[str, Tensor]:
        part = {}
        n_stored = shape[0] * shape[1]
        if spec.weight_bits != FLOAT_BITS and spec.weight_format == "adaptive":
            part["format"] = torch.from_numpy(self._take(1))
        if sparse:
            layout = _LayoutSource(self, marked, bytes([1]) if self._schema == "1" else b"")
            n_stored = len(decode_layout(layout, shape)[1])
            part["layout"] = torch.frombuffer(bytearray(layout.header), dtype=torch.uint8)
            part["index"] = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.uint8), *layout.packed]))
        if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
            dtype = dtype if spec.weight_bits == FLOAT_BITS else CASTS[spec.weight_format]
            part["values"] = self.raw(n_stored * dtype.itemsize, dtype, (n_stored,))
            return part
        grid = concrete_grid(spec, shape, part.get("format"))
        part["codes"] = torch.from_numpy(pack_ints(self.stream(grid.bits, n_stored, marked), grid.bits))
        n_scales = prod(grid.scale_shape(shape))
        part["scale"] = self.raw(n_scales * grid.dtype.itemsize, grid.dtype, (n_scales,))
        if grid.format == "int_asym":
            part["zero"] = torch.from_numpy(self._take(packed_bytes(n_scales, grid.bits)))
        if grid.format == "palette":
            part["table"] = self.raw(2**grid.bits * grid.dtype.itemsize, grid.dtype, (2**grid.bits,))
        return part

    def stream(self, bits: int, n: int, marked: bool) -> Ints:
        """Read `n` numbers; a mark comes first where streams are marked."""
        mark = int(self._take(1)[0]) if marked else _PACKED
        if mark == _PACKED:
            return unpack_ints(self._take(packed_bytes(n, bits)), bits, n)
        if mark != _CODED or not 1 <= bits <= MAX_SYMBOL_BITS or n == 0:
            raise ValueError(f"a stream of {n} numbers of {bits} bits is marked {mark}")
        values, n_bytes = decode_stream(self._data[self.position :], bits, n)
        self.position += n_bytes
        return values

    def number(self, n_bytes: int) -> bytes:
        return self._take(n_bytes).tobytes()

    def _spec(self) -> tuple[LayerSpec, bool]:
        """Read a spec, and whether its length is marked with `_HAS_CALLS`."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size).tobytes())
        text = self._take(length & ~_HAS_CALLS).tobytes()
        try:
            data: dict[str, Any] = json.loads(text) if text else {}
            names = {field.short: field.name for field in spec_fields() if field.short}
            spec = LayerSpec.from_dict({names[short]: value for short, value in data.items()})
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, SpecError) as error:
            raise IntegrityError(f"{self._where}: a layer's spec cannot be read: {text[:80]!r} ({error})") from error
        return spec, bool(length & _HAS_CALLS)

    def _take(self, n: int) -> Bytes:
        if self.position + n > len(self._data):
            raise IntegrityError(f"{self._where}: the data ends in the middle of a record; the file contradicts itself")
        taken = self._data[self.position : self.position + n].copy()
        self.position += n
        return taken


class _LayoutSource:
    """Source of a sparse matrix's header and streams in a record; it keeps both as `Variant.tensors` has them."""

    def __init__(self, reader: Reader, marked: bool, header: bytes) -> None:
        self._reader, self._marked, self._known = reader, marked, header
        self.header = b""
        self.packed: list[Bytes] = []

    def number(self, n_bytes: int) -> int:
        found, self._known = (self._known, b"") if self._known else (self._reader.number(n_bytes), b"")
        self.header += found
        return int.from_bytes(found, "little")

    def stream(self, bits: int, n: int) -> Ints:
        check_width(bits)
        values = self._reader.stream(bits, n, self._marked)
        self.packed.append(pack_ints(values, bits))
        return values


def _recoded(part: Mapping[str, Tensor], shape: tuple[int, int], spec: LayerSpec) -> dict[str, Tensor]:
    """Tensors of one matrix, in the layout that is smallest after entropy coding."""
    if "values" in part:
        return store_values(load_values(part, shape), entropy=True)
    coded, survives = load_coded(part, shape, spec)
    if survives is None:
        return store_coded(coded, spec, entropy=True)
    # entries without a code get that of zero, which only then may be stored with the others
    zero = Rounder(coded.grid, coded.params, shape).codes(torch.zeros(shape))
    return store_coded(
        replace(coded, codes=torch.where(survives.reshape(shape), coded.codes, zero)), spec, entropy=True
    )


def _marked(name: str, part: Mapping[str, Tensor], shape: tuple[int, int], spec: LayerSpec) -> bytes:
    """Bytes of one tensor in a record whose streams are marked."""
    if name == "index":
        source = index_source(part)
        decode_layout(source, shape)
        return b"".join(_marked_stream(values, bits) for values, bits in source.streams)
    if name == "codes":
        bits = concrete_grid(spec, shape, part.get("format")).bits
        slots = slots_of(part, shape)
        n = shape[0] * shape[1] if slots is None else len(slots)
        return _marked_stream(unpack_ints(part["codes"].numpy(), bits, n), bits)
    return bytes(tensor_bytes(part[name]))


def _marked_stream(values: Ints, bits: int) -> bytes:
    packed = pack_ints(values, bits)
    if len(values) and 1 <= bits <= MAX_SYMBOL_BITS:
        coded = encode_stream(values, bits)
        if len(coded) < len(packed):
            return bytes([_CODED]) + coded.tobytes()
    return bytes([_PACKED]) + packed.tobytes()


def _part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _flags(spec: LayerSpec, tensors: Mapping[str, Tensor]) -> int:
    return sum(1 << i for i, prefix in enumerate(prefixes(spec)) if f"{prefix}layout" in tensors)


def _spec_bytes(spec: LayerSpec, mark: int = 0) -> bytes:
    data = {spec_field(key).short: value for key, value in spec.to_dict().items()}
    text = json.dumps(data, separators=(",", ":")).encode() if data else b""
    return _LENGTH.pack(len(text) | mark) + text
