"""The schema of a hardware profile."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ..errors import InputError
from ._explain import explain
from ._lowering import FLOAT_BITS, KINDS, Lowered, Rule, _Closed, apply_rule

SCHEMA_VERSION = 1


class ProfileError(InputError):
    """A hardware profile cannot be found or read, or what it says is wrong."""


class Figure(_Closed):
    """A positive number, and where it is from. The unit is in the name of the field that holds it."""

    value: float = Field(gt=0)
    kind: Literal["measured", "datasheet", "modelled"] = Field(description="modelled: an estimate, good for an order")
    source: str = Field(min_length=1, description="who or what says so, so that it can be checked")
    date: Annotated[datetime.date, Field(strict=False)]


class Energy(_Closed):
    """Energy of one multiply-accumulate, by the same keys as `rates_gmac_s`, and of moving a byte from memory."""

    pj_per_mac: dict[str, Figure]
    pj_per_byte: Figure


class HardwareProfile(_Closed):
    """A device and a runtime on it.

    rates_gmac_s       what one core reaches in good kernels, in 10⁹ multiply-accumulates a second, by number type
    bandwidth_gb_s     what one core reads from memory, in 10⁹ bytes a second
    layer_overhead_us  what one kernel costs beside its work: dispatch, threads, borders
    lowering           what runs for which layers; the first rule that fits decides, and the last must fit every layer
    """

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    device: str = Field(min_length=1)
    isa: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="instruction sets that the figures assume")
    cores: int = Field(ge=1, description="cores that the figures are for")
    runtime: str = Field(min_length=1)
    note: str = ""
    rates_gmac_s: dict[str, Figure] = Field(min_length=1)
    bandwidth_gb_s: Figure
    layer_overhead_us: Figure
    energy: Energy | None = None
    lowering: Annotated[tuple[Rule, ...], Field(min_length=1, strict=False)]

    @field_validator("lowering")
    @classmethod
    def _last_fits_all(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if rules[-1].when.model_dump(exclude_none=True):
            raise ValueError("the last rule must fit every layer: leave out its `when`")
        return rules

    @model_validator(mode="after")
    def _rates_are_known(self) -> Self:
        known = ", ".join(self.rates_gmac_s)
        for index, rule in enumerate(self.lowering):
            if rule.runs_as.rate not in self.rates_gmac_s:
                raise ValueError(f"lowering[{index}] runs at the rate {rule.runs_as.rate!r}, and the rates are {known}")
        for rate in self.energy.pj_per_mac if self.energy else ():
            if rate not in self.rates_gmac_s:
                raise ValueError(f"energy.pj_per_mac has {rate!r}, and the rates are {known}")
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "the profile") -> HardwareProfile:
        """Raises `ProfileError` that names the key, what was expected and, for an unknown one, the nearest known."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise ProfileError(f"{source}: {explain(error, cls)}") from error

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)

    def lower(
        self,
        kind: str,
        *,
        weight_bits: int = FLOAT_BITS,
        activation_bits: int = FLOAT_BITS,
        sparsity: float = 0.0,
        rank: float = 1.0,
    ) -> Lowered:
        """What really runs where a layer of this kind is treated so. Raises `ProfileError` for an unknown kind."""
        if kind not in KINDS:
            raise ProfileError(f"a layer's kind must be one of {', '.join(KINDS)}, got {kind!r}")
        sparse, low_rank = sparsity > 0.0, rank < 1.0
        rule = next(r for r in self.lowering if r.when.fits(kind, weight_bits, activation_bits, sparse, low_rank))
        return apply_rule(
            rule, weight_bits=weight_bits, activation_bits=activation_bits, sparse=sparse, low_rank=low_rank
        )
