"""The treatment of one layer, as a value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import SpecError
from ._pattern import Pattern

FLOAT_BITS = 32
"""Bit width that means "left in floating point"."""

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
ACTIVATION_BITS = (4, 6, 8, FLOAT_BITS)

SPEC_VERSION = 2
"""Values that `LayerSpec.to_dict` omits. Version 1 omitted the activation method "affine" (range of least squared
error); version 2 omits "minmax" (minimum and maximum).
"""

WHOLE_TENSOR = "tensor"
"""Group size that means one scale for the whole weight."""

SCALE_BITS = (16, 32)
ACTIVATION_SCHEMES = ("affine", "symmetric", "dynamic")
ACTIVATION_SCOPES = ("layer", "tensor", "product")

RANK_FORMS = ("channel", "input", "spatial", "tucker2", "residual")
"""Forms into which a weight of lower rank is split; see `lowrank/_forms.py`."""

_NEAR = 1e-3
"""Largest difference between a given sparsity and the share that N:M fixes: two thirds may be written 0.667."""
_NARROW = (2, 3, 4, 5, 6, 7, 8)
FORMAT_BITS: dict[str, tuple[int, ...]] = {
    "int": _NARROW,
    "int_asym": _NARROW,
    "palette": (2, 3, 4, 5, 6),
    "nf4": (4,),
    "pow2": (2, 3, 4, 5),
    "log": (3, 4, 5),
    "apot": (3, 4, 5),
    "fp8_e4m3": (8,),
    "fp8_e5m2": (8,),
    "fp16": (16,),
    "bf16": (16,),
    "adaptive": (2, 3, 4, 5, 6),
}
"""Format of a weight -> its bit widths (and 32, which leaves the weight alone, in every format)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """Everything that is done to one layer. Frozen, hashable, JSON; the default is the neutral spec, an exact no-op.

    The order is fixed: the weight is factorized (`rank`), each factor (or the weight itself) is made sparse
    (`sparsity`), and what remains is quantized (`weight_bits`). `activation_bits` is about the layer's *input*.

    rank      share of the largest useful rank, in (0, 1); 1.0 leaves the weight whole
    rank_form  what it is split into, one of `RANK_FORMS`: "channel" (for a linear layer its two factors), "input",
              "spatial" and "tucker2" for convolutions; "residual" keeps the rest beside the two factors, and `sparsity`
              and `weight_bits` are about the rest then (see `lowrank/README.md`)
    sparsity  share of zeros in each stored factor, in [0, 1)
    pattern   where zeros stand: "" anywhere, "2:4" (any N:M), "4x4" (any block), "row", "column" (see `Pattern`). N:M
              fixes the share: 1 - N/M
    *_method  a name in the registry of that kind (see `register`)

    weight_format  what a code stands for, one of `FORMAT_BITS` (see `quantization/README.md`); the method chooses codes
    group_size     how many weights of a row share a scale (the last group may be short); 0: a whole row, that is one
                   scale for each output channel; "tensor": one scale for all; "32x16": blocks of 32 rows (output
                   channels) by 16 weights of each. FP16 and BF16 have no scale
    scale_bits     of the stored scales and tables: 32 or 16, floating point
    keep           of a coupled set of channels, heads or neurons (`structure`): the share of its units that stays, in
                   [0, 1]. Such a spec says nothing else, and is no treatment of a layer
    activation_scheme  "affine" and "symmetric" have a range that was calibrated, one for the tensor; "dynamic" takes
                   that of each token (of a convolution: of each sample) when it runs, and needs no calibration
    activation_scope  "layer" rounds what this layer reads. "tensor" rounds as integer graphs do: the tensor that it
                   reads, for all that read it inside `LayerInfo.shared_input`, and what it gives to a sum. "product"
                   rounds what it reads, and what it gives to a product of attention, symmetrically; where these are
                   the values, the scores that they are multiplied by are rounded too

    Raises `SpecError` for a value outside these ranges.
    """

    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    sparsity: float = 0.0
    rank: float = 1.0
    weight_method: str = "affine"
    activation_method: str = "minmax"
    sparsity_method: str = "magnitude"
    rank_method: str = "svd"
    weight_format: str = "int"
    group_size: int | str = 0
    scale_bits: int = 32
    activation_scheme: str = "affine"
    pattern: str = ""
    rank_form: str = "channel"
    activation_scope: str = "layer"
    keep: float = 1.0
    keep_method: str = "output"

    def __post_init__(self) -> None:
        _one_of("weight_bits", self.weight_bits, WEIGHT_BITS)
        _one_of("activation_bits", self.activation_bits, ACTIVATION_BITS)
        if not _is_number(self.sparsity) or not 0.0 <= self.sparsity < 1.0:
            raise SpecError(
                f"sparsity must be in [0, 1), got {self.sparsity!r}; 0.5 means that half the weights are zero"
            )
        if not _is_number(self.rank) or not 0.0 < self.rank <= 1.0:
            raise SpecError(
                f"rank must be in (0, 1], got {self.rank!r}; it is a share of the full rank, and 1.0 means whole"
            )
        _named("rank_form", self.rank_form, RANK_FORMS)
        _named("weight_format", self.weight_format, tuple(FORMAT_BITS))
        _named("activation_scheme", self.activation_scheme, ACTIVATION_SCHEMES)
        _named("activation_scope", self.activation_scope, ACTIVATION_SCOPES)
        if self.activation_scope != "layer" and self.activation_scheme == "dynamic":
            raise SpecError(
                f"activation_scope {self.activation_scope!r} rounds tensors by ranges that were calibrated, and "
                "activation_scheme 'dynamic' has none; take 'affine' or 'symmetric', or activation_scope 'layer'"
            )
        _one_of("scale_bits", self.scale_bits, SCALE_BITS)
        _check_group_size(self.group_size)
        widths = FORMAT_BITS[self.weight_format]
        if self.weight_bits not in (*widths, FLOAT_BITS):
            raise SpecError(
                f"weight_bits of the format {self.weight_format!r} must be {_either((*widths, FLOAT_BITS))}, "
                f"got {self.weight_bits}; formats of {self.weight_bits} bits are {', '.join(formats(self.weight_bits))}"
            )
        if not _is_number(self.keep) or not 0.0 <= self.keep <= 1.0:
            raise SpecError(f"keep must be in [0, 1], got {self.keep!r}; 0.75 means that a quarter of the units go")
        object.__setattr__(self, "keep", float(self.keep))
        object.__setattr__(self, "sparsity", _patterned(float(self.sparsity), self.pattern))
        object.__setattr__(self, "rank", float(self.rank))

    @property
    def is_neutral(self) -> bool:
        return not (self.changes_weight or self.changes_activation or self.changes_structure)

    @property
    def changes_weight(self) -> bool:
        return self.weight_bits != FLOAT_BITS or self.sparsity > 0.0 or self.rank < 1.0

    @property
    def changes_structure(self) -> bool:
        """Tell whether the spec is for a coupled set and removes some of its units."""
        return self.keep < 1.0

    @property
    def changes_activation(self) -> bool:
        return self.activation_bits != FLOAT_BITS

    @property
    def needs_range(self) -> bool:
        """Tell whether the activation needs a calibrated range."""
        return self.changes_activation and self.activation_scheme != "dynamic"

    @property
    def block(self) -> tuple[int, int]:
        """(rows, columns) that share a scale, where `group_size` gives numbers; 0 columns mean all columns."""
        if isinstance(self.group_size, int):
            return 1, self.group_size
        return _block(self.group_size) or (1, 0)

    @property
    def is_plain_int(self) -> bool:
        """Tell whether the weight is integers with one scale for each output channel (or for all), which int8 kernels
        need.
        """
        return self.weight_bits <= 8 and self.weight_format == "int" and self.group_size in (0, WHOLE_TENSOR)

    @property
    def kernel_bits(self) -> tuple[int, int]:
        """(weight, activation) bits as a runtime sees them.

        32 stands for a weight or activation that no integer kernel accepts. A narrower activation counts as 8: it is an
        8-bit one clamped to fewer codes.
        """
        weight = self.weight_bits if self.is_plain_int else FLOAT_BITS
        return weight, 8 if self.needs_range or self.is_dynamic_int8 else FLOAT_BITS

    @property
    def is_dynamic_int8(self) -> bool:
        """Tell whether integer kernels can run it with ranges found for each token at run time, without calibration."""
        return self.is_plain_int and self.activation_bits == 8 and self.activation_scheme == "dynamic"

    @property
    def weight_only(self) -> LayerSpec:
        """Copy with the weight's treatment alone, which is all that a stored variant depends on."""
        if all(getattr(self, name) == getattr(_NEUTRAL, name) for name in _OF_ACTIVATION):
            return self  # each trial asks every layer, more than once
        return dataclasses.replace(self, **{name: getattr(_NEUTRAL, name) for name in _OF_ACTIVATION})

    @property
    def activation_only(self) -> LayerSpec:
        """Copy with the activation's treatment alone."""
        return LayerSpec.from_dict({name: getattr(self, name) for name in _OF_ACTIVATION})

    def to_dict(self) -> dict[str, Any]:
        """Fields that differ from the neutral spec. So a config stays short and is easy to write by hand."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, version: int = SPEC_VERSION) -> LayerSpec:
        """Inverse of `to_dict`; `version` is the `SPEC_VERSION` that `data` was written with."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key, value in data.items():
            if key not in known:
                raise SpecError(f"unknown key {key!r} in a layer's spec; known are {', '.join(known)}")
            if known[key].name.endswith("_method") and not isinstance(value, str):
                raise SpecError(f"{key} must be the name of a method, got {value!r}")
        if version < 2 and data.get("activation_bits", FLOAT_BITS) != FLOAT_BITS:
            data = {"activation_method": "affine", **data}
        return cls(**data)

    def label(self) -> str:
        """Short name for tables: `w4 a8 s50 r25`; `fp32` for the neutral spec.

        A method is named unless it is the default: `w4:mine a8`. A format other than plain integers, a group and FP16
        scales are named too: `w3-nf4/64h:gptq a8`; likewise a pattern and a form: `s50:wanda/2:4 r25-spatial`.
        """
        parts = []
        if self.weight_bits != FLOAT_BITS:
            parts.append(f"w{self.weight_bits}" + self._stored_as() + self._by("weight_method"))
        if self.activation_bits != FLOAT_BITS:
            scheme = "" if self.activation_scheme == "affine" else f"-{self.activation_scheme}"
            scope = "" if self.activation_scope == "layer" else self.activation_scope[0]
            parts.append(f"a{self.activation_bits}{scope}" + scheme + self._by("activation_method"))
        if self.sparsity:
            pattern = f"/{self.pattern}" if self.pattern else ""
            parts.append(f"s{100 * self.sparsity:.4g}" + self._by("sparsity_method") + pattern)
        if self.rank < 1.0:
            form = "" if self.rank_form == "channel" else f"-{self.rank_form}"
            parts.append(f"r{100 * self.rank:.4g}{form}" + self._by("rank_method"))
        if self.keep < 1.0:
            parts.append(f"k{100 * self.keep:g}" + self._by("keep_method"))
        return " ".join(parts) or "fp32"

    def _stored_as(self) -> str:
        format = "" if self.weight_format == "int" else f"-{self.weight_format}"
        group = "" if self.group_size == 0 else f"/{self.group_size}"
        return format + group + ("h" if self.scale_bits == 16 else "")

    def _by(self, key: str) -> str:
        method = getattr(self, key)
        return "" if method == _BUILT_IN[key] else f":{method}"


