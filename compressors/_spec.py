"""What is done to one layer, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError

FLOAT_BITS = 32
"""The width that means "left in floating point"."""

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)
ACTIVATION_BITS = (8, FLOAT_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """Everything that is done to one layer. Frozen, hashable, JSON; the default is the neutral spec, an exact no-op.

    The order is fixed: the weight is factorized (`rank`), each factor (or the weight itself) is made sparse
    (`sparsity`), and what remains is quantized (`weight_bits`). `activation_bits` is about the layer's *input*.

    rank      share of the largest useful rank, in (0, 1); 1.0 leaves the weight whole
    sparsity  share of zeros in each stored factor, in [0, 1)
    *_method  a name in the registry of that kind (see `register`)

    Raises `SpecError` for a value outside these ranges.
    """

    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    sparsity: float = 0.0
    rank: float = 1.0
    weight_method: str = "affine"
    activation_method: str = "affine"
    sparsity_method: str = "magnitude"
    rank_method: str = "svd"

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
        object.__setattr__(self, "sparsity", float(self.sparsity))
        object.__setattr__(self, "rank", float(self.rank))

    @property
    def is_neutral(self) -> bool:
        return not (self.changes_weight or self.changes_activation)

    @property
    def changes_weight(self) -> bool:
        return self.weight_bits != FLOAT_BITS or self.sparsity > 0.0 or self.rank < 1.0

    @property
    def changes_activation(self) -> bool:
        return self.activation_bits != FLOAT_BITS

    @property
    def weight_only(self) -> LayerSpec:
        """The same treatment of the weight, the activation left alone: what a stored variant depends on."""
        bits, method = _NEUTRAL.activation_bits, _NEUTRAL.activation_method
        if (self.activation_bits, self.activation_method) == (bits, method):
            return self  # each trial asks every layer, more than once
        return dataclasses.replace(self, activation_bits=bits, activation_method=method)

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the neutral spec, so that a config stays short and is easy to write by hand."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerSpec:
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key, value in data.items():
            if key not in known:
                raise SpecError(f"unknown key {key!r} in a layer's spec; known are {', '.join(known)}")
            if known[key].name.endswith("_method") and not isinstance(value, str):
                raise SpecError(f"{key} must be the name of a method, got {value!r}")
        return cls(**data)

    def label(self) -> str:
        """A short name for tables: `w4 a8 s50 r25`; `fp32` for the neutral spec.

        A method that is not the built-in one is named too: `w4:mine a8`.
        """
        parts = []
        if self.weight_bits != FLOAT_BITS:
            parts.append(f"w{self.weight_bits}" + self._by("weight_method"))
        if self.activation_bits != FLOAT_BITS:
            parts.append(f"a{self.activation_bits}" + self._by("activation_method"))
        if self.sparsity:
            parts.append(f"s{100 * self.sparsity:g}" + self._by("sparsity_method"))
        if self.rank < 1.0:
            parts.append(f"r{100 * self.rank:g}" + self._by("rank_method"))
        return " ".join(parts) or "fp32"

    def _by(self, key: str) -> str:
        method = getattr(self, key)
        return "" if method == _BUILT_IN[key] else f":{method}"


_BUILT_IN = {field.name: field.default for field in dataclasses.fields(LayerSpec) if field.name.endswith("_method")}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one_of(name: str, value: object, known: tuple[int, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        *most, last = known
        raise SpecError(f"{name} must be one of {', '.join(map(str, most))} or {last}, got {value!r}")


_NEUTRAL = LayerSpec()
