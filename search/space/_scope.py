"""Scope of rounded activations that suits the runtime of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..task import AxesSection, axes

if TYPE_CHECKING:
    from ..task import SpaceSection

_Table = TypeVar("_Table", bound=AxesSection)
_KEY = "activation_scope"


def native_scope(runtime: str) -> str:
    """Meaning of the scope "auto": "tensor" where the runtime has no integer kernel for a convolution whose output is
    not rounded, else "layer".
    """
    return "tensor" if runtime == "onnxruntime" else "layer"


def with_native_scope(section: SpaceSection, runtime: str) -> SpaceSection:
    """Copy of the section, and of its overrides, with "auto" replaced by the scope that the runtime needs."""
    overrides = {glob: _resolved(table, runtime) for glob, table in section.overrides.items()}
    return _resolved(section, runtime).model_copy(update={"overrides": overrides})


def _resolved(table: _Table, runtime: str) -> _Table:
    scopes = table.values_of(next(axis for axis in axes() if axis.key == _KEY))
    if scopes is None:
        return table
    known = dict.fromkeys(native_scope(runtime) if scope == "auto" else scope for scope in scopes)
    return table.model_copy(update={_KEY: tuple(known)})
