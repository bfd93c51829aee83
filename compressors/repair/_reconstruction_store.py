"""Store of reconstructed codes on disk, found again by the digest of their inputs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import IntegrityError
from ..files import tensor_digest, verify_container, write_container
from ..values import LayerSpec
from ..variants import Variant, decode
from ._reconstruction import CODE_VERSION, STEPS, Reconstruction

_FORMAT = "paredown.reconstruction"


def reconstruction_key(
    model_digest: str,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    batches: Sequence[object],
    *,
    values: Mapping[str, Tensor],
    calibration_digest: str,
    divergence: str,
    seed: int,
    class_axis: int = -1,
    scales: Mapping[str, float] | None = None,
) -> str:
    """Key of a reconstruction, 64 hex digits, over all inputs of `reconstruct`."""
    made_from = {
        "code": CODE_VERSION,
        "steps": STEPS,
        "model": model_digest,
        "calibration": calibration_digest,
        "divergence": divergence,
        "seed": seed,
        "assignment": {fqn: spec.to_dict() for fqn, spec in sorted(assignment.items())},
        "variants": {fqn: _digests(variant.tensors) for fqn, variant in sorted(variants.items())},
        "values": _digests(values),
        "batches": [_described(batch) for batch in batches],
    }
    if class_axis != -1:  # keys of classes on the last axis are older than this argument
        made_from["class_axis"] = class_axis
    if scales:  # likewise of one output
        made_from["outputs"] = dict(scales)
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def reconstructed(
    folder: Path, key: str, variants: Mapping[str, Variant], learn: Callable[[], Reconstruction]
) -> tuple[dict[str, Variant], bool, list[str]]:
    """Read a reconstruction from `folder/<key>.safetensors`, or learn it and write it there.

    Returns (variants, whether codes changed, notes).

    variants  before reconstruction

    Raises `IntegrityError`, naming the file, if it is damaged.
    """
    path = Path(folder) / f"{key}.safetensors"
    if not path.is_file():
        found = learn()
        changed = {fqn: v for fqn, v in found.variants.items() if v is not variants[fqn]}
        tensors = {f"{fqn}:{name}": tensor for fqn, v in changed.items() for name, tensor in v.tensors.items()}
        write_container(
            path, {"format": _FORMAT, "key": key, "kept": str(found.kept), "notes": json.dumps(found.notes())}, tensors
        )
    return _read(path, key, variants)


def _read(path: Path, key: str, variants: Mapping[str, Variant]) -> tuple[dict[str, Variant], bool, list[str]]:
    from safetensors import safe_open

    try:
        _, header = verify_container(path)
    except IntegrityError as error:
        raise IntegrityError(f"{error} (reconstructed blocks; once deleted, they are learned again)") from error
    metadata = header["__metadata__"]
    if metadata.get("format") != _FORMAT or metadata.get("key") != key:
        raise IntegrityError(f"{path} holds other data than its name states; delete it, and it is learned again")
    tensors: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for name in header:
            if name != "__metadata__":
                fqn, _, part = name.rpartition(":")
                tensors.setdefault(fqn, {})[part] = file.get_tensor(name)
    found = dict(variants)
    for fqn, stored in tensors.items():
        before = variants[fqn]
        effective = decode(before.spec, tuple(before.effective.shape), stored)
        found[fqn] = dataclasses.replace(before, tensors=stored, effective=effective)
    return found, metadata["kept"] == "True", json.loads(metadata["notes"])


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: tensor_digest(tensor) for name, tensor in sorted(tensors.items())}


def _described(value: Any) -> Any:
    """Copy of the value with digests in place of tensors."""
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if isinstance(value, Mapping):
        return {str(name): _described(item) for name, item in value.items()}
    return [_described(item) for item in value] if isinstance(value, list | tuple) else repr(value)
