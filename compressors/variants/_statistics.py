"""Statistics of the calibration data that a spec needs and a layer lacks, and what can be done without them."""

from __future__ import annotations

from dataclasses import replace

from ..anatomy import LayerInfo
from ..calibration import LARGEST, MISSING, Calibration, output_key, scores_key
from ..registry import _registry
from ..values import LayerSpec
from ._compress import needs_gradients, needs_moments

_PLAIN = LayerSpec()


def lacks(spec: LayerSpec, layer: LayerInfo, calibration: Calibration) -> str | None:
    """Say in a clause which statistics the spec needs and the calibration lacks for this layer; None if it has all."""
    return _lacks_range(spec, layer, calibration) or _lacks_data(spec, layer, calibration)


def without_statistics(spec: LayerSpec, layer: LayerInfo, calibration: Calibration) -> LayerSpec:
    """Nearest spec that needs nothing the calibration lacks for this layer.

    The activation becomes FP32, and methods that look at data are replaced by those that do not.
    """
    if _lacks_range(spec, layer, calibration):
        spec = spec.weight_only
    if _lacks_data(spec, layer, calibration) is None:
        return spec
    if needs_moments(spec) and spec.weight_format == "adaptive":
        return spec.weight_only.without("weight_bits")
    plain: dict[str, str] = {}
    for kind, name, registry in (
        ("weight_method", spec.weight_method, _registry.WEIGHT),
        ("sparsity_method", spec.sparsity_method, _registry.SPARSITY),
        ("rank_method", spec.rank_method, _registry.RANK),
    ):
        if registry.needs(name) is not None:
            plain[kind] = getattr(_PLAIN, kind)
    return replace(spec, **plain)  # type: ignore[arg-type]


def why_missing(layer: LayerInfo, calibration: Calibration) -> tuple[str, str]:
    """(what is the matter with a layer's statistics, what to do), as clauses."""
    if layer.fqn in calibration.missing:
        return MISSING[calibration.missing[layer.fqn]]
    if layer.groups * layer.matrix_shape[1] ** 2 > LARGEST:
        return "it has too many inputs for their moments", "use a method that does not look at them"
    return (
        "its inputs on the calibration data are not there, not finite, or all zero",
        "add calibration samples on which it runs",
    )


def _lacks_range(spec: LayerSpec, layer: LayerInfo, calibration: Calibration) -> str | None:
    if not spec.changes_activation:
        return None
    fqn, missing = layer.fqn, calibration.missing
    if missing.get(fqn) == "not finite" or (spec.needs_range and fqn in missing):
        return f"{spec.activation_bits}-bit activations need a finite range"
    places = []
    if spec.rounds_tensors and layer.residual_output:
        places = [output_key(fqn)]
    elif spec.rounds_products and layer.product:
        places = [output_key(fqn), *([scores_key(fqn)] if layer.product == "value" else [])]
    if any(place in missing for place in places):
        return f"activation_scope {spec.activation_scope!r} needs a finite range of the output"
    return None


def _lacks_data(spec: LayerSpec, layer: LayerInfo, calibration: Calibration) -> str | None:
    if needs_moments(spec) and layer.kind != "embedding" and _is_none(calibration.moments, layer.fqn):
        return "its methods need the moments of the layer's inputs"
    if needs_gradients(spec) and _is_none(calibration.gradients, layer.fqn):
        return "its methods need gradients of the loss"
    return None


def _is_none(statistics: object, fqn: str) -> bool:
    return statistics is not None and fqn not in statistics.names  # type: ignore[attr-defined]
