"""Automatic search for compressed forms of a PyTorch model.

    >>> import paredown
    >>> front = paredown.search("task.toml", workers=0)  # 0: in this process; by default on all cores
    >>> front.pick("knee").export(format="paredown", out="small")
    PosixPath('small')

Every public name is imported when it is first used. So `import paredown` takes milliseconds and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from ._cards import Card, register_card
    from .compressors import LayerSpec, load_model
    from .errors import ParedownError
    from .search import (
        Front,
        Method,
        Plan,
        Point,
        Progress,
        Run,
        Task,
        apply_config,
        export_point,
        list_methods,
        load,
        open_run,
        plan,
        resume,
        search,
        verify_artifact,
    )


__all__ = [
    "Card",
    "Front",
    "LayerSpec",
    "Method",
    "ParedownError",
    "Plan",
    "Point",
    "Progress",
    "Run",
    "Task",
    "__version__",
    "apply_config",
    "export_point",
    "list_methods",
    "load",
    "load_model",
    "open_run",
    "plan",
    "register_card",
    "resume",
    "search",
    "verify_artifact",
]

_HOMES = {
    "Card": "._cards",
    "register_card": "._cards",
    "LayerSpec": ".compressors",
    "load_model": ".compressors",
    "ParedownError": ".errors",
}
"""Public name -> its package, for names that are not in `paredown.search`."""


def __getattr__(name: str) -> Any:
    if name == "search":  # the package; calling it calls its function `search`, see `_module.py`
        return importlib.import_module(".search", __name__)
    if name in __all__:
        value = getattr(importlib.import_module(_HOMES.get(name, ".search"), __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
