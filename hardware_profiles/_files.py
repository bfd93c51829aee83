"""Profiles by name (they come with the package) or by path."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ._profile import HardwareProfile, ProfileError

_FOLDER = Path(__file__).parent / "data"


def list_profiles() -> list[str]:
    """Names of the profiles that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Load a profile by its name, or from a JSON file (a path separator or the ending `.json` marks a path).

    Raises `ProfileError`: no such profile or file, no JSON (with the line), an unknown key, a figure without a source,
    a figure that is not positive.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".json") or "/" in text or "\\" in text:
        return _read(Path(name_or_path))
    if text not in list_profiles():
        near = get_close_matches(text, list_profiles(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ProfileError(
            f"no hardware profile is named {text!r}; {hint}known are {', '.join(list_profiles())}, "
            "or give the path of a JSON file"
        )
    return _read(_FOLDER / f"{text}.json")


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile."""
    return HardwareProfile.model_json_schema()


def _read(path: Path) -> HardwareProfile:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_twins)
    except OSError as error:
        raise ProfileError(f"cannot read the hardware profile {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"the hardware profile {path} is not text in UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise ProfileError(f"the hardware profile {path} is no JSON: line {error.lineno}: {error.msg}") from error
    except _Twins as error:
        raise ProfileError(f"the hardware profile {path} has the key {error} twice in one object") from error
    if not isinstance(data, dict):
        raise ProfileError(f"the hardware profile {path} must be a JSON object, got {type(data).__name__}")
    return HardwareProfile.from_dict(data, source=str(path))


class _Twins(Exception):
    """A key stands twice in one object, and JSON would silently keep the last."""


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise _Twins(repr(key))
        data[key] = value
    return data
