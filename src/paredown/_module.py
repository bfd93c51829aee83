"""Callable packages: `paredown.search(task)` works although `paredown.search` is a folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that calls its own function of the same name when it is called.

    The import of the package `paredown.search` sets the attribute `search` of `paredown`. A function of that name would
    be hidden by the first `from paredown.search import Task`. So one object is both.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function: Callable[..., Any] = getattr(self, self.__name__.rpartition(".")[2])
        return function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Pickle the module by name, as it is sent to a Ray worker."""
        return importlib.import_module, (self.__name__,)


def make_callable(name: str) -> None:
    """Make the imported module `name` callable. It must define a function named like the last part of `name`."""
    sys.modules[name].__class__ = CallableModule
