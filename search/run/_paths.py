"""Paths beside a run's folder."""

from __future__ import annotations

from pathlib import Path


def store_path(run: Path) -> Path:
    """Return the folder of the variant store: beside the runs, so that the next run on the same model finds it."""
    return run.resolve().parent / "store"
