"""The reader of tasks: TOML text, `-o table.key=value`, and errors that name the place and the nearest key."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ...errors import TaskError

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
    "too_short": "longer: at least one item",
    "string_too_short": "a name",
}
_TOML_PLACE = re.compile(r"\s*\(at (line (\d+), column (\d+)|end of document)\)$")
_VALUE_ERROR = "Value error, "


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Text of the file and its data. Raises `TaskError` naming the file, and for bad TOML the line and the column."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = [other.name for other in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        hint = f"; the folder has {', '.join(near[:5])}" if near else ""
        raise TaskError(f"there is no task file {path}{hint}") from error
    except IsADirectoryError as error:
        raise TaskError(f"a task must be a TOML file, got the folder {path}; name the file in it") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not a text file: byte {error.start} is not UTF-8; a task is TOML") from error
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(_toml_message(path, text, error)) from error


def merge_overrides(data: dict[str, Any], overrides: Sequence[str], *, schema: type[BaseModel]) -> dict[str, Any]:
    """`data` with each `table.key=value` put in; tables are merged, everything else is replaced."""
    for override in overrides:
        _merge(data, _parse_override(override, schema))
    return data


def explain(error: ValidationError, *, schema: type[BaseModel], source: str, text: str) -> TaskError:
    """Error with one line for the first problem that pydantic found, and the number of others."""
    problems = error.errors(include_url=False)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    message = _message(first, schema)
    location = first["loc"] or _named_in(str(first["msg"]))
    place = _line_of(text, location) if text else None
    where = source if place is None else f"{source} line {place}"
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return TaskError(f"{where}: {message}{rest}")


def _toml_message(path: Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    found = _TOML_PLACE.search(str(error))
    what = _TOML_PLACE.sub("", str(error))
    lines = text.splitlines()
    if found is None or found[2] is None:
        end = "at the end of the file; is a bracket or a quote left open?"
        return f"{path} line {len(lines) or 1} is not TOML: {what} {end}"
    line, column = int(found[2]), int(found[3])
    return f"{path} line {line}, column {column} is not TOML: {what}: {lines[line - 1].strip()!r}"


def _message(problem: Mapping[str, Any], schema: type[BaseModel]) -> str:
    location = _without_union_arms(problem["loc"], schema)
    path = dotted(location)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location, schema)
    description = _description(location, schema)
    about = f" ({description})" if description else ""
    if problem["type"] == "missing":
        return f"{path} is missing; it is needed{about}"
    message = str(problem["msg"])
    if message.startswith(_VALUE_ERROR):
        message = message.removeprefix(_VALUE_ERROR)
        return f"{path} {message}" if location else message
    got = _shown(problem["input"])
    if expected := _EXPECTED.get(problem["type"]):
        return f"{path} must be {expected}, got {got}{about}"
    if problem["type"] == "literal_error":
        return f"{path} must be one of {problem['ctx']['expected']}, got {got}{about}"
    for kind, words in {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("less than", "lt"),
    }.items():
        if problem["type"] == kind:
            return f"{path} must be {words[0]} {problem['ctx'][words[1]]:g}, got {got}{about}"
    return f"{path}: {message[:1].lower()}{message[1:]}, got {got}{about}"


def _named_in(message: str) -> tuple[str, ...]:
    """`limits.bytes: min = …` -> ("limits", "bytes"): rules about several keys name their place in their message."""
    return tuple(message.removeprefix(_VALUE_ERROR).partition(":")[0].split("."))


def _unknown_key(location: tuple[str | int, ...], schema: type[BaseModel]) -> str:
    *parents, key = location
    model = _model_at(tuple(parents), schema)
    known = list(model.model_fields) if model else []
    table = f"[{dotted(tuple(parents))}]" if parents else "a task"
    start = f"{dotted(location)} is not a known key"
    if close := get_close_matches(str(key), known, n=1):
        return f"{start}; did you mean {dotted((*parents, close[0]))}?"
    elsewhere = [path for path in _all_keys(schema) if path[-1] == key]
    if elsewhere:
        if len(elsewhere[0]) > 1:
            return f"{start}; {key} belongs in [{dotted(elsewhere[0][:-1])}]"
        if _is_plain(str(key), schema):
            return f"{start}; {key} stands at the top of the file, before the first [table]"
        return f"{start}; [{key}] is a table of its own"
    near = get_close_matches(str(key), [path[-1] for path in _all_keys(schema)], n=1)
    hint = next((f", and {dotted(path)} is one" for path in _all_keys(schema) if near and path[-1] == near[0]), "")
    return f"{start}; {table} has {', '.join(known)}{hint}"


def dotted(location: tuple[str | int, ...] | Sequence[str | int]) -> str:
    """`space.overrides."layer1.*".weight_bits[0]`: a key as it would be written in TOML."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return path


