"""The descriptor of an axis of the space. It adds to a `SpecField` of the compressors how a task offers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...compressors.values import SpecField
from ...errors import SpecError

ValueType = Literal["integer", "number", "text", "integer or text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key of [space], and of [space.overrides] tables, that lists values of one choice for a layer.

    field      the choice: its name, neutral value, legal values, and the axis that it is within
    default    values of a task that does not name the key
    about      description of the key in [space]
    brief      description in an override; "": as in [space]
    key        name in TOML; "": the field's name
    values     type of a value
    check      (name, value) -> None, raises `SpecError`; None: the check of the field
    optional   whether the list may be empty
    overrides  whether an override may name the key
    idle       choices of a level, by field -> whether this one has no effect beside them; None: it always has
    when_idle  value that an idle choice takes: the neutral one, or the first that the task names
    """

    field: SpecField
    default: tuple[Any, ...]
    about: str
    brief: str = ""
    key: str = ""
    values: ValueType = "number"
    check: Callable[[str, Any], None] | None = None
    optional: bool = False
    overrides: bool = True
    idle: Callable[[Mapping[str, Any]], bool] | None = None
    when_idle: Literal["neutral", "first"] = "neutral"

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.field.name)

    @property
    def is_main(self) -> bool:
        """Tell whether the values change a layer by themselves, and are the only key of their field."""
        return not self.field.within and self.field.part != "structure" and self.key == self.field.name

    def checked(self, values: object) -> object:
        """Return the values of a task as they are. Raises `ValueError` for an empty list, a value that is not legal or
        comes twice.
        """
        if values is None:
            return None
        if not isinstance(values, (list, tuple)):
            raise ValueError(f"must be a list, got {values!r}; write {self.key} = [{values}]")
        if not values and not self.optional:
            raise ValueError(f"must name at least one value, got an empty list; leave {self.key} out for the default")
        for position, value in enumerate(values):
            try:
                (self.check or self.field.check)(self.field.name, value)
            except SpecError as error:
                raise ValueError(f"holds a value that cannot be used: {error}") from error
            if value in values[:position]:
                raise ValueError(f"names {value!r} twice; each value once")
        return values
