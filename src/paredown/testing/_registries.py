"""Isolation of the registries, for tests of plugins: a registration inside the block is forgotten at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def isolated_registries() -> Iterator[None]:
    """Restore every registry at the end: methods, axes, metrics, runtimes, searchers. Imported files are forgotten too.

    Without it a plugin's names stay taken for the rest of the process, and a second test cannot register them.
    """
    registries = _registries()
    before = [dict(registry) for registry in registries]
    modules, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
        for name in [name for name in sys.modules if name.startswith("paredown_user_") and name not in modules]:
            del sys.modules[name]
        sys.path[:] = path


def _registries() -> list[dict[Any, Any]]:
    from .._cards import _REGISTERED as cards
    from ..compressors import methods
    from ..compressors.registry import REGISTRIES
    from ..compressors.values._fields import _REGISTERED as fields
    from ..evaluators.quality._register import _CONFIGURE, _METRICS
    from ..evaluators.runtimes._base import _RUNTIMES
    from ..search.searchers._registry import _SEARCHERS
    from ..search.task._axes import _REGISTERED as axes
    from ..search.task._plugins import _digests

    methods("weight")  # the built-in ones register themselves on the first look
    entries = (registry._entries for registry in REGISTRIES.values())
    return [*entries, _METRICS, _CONFIGURE, _RUNTIMES, _SEARCHERS, fields, axes, cards, _digests]
