"""Number types of a model's source: the file or the object that it came from, before it was widened to FP32.

A model computes in FP32 and remembers the type of each tensor of its source. What is left alone is counted and stored
in that type. The memory is a plain attribute of the root module, so it goes with every copy and to every worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_ATTRIBUTE = "_source_dtypes"


def source_dtypes(model: nn.Module) -> dict[str, str]:
    """Name in the state_dict -> number type of the source ("bfloat16"), for each tensor that is of another type now."""
    found: Any = vars(model).get(_ATTRIBUTE, {})
    return dict(found)


def remember_sources(model: nn.Module, dtypes: Mapping[str, str]) -> None:
    """Make `source_dtypes` of the model give these types."""
    vars(model)[_ATTRIBUTE] = dict(dtypes)


def is_widened(model: nn.Module) -> bool:
    """Tell whether every floating-point parameter and buffer is FP32."""
    return not any(_differs(tensor) for tensor in _tensors(model).values())


def widen(model: nn.Module, stored: Mapping[str, str] | None = None) -> nn.Module:
    """Make `model` FP32 in place, remember the types that it had, and return it.

    stored  name -> type in the file that a tensor came from. It counts where it is narrower than the loaded type and
            holds the very same values, so that a file in half precision loaded into an FP32 module is known too
    """
    known = source_dtypes(model)
    had = {name: _name(tensor.dtype) for name, tensor in _tensors(model).items() if _differs(tensor)}
    if had:
        model.float()
    for name, tensor in _tensors(model).items() if stored else ():
        given = (stored or {}).get(name, "")
        loaded = _dtype(had.get(name, _name(tensor.dtype)))
        narrower = given and tensor.is_floating_point() and _dtype(given).itemsize < loaded.itemsize
        if narrower and stored_dtype(tensor, given) == _dtype(given):
            had[name] = given
    if had or known:
        remember_sources(model, _under_every_name(model, {**known, **had}))
    return model


def stored_dtype(tensor: Tensor, source: str) -> torch.dtype:
    """Type in which a tensor that is left alone is stored: that of its source.

    source  "" where the tensor is of its source's type

    A tensor that was changed since, and whose values the source's type does not hold exactly, keeps its own type.
    """
    if not source or _dtype(source) == tensor.dtype:
        return tensor.dtype
    dtype = _dtype(source)
    is_exact = dtype.itemsize > tensor.dtype.itemsize or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)
    return dtype if is_exact else tensor.dtype


def rounded_to_source(value: Tensor, source: str) -> Tensor:
    """Return `value` rounded to what its source's type holds, in its own type; as it is where it overflows there."""
    if not source:
        return value
    rounded = value.to(_dtype(source)).to(value.dtype)
    return rounded if bool(torch.isfinite(rounded).all()) else value


def main_source_dtype(model: nn.Module) -> str:
    """Type of most numbers of the source: "float32" where nothing was widened."""
    weights = Counter[str]()
    for tensor, dtype in _distinct(model):
        if tensor.is_floating_point():
            weights[_name(dtype)] += tensor.numel()
    return weights.most_common(1)[0][0] if weights else "float32"


def source_bytes(model: nn.Module) -> tuple[int, int]:
    """Bytes of the distinct tensors of the state_dict in the types of the source, and in FP32."""
    source = wide = 0
    for tensor, dtype in _distinct(model):
        source += tensor.numel() * dtype.itemsize
        wide += tensor.numel() * (4 if tensor.is_floating_point() else dtype.itemsize)
    return source, wide


def changed_bytes(model: nn.Module) -> int:
    """Bytes that the tensors take more than in the source, because they were changed to values that its types lack."""
    return sum(
        tensor.numel() * (stored_dtype(tensor, _name(dtype)).itemsize - dtype.itemsize)
        for tensor, dtype in _distinct(model)
    )


def _distinct(model: nn.Module) -> list[tuple[Tensor, torch.dtype]]:
    """List each distinct tensor of the state_dict, with its source's type."""
    known = source_dtypes(model)
    found: dict[tuple[object, ...], tuple[Tensor, torch.dtype]] = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
            found.setdefault(key, (tensor, _dtype(known[name]) if name in known else tensor.dtype))
    return list(found.values())


def _under_every_name(model: nn.Module, dtypes: Mapping[str, str]) -> dict[str, str]:
    """Give each name of a tied tensor the narrowest type that one of its names has."""
    by_tensor: dict[int, str] = {}
    tensors = _tensors(model)
    for name, dtype in dtypes.items():
        key = id(tensors.get(name))
        if key not in by_tensor or _dtype(dtype).itemsize < _dtype(by_tensor[key]).itemsize:
            by_tensor[key] = dtype
    return {name: by_tensor[id(tensor)] for name, tensor in tensors.items() if id(tensor) in by_tensor}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return found | dict(model.named_buffers(remove_duplicate=False))


def _differs(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype
