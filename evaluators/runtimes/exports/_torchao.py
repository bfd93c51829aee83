"""Export of torchao's per-layer config as JSON: a `FqnToConfig`, serialized by `torchao.core.config.config_to_dict`.

What it does   says for each linear layer which of torchao's configs comes nearest; torchao then quantizes the
               *original* weights by its own rounding, so the numbers are not those that were searched: measure again
Source         torchao 0.18, `torchao/core/config.py` and `torchao/quantization/quant_api.py`; written without torchao
We differ      layers that are left alone are named with null, so that no default reaches them
Not expressed  sparsity, rank, widths' own methods (GPTQ, descent, …) and ranges, calibrated activations, palettes, FP8
               tables, FP16: an error that lists all of them, layer by layer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....compressors.anatomy import FUSED_KINDS
from .._base import ExportError
from ._format import Notes

if TYPE_CHECKING:
    from torch import nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant

FORMAT = "torchao-config"
MAIN_FILE = "torchao.json"
TORCHAO = "0.18"
"""Version of the fields."""


def export_torchao(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
) -> Path:
    """Write `out/torchao.json`. Raises `ExportError` listing each layer that torchao cannot express, and why.

    Read it with `config_from_dict(json.load(file))`, apply it with `torchao.quantization.quantize_(model, config,
    filter_fn=None)`.
    """
    notes = Notes(format=FORMAT)
    config = torchao_config(model, assignment, notes)
    notes.more["torchao"] = TORCHAO
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    notes.save(out)
    return path


def torchao_config(model: nn.Module, assignment: Mapping[str, LayerSpec], notes: Notes) -> dict[str, Any]:
    """Config of the whole model as `config_to_dict(FqnToConfig(…))` gives it. Raises as `export_torchao`."""
    layers: dict[str, Any] = {}
    refused = []
    for fqn, spec in assignment.items():
        if spec.is_neutral:
            layers[fqn] = None
            continue
        reason = _cannot(model, fqn, spec) or _parted(model, fqn, assignment)
        if reason is not None:
            refused.append(f"{fqn} ({spec.label()}): {reason}")
            continue
        layers[fqn] = _layer_config(spec)
        notes.written_as[fqn] = layers[fqn]["_type"]
        if spec.weight_method != "affine":
            notes.fell_back(fqn, f"{spec.weight_method} chose the weights; torchao will round to the nearest")
        if spec.scale_bits == 16:
            notes.fell_back(fqn, "scales in FP16 become scales in the weight's own type")
    if refused:
        raise ExportError(
            "torchao has no config for "
            + "; ".join(refused)
            + ". Search with what it has ([space] weight_format 'int' or 'int_asym', activation_bits 32 or a dynamic "
            "8, no sparsity, no rank; for other layers [space] leave), or export to 'paredown', 'onnx' or 'pt2'"
        )
    return _encoded("FqnToConfig", 1, {"fqn_to_config": layers, "module_fqn_to_config": layers})


def _cannot(model: nn.Module, fqn: str, spec: LayerSpec) -> str | None:
    from torch import nn

    from ....compressors import module_at
    from ....compressors.anatomy import holder_of, kind_at

    if kind_at(model, fqn) in FUSED_KINDS:
        return f"its configs are for nn.Linear, and this is a weight inside {type(holder_of(model, fqn)[0]).__name__}"
    module = module_at(model, fqn)
    if not isinstance(module, nn.Linear):
        return f"its configs are for nn.Linear, and this is {type(module).__name__}"
    if spec.rank < 1.0:
        return "no config factorizes a weight"
    if spec.sparsity:
        return "its sparsity is N:M on the kernels' side, and these zeros stand anywhere"
    if spec.weight_format not in ("int", "int_asym") or not spec.changes_weight:
        what = (
            "weights left in floating point" if not spec.changes_weight else f"the weight format {spec.weight_format!r}"
        )
        return f"no config has {what}" + (" with activations in integers" if not spec.changes_weight else "")
    if spec.group_size == "tensor":
        return "integer weights have a scale for each output channel or group, not one for the tensor"
    if spec.block[0] > 1:
        return f"its groups lie in a row, and {spec.group_size} has several"
    if isinstance(spec.group_size, int) and spec.group_size and module.in_features % spec.group_size:
        return f"its groups divide the row, and {spec.group_size} does not divide {module.in_features}"
    if not spec.changes_activation:
        return None
    if spec.needs_range:
        return "calibrated ranges are in no config (its static one holds a tensor, which it cannot serialize)"
    if spec.activation_bits != 8:
        return f"dynamic activations have 8 bits, not {spec.activation_bits}"
    return None


def _parted(model: nn.Module, fqn: str, assignment: Mapping[str, LayerSpec]) -> str | None:
    """Reason why torchao would give one tensor two values: it quantizes module by module, and here one is left out."""
    from torch import nn

    from ....compressors import module_at, weight_at

    weight, spec = weight_at(model, fqn), assignment[fqn]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holder = name.rpartition(".")[0]
        other = module_at(model, holder)
        if parameter is not weight or other is module_at(model, fqn):
            continue
        if not isinstance(other, nn.Linear) or assignment.get(holder) != spec:
            return f"its weight is tied to {name}, which torchao would leave as it is"
    return None


def _layer_config(spec: LayerSpec) -> dict[str, Any]:
    dtype = {"_type": "torch.dtype", "_data": f"int{spec.weight_bits}"}
    mapping = _enum("MappingType", "SYMMETRIC" if spec.weight_format == "int" else "ASYMMETRIC")
    packing = _enum("IntxPackingFormat", "UNPACKED_TO_INT8")
    algorithm = _enum("IntxChooseQParamsAlgorithm", "AFFINE")
    granularity = (
        _encoded("PerGroup", 1, {"group_size": spec.group_size})
        if spec.group_size
        else _encoded("PerAxis", 1, {"axis": 0})
    )
    if not spec.changes_activation:
        return _encoded(
            "IntxWeightOnlyConfig",
            2,
            {
                "weight_dtype": dtype,
                "granularity": granularity,
                "mapping_type": mapping,
                "scale_dtype": None,
                "intx_packing_format": packing,
                "intx_choose_qparams_algorithm": algorithm,
            },
        )
    return _encoded(
        "Int8DynamicActivationIntxWeightConfig",
        2,
        {
            "weight_dtype": dtype,
            "weight_granularity": granularity,
            "weight_mapping_type": mapping,
            "weight_scale_dtype": None,
            "act_mapping_type": _enum("MappingType", "ASYMMETRIC"),
            "intx_packing_format": packing,
            "intx_choose_qparams_algorithm": algorithm,
        },
    )


def _enum(kind: str, name: str) -> dict[str, str]:
    return {"_type": kind, "_data": name}


def _encoded(kind: str, version: int, data: dict[str, Any]) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": data}
