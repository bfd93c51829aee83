"""Errors of pydantic in one line: the place, the expected value and the given one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

SHOWN = 3


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Join the first few errors; an unknown key comes with the nearest known one."""
    details = error.errors(include_url=False)
    lines = [_line(detail, model) for detail in details[:SHOWN]]
    if len(details) > SHOWN:
        lines.append(f"and {len(details) - SHOWN} more")
    return "; ".join(lines)


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    where = _path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        key = str(detail["loc"][-1])
        known = _keys_at(model, detail["loc"][:-1])
        near = get_close_matches(key, known, n=1)
        return f"unknown key {where!r}" + (
            f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
        )
    if detail["type"] == "missing":
        return f"the key {where!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    came = detail["input"]
    if isinstance(came, (dict, list, tuple)):
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]}, got {came!r}"


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys that the schema knows at a place, found along the types of the fields."""
    here: Any = model
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel) and str(part) in here.model_fields:
            here = here.model_fields[str(part)].annotation
        inner = _model_in(here)
        here = inner if inner is not None else here
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if (found := _model_in(inner)) is not None:
            return found
    return None
