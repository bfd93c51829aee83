"""A package that can also be called: `paredown.search(task)`, where `paredown.search` is a folder too."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module whose call is the call of its own function of the same name.

    Importing the package `paredown.search` sets the attribute `search` of `paredown`, whatever stood there before, so
    a function of that name would be hidden by the first `from paredown.search import Task`. So one object is both.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function: Callable[..., Any] = getattr(self, self.__name__.rpartition(".")[2])
        return function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """By name, as any module is sent to a Ray worker."""
        return importlib.import_module, (self.__name__,)


def make_callable(name: str) -> None:
    """Makes the imported module `name` callable; it must define a function named like the last part of `name`."""
    sys.modules[name].__class__ = CallableModule
