"""Every method that is known by a name: those that are built in, and those that were registered."""

from __future__ import annotations

from ..errors import SpecError
from . import lowrank, quantization, sparsity  # noqa: F401  (they register what is built in)
from .registry import REGISTRIES


def is_method(kind: str, name: str) -> bool:
    """Tell whether a method of this kind has this name, or the name is an expression over some (see
    `sparsity/_blend.py`).
    """
    return name in methods(kind) or name in REGISTRIES[kind]


def methods(kind: str) -> tuple[str, ...]:
    """Names of the registered methods of a kind: "weight", "activation", "sparsity" or "rank"."""
    if kind not in REGISTRIES:
        raise SpecError(f"there is no kind of method {kind!r}; known are {', '.join(REGISTRIES)}")
    return REGISTRIES[kind].names
