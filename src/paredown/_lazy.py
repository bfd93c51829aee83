"""Lazy exports: public names of a package that are imported at first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package.

    package  full name of the package
    modules  relative name of a module of the package (`"._front"`) -> its public names

    `dir` lists the `__all__` of the package.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)  # the next look-up skips this function
        return value

    def __dir__() -> list[str]:
        return sorted(vars(sys.modules[package])["__all__"])

    return __getattr__, __dir__
