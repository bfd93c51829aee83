"""Results that are made in several short runs, and yet by one code: what is there is kept, what is missing is done."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


class Pieces:
    """The JSON at `out`, gone on with if it is there.

    settings  what the figures depend on beside the code; a file with other settings, or of other code, is refused,
              for its rows would not be comparable
    folders   whose Python files are that code, from the repository's root
    minutes   after which `spent` is true, and the caller stops at the next row
    """

    def __init__(
        self, out: Path, *, command: str, settings: Mapping[str, Any], folders: tuple[str, ...], minutes: float | None
    ) -> None:
        self.out = out
        self._until = None if minutes is None else time.monotonic() + 60 * minutes
        fresh = {"settings": json.loads(json.dumps(settings)), "code": code_digest(folders)}
        self.result: dict[str, Any] = {
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": {"processor": processor(), "threads": torch.get_num_threads(), "torch": str(torch.__version__)},
            **fresh,
            "models": {},
        }
        if out.is_file():
            known = json.loads(out.read_text())
            for key, value in fresh.items():
                if known.get(key) != value:
                    raise SystemExit(
                        f"{out} was made with another {key} ({known.get(key)!r}, now {value!r}): its rows cannot be "
                        f"put beside new ones. Delete it to begin anew, or name another --out"
                    )
            self.result = known

    @property
    def spent(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def save(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        part = self.out.with_name(self.out.name + ".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n")
        part.replace(self.out)


def code_digest(folders: tuple[str, ...]) -> str:
    """Of the Python files in these folders, by path and content."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