def formats(bits: int) -> tuple[str, ...]:
    """Names of the formats that have this width."""
    return tuple(name for name, widths in FORMAT_BITS.items() if bits in widths)


_OF_ACTIVATION = ("activation_bits", "activation_method", "activation_scheme", "activation_scope")
_BUILT_IN = {field.name: field.default for field in dataclasses.fields(LayerSpec) if field.name.endswith("_method")}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one_of(name: str, value: object, known: tuple[int, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        raise SpecError(f"{name} must be one of {_either(known)}, got {value!r}")


def _named(name: str, value: object, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise SpecError(f"{name} must be one of {_either(known)}, got {value!r}")


def _either(values: tuple[object, ...]) -> str:
    *most, last = values
    return f"{', '.join(map(str, most))} or {last}" if most else str(last)


def _patterned(sparsity: float, text: str) -> float:
    """Share of zeros, checked against the pattern; N:M makes it exact."""
    pattern = Pattern.parse(text)
    if pattern.kind and sparsity == 0.0:
        raise SpecError(f"pattern {text!r} places zeros, but sparsity is 0; give a sparsity, or no pattern")
    if pattern.share is None:
        return sparsity
    if abs(sparsity - pattern.share) > _NEAR:
        raise SpecError(
            f"sparsity must be {pattern.share:.4g} with the pattern {text!r}, which keeps {pattern.n} of {pattern.m} "
            f"weights, got {sparsity:g}"
        )
    return pattern.share


def _check_group_size(value: object) -> None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and (value == 0 or 8 <= value <= 4096)
    block = _block(value) if isinstance(value, str) else None
    is_block = block is not None and 2 <= block[0] <= 4096 and 1 <= block[1] <= 4096
    if not is_count and not is_block and value != WHOLE_TENSOR:
        raise SpecError(
            f"group_size must be 0 (a scale for each output channel), a number of weights from 8 to 4096, a block such "
            f"as '32x32' (2 rows and more, by weights of a row), or {WHOLE_TENSOR!r} (one scale for all), got {value!r}"
        )


def _block(text: str) -> tuple[int, int] | None:
    """(rows, columns) of text such as "32x16"; None for any other text."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    return None if found is None else (int(found[1]), int(found[2]))


_NEUTRAL = LayerSpec()
