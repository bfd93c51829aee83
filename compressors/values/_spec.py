"""The treatment of one layer, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import SpecError
from ._fields import (
    FLOAT_BITS,
    FORMAT_BITS,
    SPEC_FIELDS,
    block,
    either,
    formats,
    spec_field,
    spec_fields,
)
from ._pattern import Pattern

SPEC_VERSION = 2
"""Values that `LayerSpec.to_dict` omits. Version 1 omitted the activation method "affine" (range of least squared
error); version 2 omits "minmax" (minimum and maximum).
"""

AUTO = "auto"
"""Weight method that a task has by default: it chooses among the others (`quantization/_auto.py`)."""

_NEAR = 1e-3
"""Largest difference between a given sparsity and the share that N:M fixes: two thirds may be written 0.667."""


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
    extra          choices that plugins registered (`register_field`): (name, value) of those that are not neutral, by
                   name. Absent from `to_dict`, labels and keys of the store where it is empty

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
    extra: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for field in SPEC_FIELDS:
            field.check(field.name, getattr(self, field.name))
        if self.activation_scope != "layer" and self.activation_scheme == "dynamic":
            raise SpecError(
                f"activation_scope {self.activation_scope!r} rounds tensors by ranges that were calibrated, and "
                "activation_scheme 'dynamic' has none; take 'affine' or 'symmetric', or activation_scope 'layer'"
            )
        widths = FORMAT_BITS[self.weight_format]
        if self.weight_bits not in (*widths, FLOAT_BITS):
            raise SpecError(
                f"weight_bits of the format {self.weight_format!r} must be {either((*widths, FLOAT_BITS))}, "
                f"got {self.weight_bits}; formats of {self.weight_bits} bits are {', '.join(formats(self.weight_bits))}"
            )
        object.__setattr__(self, "keep", float(self.keep))
        object.__setattr__(self, "sparsity", _patterned(float(self.sparsity), self.pattern))
        object.__setattr__(self, "rank", float(self.rank))
        if self.extra:
            object.__setattr__(self, "extra", _checked_extra(self.extra))

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
        return block(self.group_size) or (1, 0)

    @property
    def is_plain_int(self) -> bool:
        """Tell whether the weight is integers with one scale for each output channel (or for all), which int8 kernels
        need.
        """
        if self.weight_bits > 8 or any(not plain(getattr(self, name)) for name, plain in _PLAIN):
            return False
        return all((plain := spec_field(name).plain) is None or plain(value) for name, value in self.extra)

    @property
    def rounds_tensors(self) -> bool:
        """Tell whether activations are rounded for every reader of a tensor, and where they enter a sum."""
        return self.activation_scope == "tensor"

    @property
    def rounds_products(self) -> bool:
        """Tell whether the output is rounded where it enters a product of attention."""
        return self.activation_scope == "product"

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
        """Tell whether integer kernels can run it without a calibrated range: they find each token's at run time."""
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

    def value(self, name: str) -> Any:
        """Value of the choice `name`, built in or registered. Raises `SpecError` for an unknown name."""
        field = spec_field(name)
        return getattr(self, name) if name in _DEFAULTS else dict(self.extra).get(name, field.neutral)

    def without(self, name: str) -> LayerSpec:
        """Copy where the choice `name` is neutral, and so is every choice within it."""
        gone = {field.name: field.neutral for field in spec_fields() if name in (field.name, field.within)}
        extra = tuple(item for item in self.extra if item[0] not in gone)
        return dataclasses.replace(self, extra=extra, **{key: gone[key] for key in gone if key in _DEFAULTS})

    def options(self, axis: str) -> dict[str, Any]:
        """Registered choices within `axis` ("weight_bits" or "sparsity") that are not neutral: name -> value."""
        return {name: value for name, value in self.extra if spec_field(name).within == axis}

    def to_dict(self) -> dict[str, Any]:
        """Fields that differ from the neutral spec. So a config stays short and is easy to write by hand."""
        own = {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}
        return {**own, **dict(self.extra)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, version: int = SPEC_VERSION) -> LayerSpec:
        """Inverse of `to_dict`; `version` is the `SPEC_VERSION` that `data` was written with."""
        for key, value in data.items():
            field = spec_field(key)
            if key.endswith("_method"):
                field.check(key, value)
        if version < 2 and data.get("activation_bits", FLOAT_BITS) != FLOAT_BITS:
            data = {"activation_method": "affine", **data}
        extra = tuple((key, value) for key, value in data.items() if key not in _DEFAULTS)
        return cls(**{key: value for key, value in data.items() if key in _DEFAULTS}, extra=extra)

    def label(self) -> str:
        """Short name for tables: `w4 a8 s50 r25`; `fp32` for the neutral spec.

        A method is named unless it is the default of a config or a task ("affine", "auto"): `w4:mine a8`. A format
        other than plain integers, a group and FP16 scales are named too: `w3-nf4/64h:gptq a8`; likewise a pattern and a
        form: `s50:wanda/2:4 r25-spatial`.
        """
        parts = []
        if self.weight_bits != FLOAT_BITS:
            parts.append(
                f"w{self.weight_bits}" + self._stored_as() + self._by("weight_method") + self._more("weight_bits")
            )
        if self.activation_bits != FLOAT_BITS:
            scheme = "" if self.activation_scheme == "affine" else f"-{self.activation_scheme}"
            scope = "" if self.activation_scope == "layer" else self.activation_scope[0]
            parts.append(f"a{self.activation_bits}{scope}" + scheme + self._by("activation_method"))
        if self.sparsity:
            pattern = f"/{self.pattern}" if self.pattern else ""
            parts.append(f"s{100 * self.sparsity:.4g}" + self._by("sparsity_method") + pattern + self._more("sparsity"))
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
        return "" if method in (_DEFAULTS[key], AUTO) else f":{method}"

    def _more(self, axis: str) -> str:
        return "".join(f"+{name}={value}" for name, value in self.options(axis).items()) if self.extra else ""


_OF_ACTIVATION = tuple(field.name for field in SPEC_FIELDS if field.part == "activation")
_DEFAULTS = {field.name: field.neutral for field in SPEC_FIELDS}
_PLAIN = tuple((field.name, field.plain) for field in SPEC_FIELDS if field.plain is not None)


def _checked_extra(extra: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """Values of registered choices, checked, by name, without the neutral ones."""
    kept: dict[str, Any] = {}
    for name, value in extra:
        field = spec_field(name)
        if name in _DEFAULTS or name in kept:
            raise SpecError(f"extra names {name!r}, which is a field of LayerSpec or comes twice; give it once")
        field.check(name, value)
        kept[name] = value
    return tuple(sorted((name, value) for name, value in kept.items() if value != spec_field(name).neutral))


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


_NEUTRAL = LayerSpec()
