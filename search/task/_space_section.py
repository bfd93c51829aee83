"""The section [space] of a task and its overrides. Their keys are the axes, and the few that are no axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.fields import FieldInfo

from ._axes import axes, registered_axes
from ._axis import Axis
from ._field_types import Flag, Integer, Number, Text
from ._section import Section

_TYPES: dict[str, Any] = {
    "integer": tuple[Integer, ...],
    "number": tuple[Number, ...],
    "text": tuple[Text, ...],
    "integer or text": tuple[Integer | Text, ...],
}
_annotated: Any = Annotated
"""As a variable, because the types are known at run time alone."""


class AxesSection(Section):
    """Base of the sections that have a key for each axis."""

    if TYPE_CHECKING:

        def __getattr__(self, key: str) -> Any:
            """Values of the axis `key`."""

    def values_of(self, axis: Axis) -> tuple[Any, ...] | None:
        """Values that this table gives for the axis: the default of [space], or None of an override, if it has none."""
        fallback = axis.default if isinstance(self, SpaceSection) else None
        found: tuple[Any, ...] | None = getattr(self, axis.key, fallback)
        return found

    @model_serializer(mode="wrap")
    def _without_unused_axes(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out an axis of a plugin that the task does not use, so that its digest knows nothing of the plugin."""
        data: dict[str, Any] = handler(self)
        unused = [axis.key for axis in registered_axes() if self.values_of(axis) in (None, axis.default)]
        return {key: value for key, value in data.items() if key not in unused}


class OverrideSection(AxesSection):
    """The axes of the layers that a glob matches; an axis that is left out stays as in [space]."""


class SpaceSection(AxesSection):
    """The choices for each layer: every combination of the axes' values that can be applied to it."""

    blocks: Flag = Field(default=False, description="whether residual blocks may be dropped")
    round_to: Integer | None = Field(
        default=None,
        ge=1,
        description="channels that stay are a multiple of this; default what the profile's alignment says of the "
        "layers that a coupled set goes through, else 1",
    )
    leave: tuple[Text, ...] = Field(default=(), description="globs of layer names to leave alone")
    overrides: dict[str, OverrideSection] = Field(
        default_factory=dict,
        description="glob of layer names -> axes; where several match, the later one wins, axis by axis",
    )

    def values(self, axis: Axis) -> tuple[Any, ...]:
        """Values of the axis in [space] itself."""
        return self.values_of(axis) or axis.default

    def values_for(self, axis: Axis, globs: Iterable[str]) -> tuple[Any, ...]:
        """Values of the axis where these globs of overrides match: the last one that names the axis wins."""
        given = [self.overrides[glob].values_of(axis) for glob in globs]
        return next((values for values in reversed(given) if values is not None), self.values(axis))

    def values_anywhere(self, axis: Axis) -> tuple[Any, ...]:
        """Values of the axis in [space] and in every override."""
        overridden = [table.values_of(axis) or () for table in self.overrides.values()]
        return (*self.values(axis), *(value for values in overridden for value in values))


_OWN = dict(SpaceSection.model_fields)
_known: tuple[Axis, ...] = ()
"""Axes that the sections have keys for."""


def follow_axes() -> bool:
    """Give both sections the keys of the axes that are known now; tell whether anything changed.

    A section of a model that holds one has to be rebuilt then (`model_rebuild(force=True)`).
    """
    global _known
    if _known == axes():
        return False
    _known = axes()
    keys = {axis.key: _field(axis) for axis in _known}
    of_structure = list(keys).index("keep_method")
    before, after = dict(list(keys.items())[:of_structure]), dict(list(keys.items())[of_structure:])
    _install(SpaceSection, before | {"blocks": _OWN["blocks"]} | after | _OWN)
    overriding = sorted((axis for axis in _known if axis.overrides), key=_place_in_override)
    _install(OverrideSection, {axis.key: _field(axis, override=True) for axis in overriding})
    SpaceSection.model_rebuild(force=True)
    return True


def _place_in_override(axis: Axis) -> int:
    """Order of the published schema: layers, the scope of activations, then structure and plugins."""
    if axis.key == "activation_scope":
        return 1
    return 2 if axis.field.part == "structure" or axis in registered_axes() else 0


def _field(axis: Axis, *, override: bool = False) -> FieldInfo:
    values = _annotated[_TYPES[axis.values], BeforeValidator(axis.checked)]
    if override:
        return FieldInfo.from_annotated_attribute(
            values | None, Field(default=None, description=axis.brief or axis.about)
        )
    return FieldInfo.from_annotated_attribute(values, Field(default=axis.default, description=axis.about))


def _install(section: type[AxesSection], fields: dict[str, FieldInfo]) -> None:
    section.model_fields.clear()
    section.model_fields.update(fields)
    section.model_rebuild(force=True)


follow_axes()
