"""The choices for a layer, one descriptor each: the fields of `LayerSpec`, and those that a plugin registers.

A descriptor holds what a config, a stored record and a hardware profile have to know of a choice. The search adds how a
task offers it (`search/task/_axes.py`). A new built-in choice is one entry of `SPEC_FIELDS` and a field of `LayerSpec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import Any, Literal

from ...errors import SpecError
from ._pattern import Pattern

FLOAT_BITS = 32
"""Bit width that means "left in floating point"."""

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
ACTIVATION_BITS = (4, 6, 8, FLOAT_BITS)

WHOLE_TENSOR = "tensor"
"""Group size that means one scale for the whole weight."""

SCALE_BITS = (16, 32)
ACTIVATION_SCHEMES = ("affine", "symmetric", "dynamic")
ACTIVATION_SCOPES = ("layer", "tensor", "product")

RANK_FORMS = ("channel", "input", "spatial", "tucker2", "residual")
"""Forms into which a weight of lower rank is split; see `lowrank/_forms.py`."""

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

Check = Callable[[str, Any], None]
"""(name, value) -> None; raises `SpecError` for a value that is not legal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecField:
    """One choice for a layer.

    name      key in a config: an attribute of `LayerSpec`, or a key of its `extra` where a plugin registered it
    neutral   value that changes nothing; a config leaves it out
    check     raises `SpecError` for a value that is not legal
    part      part of the layer that the choice changes
    within    name of the field that must not be neutral for this one to have an effect; "": an axis by itself
    short     key in a stored record; "": never stored with a layer
    fallback  name of the field that becomes neutral where a value of this one does not fit a layer; "": none does
    schema    JSON Schema of a value
    plain     value -> whether integer kernels can run such a weight; None: they always can
    lowered   value -> value in `hardware_profiles.Treatment`, under the same name; None: profiles do not know it
    misfit    (value, kind of the layer, shape of its weight) -> why the value does not fit, in a clause, or None
    """

    name: str
    neutral: Any
    check: Check
    part: Literal["weight", "activation", "structure"] = "weight"
    within: str = ""
    short: str = ""
    fallback: str = ""
    schema: Mapping[str, Any] = data_field(default_factory=lambda: {"type": "string"})
    plain: Callable[[Any], bool] | None = None
    lowered: Callable[[Any], Any] | None = None
    misfit: Callable[[Any, str, tuple[int, ...]], str | None] | None = None


def formats(bits: int) -> tuple[str, ...]:
    """The formats that have this width."""
    return tuple(name for name, widths in FORMAT_BITS.items() if bits in widths)


def one_of(*known: int) -> Check:
    """A check for one of these whole numbers."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value not in known:
            raise SpecError(f"{name} must be one of {either(known)}, got {value!r}")

    return check


def named(*known: str) -> Check:
    """A check for one of these words."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in known:
            raise SpecError(f"{name} must be one of {either(known)}, got {value!r}")

    return check


