"""Store of variants on disk: each layer at each level is made once, and found again by the digest of its inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import Tensor

from ...errors import IntegrityError
from ..anatomy import LayerInfo, stored_dtype
from ..calibration import LayerGradients, LayerMoments
from ..files import tensor_digest, verify_container, write_container
from ..registry import _registry
from ..values import FLOAT_BITS, LayerSpec
from ._compress import compress, needs_gradients, uses_moments
from ._variant import Variant

CODE_VERSION = 2
"""Version of the code, raised when the same weight and spec give another variant, so that older results are not reused.
"""

_EFFECTIVE = "effective"
_ALIGN = 64
"""Alignment of the effective weight in bytes: a cache line, as for memory that torch allocates."""


class VariantStore:
    """Variants on disk, content-addressed: `root/<2 hex digits>/<64 hex digits>.safetensors`.

    The address is a sha256 over the weight's bytes, the weight's part of the spec, the layer's kind and groups, and the
    versions of the methods and of this code. It includes the moments of the layer's inputs and the loss' gradients
    where a method uses them.

    Files are written atomically, so processes may share a store and even build the same variant at once. A file is
    checked against its checksum once for each store object, then mapped into memory: the same pages serve all
    processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._open: dict[str, Variant] = {}

    def key(
        self, weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, weight_digest: str | None = None,
        moments: LayerMoments | None = None, gradients: LayerGradients | None = None,
    ) -> str:  # fmt: skip
        """Address of a variant, 64 hex digits. `weight_digest` is `tensor_digest(weight)`, for a caller that has it."""
        spec = spec.weight_only
        made_from: dict[str, object] = {
            "code": CODE_VERSION,
            "weight": weight_digest or tensor_digest(weight),
            "spec": spec.to_dict(),
            "kind": layer.kind,
            "groups": layer.groups,
            "methods": _method_versions(spec),
        }
        if spec.weight_bits == FLOAT_BITS and layer.source_dtype:
            made_from["stored"] = str(stored_dtype(weight, layer.source_dtype))
        if moments is not None and uses_moments(spec):
            made_from["moments"] = moments.digest
        if gradients is not None and needs_gradients(spec):
            made_from["gradients"] = gradients.digest
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

    def has(
        self, weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, weight_digest: str | None = None,
        moments: LayerMoments | None = None, gradients: LayerGradients | None = None,
    ) -> bool:  # fmt: skip
        """Tell whether the variant lies on disk (the neutral one is never stored)."""
        return self.path(
            self.key(weight, spec, layer, weight_digest=weight_digest, moments=moments, gradients=gradients)
        ).is_file()

    def get(
        self, weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, weight_digest: str | None = None,
        moments: LayerMoments | None = None, gradients: LayerGradients | None = None,
    ) -> Variant:  # fmt: skip
        """Return the variant; it is built (see `compress`) and stored if it is missing.

        moments    of the layer's inputs (`Calibration.moments`), for methods that need them
        gradients  of the loss by the layer's weight (`Calibration.gradients`), likewise

        The neutral variant is not stored: it is the weight. Raises `SpecError` as `compress` does, and
        `IntegrityError`, naming the file, if the stored one is damaged.
        """
        if not spec.changes_weight:
            return compress(weight, spec, layer)
        key = self.key(weight, spec, layer, weight_digest=weight_digest, moments=moments, gradients=gradients)
        if key not in self._open:
            if not self.path(key).is_file():
                self._write(key, compress(weight, spec, layer, moments=moments, gradients=gradients))
            self._open[key] = self._read(key, spec.weight_only, layer)
        return self._open[key]

    def _write(self, key: str, variant: Variant) -> None:
        metadata = {
            "format": "paredown.variant",
            "key": key,
            "spec": json.dumps(variant.spec.to_dict(), sort_keys=True),
            "weight_error": repr(variant.weight_error),
        }
        write_container(self.path(key), metadata, {_EFFECTIVE: variant.effective, **variant.tensors}, align=_ALIGN)

    def _read(self, key: str, spec: LayerSpec, layer: LayerInfo) -> Variant:
        from safetensors import safe_open

        path = self.path(key)
        try:
            _, header = verify_container(path)
        except IntegrityError as error:
            raise IntegrityError(f"{error} (a variant of {layer.fqn}; once deleted, it is built again)") from error
        metadata = header["__metadata__"]
        if metadata.get("key") != key or metadata.get("spec") != json.dumps(spec.to_dict(), sort_keys=True):
            raise IntegrityError(f"{path} holds another variant than its name states; delete it, and it is built again")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header if name != "__metadata__"}
        effective = tensors.pop(_EFFECTIVE, None)
        if effective is None or tuple(effective.shape) != layer.weight_shape:
            raise IntegrityError(
                f"{path} holds no weight of shape {layer.weight_shape}; delete it, and it is built again"
            )
        return Variant(spec=spec, effective=effective, tensors=tensors, weight_error=float(metadata["weight_error"]))


def _method_versions(spec: LayerSpec) -> dict[str, str]:
    """Versions of the methods that the spec uses."""
    used = {}
    if spec.weight_bits != FLOAT_BITS:
        used["weight"] = _registry.WEIGHT.version(spec.weight_method)
    if spec.sparsity > 0.0:
        used["sparsity"] = _registry.SPARSITY.version(spec.sparsity_method)
    if spec.rank < 1.0:
        used["rank"] = _registry.RANK.version(spec.rank_method)
    return used
