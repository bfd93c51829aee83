"""The task of a run folder, read back."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import InputError
from ._task import Task

TASK = "task.json"


def stored_task(path: Path) -> Task:
    """Task of the run at `path`. Raises `InputError` for a folder that is no run, or a file that cannot be read."""
    if not (path / TASK).is_file():
        raise InputError(f"no run at {path}: expected a folder with {TASK}, as made by `paredown search`")
    try:
        data = json.loads((path / TASK).read_text(encoding="utf-8"))
        return Task.from_dict(data["task"], base_dir=Path(data["base_dir"]))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path / TASK} cannot be read ({error}); put back a copy of it") from None
