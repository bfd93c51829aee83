"""Garbage collection during a search: objects that stay anyway are not examined again and again.

With torch, Ray and MLflow imported and a model loaded, the heap has more than half a million objects, and each full
collection takes 0.2 s and frees nothing. In a search of a minute that was half of the time that the mirrors took.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Switch the collector off for a burst of work that makes little garbage: imports, the tables of a data base."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Give the objects that are frozen within (`freeze_gc`) back to the collector afterwards."""
    frozen_by_others = gc.get_freeze_count() > 0
    try:
        yield
    finally:
        if not frozen_by_others:
            gc.unfreeze()


def freeze_gc() -> None:
    """Take all present objects out of the collector's sight (`gc.freeze`): they stay for the whole search."""
    gc.freeze()
