"""Placeholder."""

from __future__ import annotations

from pathlib import Path


def store_path(run: Path) -> Path:
    """The variant store: beside the runs, so that the next run on the same model finds it."""
    return run.resolve().parent / "store"
