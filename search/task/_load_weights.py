"""Weights of a task put into the factory's model: every key, every shape, every tied tensor must fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import TaskError
from ._message_parts import shape_text, some
from ._weight_files import StoredWeights, index_of, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

_KEY = "model.weights"


def load_weights(model: nn.Module, path: Path, *, unused: Sequence[str] = ()) -> None:
    """Load a safetensors file, or the shards of an index, into `model`.

    Strict, but for keys that say nothing new (another name of a tensor that is there, batch norm's step counter) and
    for keys that a glob of `unused` matches. Raises `TaskError`.
    """
    stored = read_weights(path, key=_KEY)
    expected = model.state_dict()
    shared = _names_by_storage(expected)
    found = {
        key: tensor
        for key, tensor in stored.tensors.items()
        if key in expected or not any(fnmatchcase(key, glob) for glob in unused)
    }
    _check_keys(stored, found, expected, shared, path)
    _check_shapes(stored, found, expected)
    _check_types(stored, found, expected)
    _check_tied(stored, found, shared)
    model.load_state_dict(found, strict=False)


def _check_keys(
    stored: StoredWeights,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    shared: Mapping[tuple[int, ...], Sequence[str]],
    path: Path,
) -> None:
    missing = [
        key
        for key in expected
        if key not in found
        and not key.endswith("num_batches_tracked")
        and not any(other in found for other in shared[_address(expected[key])])
    ]
    unexpected = [key for key in found if key not in expected]
    if not missing and not unexpected:
        return
    parts = [f"{word} {some(keys)}" for word, keys in (("missing", missing), ("unexpected", unexpected)) if keys]
    hint = "check that the factory builds the model that these weights are of"
    if not missing:
        hint += ", or list globs of what may go unused in model.unused_weights"
    prefix = next((key.partition(".")[0] + "." for key in unexpected), "")
    if prefix and all(key.startswith(prefix) and key.removeprefix(prefix) in expected for key in unexpected):
        hint = f"take the prefix {prefix!r} off the keys and save it again"
    elif missing and not unexpected and (index := index_of(path)) is not None:
        hint = f"this file is one shard; name the index, {index.name}"
    raise TaskError(f"{_KEY}: {stored.source} does not fit the model: {'; '.join(parts)}; {hint}")


def _check_shapes(stored: StoredWeights, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    shapes = [
        f"{key} is {shape_text(found[key].shape)} in {_place(stored, key)} and {shape_text(expected[key].shape)} in "
        f"the model"
        for key in found
        if found[key].shape != expected[key].shape
    ]
    if shapes:
        raise TaskError(
            f"{_KEY}: {stored.source} does not fit the model: {some(shapes, '; ')}; check the arguments in [model.args]"
        )


def _check_types(stored: StoredWeights, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for key, tensor in found.items():
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise TaskError(
                f"{_KEY}: {key} is {tensor.dtype} in {stored.files[key]} and {expected[key].dtype} in the model; "
                f"save it as the model has it"
            )


def _check_tied(
    stored: StoredWeights, found: Mapping[str, Tensor], shared: Mapping[tuple[int, ...], Sequence[str]]
) -> None:
    import torch

    for names in shared.values():
        present = [name for name in names if name in found]
        for other in present[1:]:
            if not torch.equal(found[present[0]], found[other]):
                raise TaskError(
                    f"{_KEY}: {present[0]} and {other} are one tensor in the model and differ in "
                    f"{stored.source}; keep one of them"
                )


def _place(stored: StoredWeights, key: str) -> str:
    return "the file" if stored.files[key] == stored.source else stored.files[key]


def _names_by_storage(state: Mapping[str, Tensor]) -> dict[tuple[int, ...], list[str]]:
    names: dict[tuple[int, ...], list[str]] = {}
    for key, tensor in state.items():
        names.setdefault(_address(tensor), []).append(key)
    return names


def _address(tensor: Tensor) -> tuple[int, ...]:
    """Two tensors with the same address are one; an empty tensor has none and is told by its identity."""
    return (tensor.data_ptr(), *tensor.shape, -1, *tensor.stride()) if tensor.numel() else (id(tensor),)