def _without_union_arms(location: tuple[str | int, ...], schema: type[BaseModel]) -> tuple[str | int, ...]:
    """pydantic puts the arm of a union (`int`, `constrained-str`) into a location; the user wrote no such key."""
    kept: list[str | int] = []
    for position, part in enumerate(location):
        model = _model_at(tuple(kept), schema)
        last = position == len(location) - 1
        if isinstance(part, int) or model is not None or _is_mapping(tuple(kept), schema) or (last and not kept):
            kept.append(part)
    return tuple(kept)


def _all_keys(schema: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in schema.model_fields:
        yield (*parents, name)
        if (inner := _model_at((name,), schema)) is not None:
            yield from _all_keys(inner, (*parents, name))


def _model_at(location: tuple[str | int, ...], schema: type[BaseModel]) -> type[BaseModel] | None:
    kind = _type_at(location, schema)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_mapping(location: tuple[str | int, ...], schema: type[BaseModel]) -> bool:
    return typing.get_origin(_type_at(location, schema)) is dict


def _is_plain(key: str, schema: type[BaseModel]) -> bool:
    """Tell whether the key stands at the top of the file, in no table."""
    return key in schema.model_fields and _model_at((key,), schema) is None and not _is_mapping((key,), schema)


def _type_at(location: tuple[str | int, ...], schema: type[BaseModel]) -> Any:
    kind: Any = schema
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            kind = _without_none(kind.model_fields[str(part)].annotation)
        elif typing.get_origin(kind) is dict:
            kind = _without_none(typing.get_args(kind)[1])
        else:
            return None
    return kind


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
        kind = arms[0] if len(arms) == 1 else kind
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _description(location: tuple[str | int, ...], schema: type[BaseModel]) -> str | None:
    names = [part for part in location if not isinstance(part, int)]
    model = _model_at(tuple(names[:-1]), schema)
    field = model.model_fields.get(str(names[-1])) if model and names else None
    return field.description if field else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line of a key, found by its name under its table's header, or that of the table; None if neither is there."""
    names = tuple(str(part) for part in location if not isinstance(part, int))
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        header = re.fullmatch(r"\[+([^\[\]]+(?:\"[^\"]*\")?[^\[\]]*)\]+\s*(?:#.*)?", stripped)
        key = re.match(r"((?:[A-Za-z0-9_.-]|\"[^\"]*\"|'[^']*'|\s)+?)\s*=", stripped)
        if header:
            table = full = _key_parts(header[1])
        elif key:
            full = (*table, *_key_parts(key[1]))
        else:
            continue
        if full and full == names[: len(full)] and (best is None or len(full) > best[0]):
            best = (len(full), number)
    return best[1] if best else None


def _key_parts(key: str) -> tuple[str, ...]:
    try:
        nested: Any = tomllib.loads(f"{key.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(nested, dict):
        (name, nested), *_ = nested.items()
        parts.append(name)
    return tuple(parts)


def _parse_override(override: str, schema: type[BaseModel]) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise TaskError(f"-o must be table.key=value, got {override!r}; for example -o budget.trials=50")
    if "." not in key and not _is_plain(key.strip(), schema):
        home = next((dotted(path) for path in _all_keys(schema) if path[-1] == key.strip()), f"table.{key.strip()}")
        raise TaskError(f"-o must name a table and a key, got {override!r}; write {home}={value.strip()}")
    try:
        return tomllib.loads(override)
    except tomllib.TOMLDecodeError as first:
        if not re.fullmatch(r"[\w./:~+*-][\w ./:~+*-]*", value.strip()):
            raise TaskError(f'-o {override!r} is not TOML: {first}; quote a string: {key.strip()}="…"') from first
    try:
        return tomllib.loads(f'{key} = "{value.strip()}"')
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"-o {override!r} is not TOML: {error}; write table.key=value") from error


def _merge(data: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value
