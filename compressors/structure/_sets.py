"""Coupled sets as values: channels, heads or neurons that can only be removed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import ConfigError, SpecError
from ..values import StructuralName

KINDS = ("channels", "heads", "neurons", "hidden", "units", "experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Place of a set's units in one tensor: unit `u` is `o + u * width ... o + (u + 1) * width - 1`, for each offset
    `o`.

    role     "makes" the unit (rows, biases), "reads" it (columns), or "keeps" it in its place (a batch norm, a
             depthwise convolution)
    tensor   its name in the state_dict (for the input of a normalisation: the module's fqn)
    offsets  one for plain channels; four for the gates of an LSTM, three for a packed q/k/v, …
    width    positions of one unit at each offset: of a head its width, of a channel before a flatten its pixels
    """

    tensor: str
    axis: int
    offsets: tuple[int, ...] = (0,)
    width: int = 1
    role: str = "makes"

    def positions(self, units: Iterable[int]) -> list[int]:
        units = list(units)
        return sorted(
            offset + unit * self.width + k for offset in self.offsets for unit in units for k in range(self.width)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """Number that a module stores of its shape: after removal it is `per_unit * units kept`."""

    module: str
    name: str
    per_unit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledSet:
    """Units that can be removed one by one, each everywhere at once.

    kind        one of `KINDS`: channels of convolutions; heads (of grouped-query attention: the query heads of one
                key/value head, or, where the key/value heads stay, one query head of each); neurons between two linear
                layers; the hidden dimension, which a normalisation sees; units of a recurrent layer; experts that lie
                in one tensor or in a list
    n_units     how many there are
    unit_width  channels of the first member that one unit is: of heads the head's width, else 1
    members     every tensor that has a share of each unit
    norms       modules whose statistics run over the set's channels: a mask must keep the masked out of them
    attributes  numbers to be put right after removal
    attention   fqns of `nn.MultiheadAttention`, which cannot have fewer heads and is replaced where some are removed
    router      of experts: the fqn of the module that chooses among them: a linear layer with an output for each, or
                one that says by number which
    listed      of experts that are modules: the fqn of their list
    floor       units that are always kept
    """

    name: str
    kind: str
    n_units: int
    members: tuple[Member, ...]
    unit_width: int = 1
    norms: tuple[Member, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    attention: tuple[str, ...] = ()
    router: str = ""
    listed: str = ""
    floor: int = 1

    @property
    def fqn(self) -> str:
        """Full name of the module that the set is named after."""
        named = StructuralName.parse(self.name)
        return self.name if named is None else named.fqn

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"the kind of a coupled set must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def having(self, role: str) -> tuple[Member, ...]:
        """Members of this role: "makes", "reads" or "keeps"."""
        return tuple(member for member in self.members if member.role == role)

    def check_kept(self, units: Iterable[int]) -> tuple[int, ...]:
        """Return the units sorted. Raises `SpecError` for an unknown unit, a repeated one, or fewer than the floor."""
        kept = tuple(sorted(units))
        if len(set(kept)) != len(kept) or (kept and not 0 <= kept[0] <= kept[-1] < self.n_units):
            raise SpecError(f"{self.name} has the units 0..{self.n_units - 1}, each once; got {list(kept)}")
        if len(kept) < self.floor:
            raise SpecError(f"{self.name} must keep at least {self.floor} of its {self.n_units} units, got {len(kept)}")
        return kept

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CoupledSet:
        """Inverse of `to_dict`, also from JSON's lists. Raises `ConfigError` for an invalid value."""
        try:
            fields: dict[str, Any] = _tupled(data)
            for key, part in (("members", Member), ("norms", Member), ("attributes", Attribute)):
                fields[key] = tuple(part(**_tupled(entry)) for entry in fields.get(key, ()))
            return cls(**fields)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"this is no coupled set: {error}") from error


def _tupled(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
