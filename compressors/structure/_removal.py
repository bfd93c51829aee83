"""Removal from a model as a value: kept positions by tensor and axis, which need no tracing to be applied again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ._sets import CoupledSet, Member

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Kept parts of a model. JSON; loading it runs no code.

    tensors     name in the state_dict -> axis -> positions that are kept, ascending. What is not named stays whole
    norms       fqn of a module whose statistics run over cut channels -> (axis, positions kept) of what it sees
    attributes  fqn -> name -> the number that a module must keep of itself
    settings    fqn -> name -> a number that holds while masked too: the top-k of a mixture of experts
    experts     fqn of a `ModuleList` of experts -> those that are kept
    routers     fqn of the module that chooses among experts -> those that are kept; a linear layer, whose outputs they
                are, or one that answers with their numbers
    attention   fqns of `nn.MultiheadAttention` that have lost heads or width
    skipped     fqn of a residual block that is dropped (what comes in goes out) -> 0 where it answers with a tensor, n
                where with a tuple of n, of which the first is the hidden state
    """

    tensors: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    norms: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    experts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    routers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attention: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_neutral(self) -> bool:
        return not (self.tensors or self.skipped or self.settings or self.experts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "tensors": {
                name: {str(axis): _runs(kept) for axis, kept in axes.items()} for name, axes in self.tensors.items()
            },
            "norms": {fqn: [axis, _runs(kept)] for fqn, (axis, kept) in self.norms.items()},
            "attributes": {fqn: dict(values) for fqn, values in self.attributes.items()},
            "settings": {fqn: dict(values) for fqn, values in self.settings.items()},
            "experts": {fqn: _runs(kept) for fqn, kept in self.experts.items()},
            "routers": {fqn: _runs(kept) for fqn, kept in self.routers.items()},
            "attention": list(self.attention),
            "skipped": dict(self.skipped),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Removal:
        """Inverse of `to_dict`. Raises `ConfigError` for another schema, an unknown key, or an invalid value."""
        known = {"schema_version", *(part.name for part in fields(cls))}
        if unknown := sorted(set(data) - known):
            raise ConfigError(f"unknown key {unknown[0]!r} in a stored removal; it has {', '.join(sorted(known))}")
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"a stored removal of schema_version {data.get('schema_version')!r}; this paredown reads "
                f"{SCHEMA_VERSION!r}"
            )
        try:
            return cls(
                tensors={
                    name: {int(axis): _positions(runs) for axis, runs in axes.items()}
                    for name, axes in data.get("tensors", {}).items()
                },
                norms={fqn: (int(axis), _positions(runs)) for fqn, (axis, runs) in data.get("norms", {}).items()},
                attributes=_numbers(data.get("attributes", {})),
                settings=_numbers(data.get("settings", {})),
                experts={fqn: _positions(runs) for fqn, runs in data.get("experts", {}).items()},
                routers={fqn: _positions(runs) for fqn, runs in data.get("routers", {}).items()},
                attention=tuple(data.get("attention", ())),
                skipped={str(fqn): int(n) for fqn, n in data.get("skipped", {}).items()},
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"this is no removal: {error}") from error


def together(*removals: Removal) -> Removal:
    """Combine removals. Raises `ConfigError` where two disagree about one number, axis or block."""
    merged: dict[str, Any] = {}
    for part in fields(Removal):
        values = [getattr(removal, part.name) for removal in removals]
        if part.name == "attention":
            merged[part.name] = tuple(dict.fromkeys(fqn for value in values for fqn in value))
            continue
        into: dict[str, Any] = {}
        for value in values:
            for key, entry in value.items():
                if key not in into:
                    into[key] = entry
                elif isinstance(entry, Mapping) and all(into[key].get(k, v) == v for k, v in entry.items()):
                    into[key] = {**into[key], **entry}
                elif into[key] != entry:
                    raise ConfigError(f"two removals say different things of {key} ({part.name})")
        merged[part.name] = into
    return Removal(**merged)


