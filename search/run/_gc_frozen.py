"""Keeps Python's garbage collector from looking again and again at what stays anyway.

With torch, Ray and MLflow imported and a model loaded, the heap has more than half a million objects, and each full
collection takes 0.2 s and frees nothing. In a search of a minute that was half of the time that the mirrors took.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """For a burst of work that makes little garbage: imports, the tables of a data base."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Whatever is frozen within (`freeze_gc`) is the collector's again afterwards."""
    frozen_by_others = gc.get_freeze_count() > 0
    try:
        yield
    finally:
        if not frozen_by_others:
            gc.unfreeze()


def freeze_gc() -> None:
    """What is there now will stay for the whole search: the collector need not look at it (`gc.freeze`)."""
    gc.freeze()
