"""Types of the values in a task: durations, references to code, shares, arguments.

Each is an ordinary type with a check in front. So an error is one sentence, and not one for each arm of a union.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AllowInfNan, BeforeValidator, Strict, WithJsonSchema

from ._user_code import reference_to

_UNIT_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def parse_duration(value: object) -> float:
    """Seconds from `90`, `"90s"`, `"30m"`, `"2h"`, `"1h30m"`, `"1d"`. Raises `ValueError` unless it is finite and above
    zero.
    """
    if isinstance(value, str):
        text = value.replace(" ", "").lower()
        if not _DURATION.fullmatch(text):
            raise ValueError(
                f"must be a duration such as '90s', '30m', '2h' or '1h30m', or a number of seconds, got {value!r}"
            )
        seconds = math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    elif _is_number(value):
        seconds = float(value)  # type: ignore[arg-type]  # _is_number has looked
    else:
        raise ValueError(f"must be a duration such as '30m' or a number of seconds, got {value!r}")
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(f"must be more than zero and finite, got {value!r}; leave it out for no limit")
    return seconds


def _optional_duration(value: object) -> float | None:
    return None if value is None else parse_duration(value)


def _reference(value: object) -> object:
    """Names a callable, or checks the shape of a name. Anything else is left to the type's own check."""
    if callable(value):
        return reference_to(value)
    if isinstance(value, str):
        module, _, name = value.rpartition(":")
        if not module or not name.replace(".", "_").isidentifier():
            raise ValueError(f"must be written 'module:function' or 'file.py:function', got {value!r}")
    return value


def _flag_or_auto(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    raise ValueError(f"must be true, false or 'auto', got {value!r}")


def _metric(value: object) -> object:
    return reference_to(value) if callable(value) else value


def _searcher(value: object) -> object:
    """Names a class by its import path. Anything else is left to the type's own check."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value


def _share(value: object) -> object:
    """A count (an integer of at least 1) or a share of the data (between 0 and 1)."""
    if value is None:
        return None
    if not _is_number(value):
        raise ValueError(f"must be a number of samples or a share of the data below 1, got {value!r}")
    if isinstance(value, int) and value >= 1:
        return value
    if isinstance(value, float) and 0.0 < value < 1.0:
        return value
    raise ValueError(
        f"must be a whole number of samples (at least 1) or a share of the data between 0 and 1, got {value!r}"
    )


def _plugins(values: object) -> object:
    """Names of files and modules. Anything but a list of strings is left to the type's own check."""
    if isinstance(values, str):
        raise ValueError(f"must be a list, got {values!r}; write plugins = [{values!r}]")
    if not isinstance(values, (list, tuple)):
        return values
    for value in values:
        if isinstance(value, str) and not _is_plugin(value):
            raise ValueError(
                f"must name files ('file.py') and modules ('package.module'), got {value!r}; "
                "what is in them registers itself when they are imported"
            )
    return values


def _is_plugin(name: str) -> bool:
    return name.endswith(".py") or all(part.isidentifier() for part in name.split("."))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def json_args(value: object, path: str = "") -> object:
    """Arguments must be what TOML and JSON can say, so that another process can be handed the same. Raises
    `ValueError`.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"holds {value!r} at {path or 'its top'}; only finite numbers can be stored")
        return value
    if isinstance(value, (list, tuple)):
        return [json_args(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: json_args(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    raise ValueError(
        f"holds a {type(value).__name__} at {path or 'its top'}; arguments must be strings, numbers, booleans, "
        f"lists and tables"
    )


Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
FlagOrAuto = Annotated[
    Any, BeforeValidator(_flag_or_auto), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "auto"}]})
]

Duration = Annotated[
    float | None,
    BeforeValidator(_optional_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": f"^{_DURATION.pattern}$"},
                {"type": "null"},
            ]
        }
    ),
]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
    ),
]
Reference = Annotated[Text, BeforeValidator(_reference)]
PluginNames = Annotated[tuple[Text, ...], BeforeValidator(_plugins)]
SearcherName = Annotated[Text, BeforeValidator(_searcher)]
MetricName = Annotated[Text, BeforeValidator(_metric)]
Share = Annotated[int | float | None, BeforeValidator(_share)]
Arguments = Annotated[dict[str, Any], BeforeValidator(json_args)]