def removal_of(
    model: nn.Module,
    sets: Iterable[CoupledSet],
    kept: Mapping[str, Sequence[int]],
    skipped: Mapping[str, int] | None = None,
) -> Removal:
    """Convert name of a set -> kept units to positions. A set that is not named, or keeps all, is left whole.

    Where several sets share an axis (a concatenation), a position is kept if every one of them keeps it.
    Raises `ConfigError` for an unknown set, `SpecError` for invalid units (see `check_kept`).
    """
    from torch import Tensor

    by_name = {coupled.name: coupled for coupled in sets}
    if unknown := sorted(set(kept) - set(by_name)):
        raise ConfigError(f"there is no coupled set {unknown[0]!r}; known are {', '.join(list(by_name)[:8])}")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    shapes |= {name: tuple(value.shape) for name, value in model.named_buffers()}  # those that are not stored too
    cut: dict[tuple[str, int], set[int]] = {}
    norms: dict[tuple[str, int], tuple[int, set[int]]] = {}
    attributes: dict[str, dict[str, int]] = {}
    attention: dict[str, None] = {}
    routers: dict[str, tuple[int, ...]] = {}
    experts: dict[str, tuple[int, ...]] = {}
    for name, units in kept.items():
        coupled = by_name[name]
        left = coupled.check_kept(units)
        if len(left) == coupled.n_units:
            continue
        gone = sorted(set(range(coupled.n_units)) - set(left))
        for member in coupled.members:
            _check_member(member, coupled, shapes)
            cut.setdefault((member.tensor, member.axis), set()).update(member.positions(gone))
        for norm in coupled.norms:
            size = coupled.n_units * norm.width * len(norm.offsets)
            _, positions = norms.setdefault((norm.tensor, norm.axis), (size, set()))
            positions.update(norm.positions(gone))
        _set_attributes(attributes, coupled, len(left))
        attention.update(dict.fromkeys(coupled.attention))
        if coupled.router:
            routers[coupled.router] = left
        if coupled.listed:
            experts[coupled.listed] = left
    tensors: dict[str, dict[int, tuple[int, ...]]] = {}
    for (tensor, axis), positions in cut.items():
        left = tuple(i for i in range(shapes[tensor][axis]) if i not in positions)
        tensors.setdefault(tensor, {})[axis] = left
    return Removal(
        tensors=tensors,
        norms={
            fqn: (axis, tuple(i for i in range(size) if i not in positions))
            for (fqn, axis), (size, positions) in norms.items()
        },
        attributes=attributes,
        experts=experts,
        routers=routers,
        attention=tuple(attention),
        skipped=dict(skipped or {}),
    )


def _set_attributes(attributes: dict[str, dict[str, int]], coupled: CoupledSet, n_left: int) -> None:
    """Add the numbers of a set's attributes. Raises `ConfigError` where another set wants another number."""
    for attribute in coupled.attributes:
        value = attribute.per_unit * n_left
        known = attributes.setdefault(attribute.module, {}).setdefault(attribute.name, value)
        if known != value:
            raise ConfigError(
                f"{attribute.module}.{attribute.name} would have to be {known} and {value}: two coupled sets "
                f"disagree about it; keep the same share of both"
            )


def _check_member(member: Member, coupled: CoupledSet, shapes: Mapping[str, tuple[int, ...]]) -> None:
    shape = shapes.get(member.tensor)
    last = max(member.offsets) + coupled.n_units * member.width
    if shape is None or not -len(shape) <= member.axis < len(shape) or shape[member.axis] < last:
        raise ConfigError(
            f"the set {coupled.name} belongs to another model: {member.tensor} should have {last} positions on axis "
            f"{member.axis}, and {'is of shape ' + str(list(shape)) if shape is not None else 'is not there'}"
        )


def _numbers(data: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {fqn: {str(name): int(value) for name, value in values.items()} for fqn, values in data.items()}


def _runs(positions: Sequence[int]) -> list[list[int]]:
    """Runs of positions as [first, last + 1]: a head's positions are one entry."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1][1] += 1
        else:
            runs.append([position, position + 1])
    return runs


def _positions(runs: Iterable[Sequence[int]]) -> tuple[int, ...]:
    found: list[int] = []
    for first, end in runs:
        if not 0 <= first < end <= 2**31 or (found and first < found[-1]):
            raise ValueError(f"{[first, end]} is no run of positions, in ascending order")
        found.extend(range(first, end))
    return tuple(found)