def either(values: tuple[object, ...]) -> str:
    """`4, 6 or 8`, for a message."""
    *most, last = values
    return f"{', '.join(map(str, most))} or {last}" if most else str(last)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def block(text: str) -> tuple[int, int] | None:
    """(rows, columns) of "32x16"; None for text that is no block."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _method(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise SpecError(f"{name} must be the name of a method, got {value!r}")


def _sparsity(name: str, value: Any) -> None:
    if not is_number(value) or not 0.0 <= value < 1.0:
        raise SpecError(f"{name} must be in [0, 1), got {value!r}; 0.5 means that half the weights are zero")


def _rank(name: str, value: Any) -> None:
    if not is_number(value) or not 0.0 < value <= 1.0:
        raise SpecError(f"{name} must be in (0, 1], got {value!r}; it is a share of the full rank, and 1.0 means whole")


def _keep(name: str, value: Any) -> None:
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise SpecError(f"{name} must be in [0, 1], got {value!r}; 0.75 means that a quarter of the units go")


def _pattern(name: str, value: Any) -> None:
    Pattern.parse(value)


def _group_size(name: str, value: Any) -> None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and (value == 0 or 8 <= value <= 4096)
    tile = block(value) if isinstance(value, str) else None
    is_block = tile is not None and 2 <= tile[0] <= 4096 and 1 <= tile[1] <= 4096
    if not is_count and not is_block and value != WHOLE_TENSOR:
        raise SpecError(
            f"{name} must be 0 (a scale for each output channel), a number of weights from 8 to 4096, a block such "
            f"as '32x32' (2 rows and more, by weights of a row), or {WHOLE_TENSOR!r} (one scale for all), got {value!r}"
        )


def _same(value: Any) -> Any:
    return value


SPEC_FIELDS = (
    SpecField(
        name="weight_bits", neutral=FLOAT_BITS, check=one_of(*WEIGHT_BITS), short="w",
        schema={"enum": list(WEIGHT_BITS)},
    ),
    SpecField(
        name="activation_bits", neutral=FLOAT_BITS, check=one_of(*ACTIVATION_BITS), short="a", part="activation",
        schema={"enum": list(ACTIVATION_BITS)},
    ),
    SpecField(
        name="sparsity", neutral=0.0, check=_sparsity, short="s", lowered=_same,
        schema={"type": "number", "minimum": 0, "exclusiveMaximum": 1, "description": "share of zero weights"},
    ),
    SpecField(
        name="rank", neutral=1.0, check=_rank, short="r",
        schema={
            "type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "share of the full rank; 1 is whole"
        },
    ),
    SpecField(name="weight_method", neutral="affine", check=_method, short="wm", within="weight_bits"),
    SpecField(
        name="activation_method", neutral="minmax", check=_method, short="am", within="activation_bits",
        part="activation",
    ),
    SpecField(name="sparsity_method", neutral="magnitude", check=_method, short="sm", within="sparsity"),
    SpecField(name="rank_method", neutral="svd", check=_method, short="rm", within="rank"),
    SpecField(
        name="weight_format", neutral="int", check=named(*FORMAT_BITS), short="wf", within="weight_bits",
        schema={"enum": list(FORMAT_BITS)}, plain=lambda value: value == "int", lowered=_same,
    ),
    SpecField(
        name="group_size", neutral=0, check=_group_size, short="g", within="weight_bits", fallback="group_size",
        schema={
            "type": ["integer", "string"],
            "description": "weights that share a scale; 0: a row, 'tensor', or a block such as '32x32'",
        },
        plain=lambda value: value in (0, WHOLE_TENSOR),
        lowered=lambda value: value if isinstance(value, int) else 0,
    ),
    SpecField(
        name="scale_bits", neutral=32, check=one_of(*SCALE_BITS), short="sb", within="weight_bits",
        schema={"enum": list(SCALE_BITS)},
    ),
    SpecField(
        name="activation_scheme", neutral="affine", check=named(*ACTIVATION_SCHEMES), short="as",
        within="activation_bits", part="activation", schema={"enum": list(ACTIVATION_SCHEMES)},
    ),
    SpecField(
        name="pattern", neutral="", check=_pattern, short="p", within="sparsity", fallback="sparsity",
        lowered=lambda value: value if Pattern.parse(value).kind == "n:m" else None,
    ),
    SpecField(name="rank_form", neutral="channel", check=named(*RANK_FORMS), short="rf", within="rank"),
    SpecField(
        name="activation_scope", neutral="layer", check=named(*ACTIVATION_SCOPES), short="ao",
        within="activation_bits", part="activation", fallback="activation_scope",
        schema={"enum": list(ACTIVATION_SCOPES)},
    ),
    SpecField(name="keep", neutral=1.0, check=_keep, part="structure"),
    SpecField(name="keep_method", neutral="output", check=_method, part="structure", within="keep"),
)  # fmt: skip
"""The fields of `LayerSpec`, in its order."""

_REGISTERED: dict[str, SpecField] = {}
"""Fields of plugins, which live in `LayerSpec.extra`."""


def spec_fields() -> tuple[SpecField, ...]:
    """Every choice that this process knows: the built-in ones, then the registered ones."""
    return (*SPEC_FIELDS, *_REGISTERED.values())


def spec_field(name: str) -> SpecField:
    """The choice of this name. Raises `SpecError` that lists the known ones."""
    found = _BUILT_IN.get(name) or _REGISTERED.get(name)
    if found is None:
        known = ", ".join(one.name for one in spec_fields())
        raise SpecError(f"unknown key {name!r} in a layer's spec; known are {known}")
    return found


def register_field(field: SpecField) -> None:
    """Make a choice known that is no field of `LayerSpec`: its values live in `LayerSpec.extra`.

    It refines how weights are quantized or made sparse: `within` is "weight_bits" or "sparsity", and a method that is
    handed a problem finds the value in `problem.options`. Raises `SpecError` for a name or short key that is taken, or
    a descriptor that says otherwise.
    """
    if not field.name.isidentifier():
        raise SpecError(f"a choice for a layer needs a name of letters, digits and _, got {field.name!r}")
    if field.within not in ("weight_bits", "sparsity") or field.part != "weight" or field.lowered is not None:
        raise SpecError(
            f"the choice {field.name!r} must be within 'weight_bits' or 'sparsity', of the weight, and unknown to "
            f"profiles (lowered=None); got within={field.within!r}, part={field.part!r}"
        )
    if not field.short:
        raise SpecError(f"the choice {field.name!r} needs a short key for stored records, got ''; give short='…'")
    for other in spec_fields():
        if field.name == other.name or field.short == other.short:
            raise SpecError(
                f"there is a choice {other.name!r} (short {other.short!r}) already; give {field.name!r} "
                f"(short {field.short!r}) another name and another short key"
            )
    field.check(field.name, field.neutral)
    _REGISTERED[field.name] = field


_BUILT_IN = {field.name: field for field in SPEC_FIELDS}
