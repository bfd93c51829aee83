"""Digests that identify a tensor and a model by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Bytes of a tensor in C order, without a copy where it is contiguous and on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy())  # type: ignore[arg-type]  # an array is a Buffer; numpy's stubs say so from 3.12 on


def tensor_digest(tensor: Tensor) -> str:
    """sha256 over dtype, shape and bytes, in hexadecimal."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def model_digest(model: nn.Module | Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes of the state_dict, in hexadecimal. It identifies the model.

    Entries that are not tensors (a module's extra state) enter by their `repr`.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    digest = hashlib.sha256()
    for name, value in state.items():
        content = tensor_digest(value) if isinstance(value, Tensor) else repr(value)
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()
