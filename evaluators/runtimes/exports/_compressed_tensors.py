"""Export as a Hugging Face folder with a `quantization_config` of compressed-tensors, for transformers and vLLM.

What it does   `huggingface/config.json` and `huggingface/model.safetensors`. Weights of linear layers: "pack-quantized"
               (2 to 8 bits, a scale for each output channel or group, with or without zero points), or "int-quantized"
               where 8-bit weights meet 8-bit activations (per tensor with a stored scale, or per token)
Source         compressed-tensors 0.20 (Apache-2.0), `compressors/pack_quantized` and `compressors/naive_quantized`;
               written without it
We differ      groups name their layers one by one, since a search gives each its own
               What is left alone keeps the number type of the model's source, and a tied tensor is written once
Not expressed  other layers than nn.Linear, palettes and other tables, low rank, short last groups, tied weights: dense
               weights with the very same numbers (rounded to a source of half precision), noted. Integer activations
               of such a layer: an error
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....compressors.anatomy import FUSED_KINDS
from ....compressors.values import weight_name
from ....errors import ConfigError
from .._base import ExportError
from ._format import Notes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant

FORMAT = "compressed-tensors"
FOLDER = "huggingface"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
VERSION = "0.20.0"
"""Version of the library that defines this layout."""

PACKED, INTEGER, MIXED = "pack-quantized", "int-quantized", "mixed-precision"


def export_compressed_tensors(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
) -> Path:
    """Write the folder `out/huggingface` and the notes; return its `config.json`. See `Runtime.export`.

    A model of transformers gives its own config; another one's holds the `quantization_config` alone, which
    compressed-tensors reads and transformers does not. Raises `ExportError` naming layer and spec.
    """
    from safetensors.torch import save_file

    notes = Notes(format=FORMAT)
    tensors, config = compressed_state(model, assignment, variants, calibration, notes)
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    path = folder / CONFIG_FILE
    path.write_text(json.dumps({**_model_config(model), "quantization_config": config}, indent=2) + "\n", "utf-8")
    notes.save(out)
    return path


def compressed_state(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    notes: Notes,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors of the file, the `quantization_config`)."""
    import torch
    from torch import nn

    from ....compressors.anatomy import source_dtypes

    names = _stored_names(model)
    tied = {other for other, name in names.items() if other != name}
    tied |= {names[other] for other in tied}
    groups: dict[str, dict[str, Any]] = {}
    replaced: dict[str, dict[str, Tensor]] = {}
    dense: dict[str, Tensor] = {}
    for fqn, spec in assignment.items():
        if spec.is_neutral:
            continue
        variant = variants.get(fqn)
        if spec.changes_weight and variant is None:
            raise ConfigError(f"no compressed weight was given for {fqn}, whose spec is {spec.label()}")
        reason = _cannot(model, fqn, spec, tied)
        if reason is not None:
            if spec.changes_activation:
                raise ExportError(
                    f"{fqn} is {spec.label()}: compressed-tensors cannot express it, because {reason}; leave its "
                    "activation_bits at 32 (its weight is then written dense, with the same numbers), or take the "
                    "format 'onnx' or 'paredown'"
                )
            assert variant is not None
            name = names[weight_name(fqn)]
            found = _dense(variant, spec, source_dtypes(model).get(name, ""))
            if not torch.equal(dense.setdefault(name, found), found):
                raise ConfigError(f"{fqn} and another layer share {name}, and must get the same treatment")
            same = bool(torch.equal(found.float(), variant.effective.float()))
            numbers = "same numbers" if same else f"rounded to {_type(found)}, the type of the source"
            notes.fell_back(fqn, f"{reason}: dense weight, {numbers}")
            notes.written_as[fqn] = "dense"
            continue
        assert variant is not None
        scheme = _scheme(spec)
        group = groups.setdefault(json.dumps(scheme, sort_keys=True), {"targets": [], **scheme})
        group["targets"].append(fqn)
        replaced[fqn] = _weight_tensors(variant, spec, scheme) | _input_tensors(fqn, spec, calibration)
        notes.written_as[fqn] = scheme["format"]
    state = _plain_state(model, {names[weight_name(fqn)] for fqn in replaced} | set(dense))
    for fqn, tensors in replaced.items():
        named = {weight_name(fqn) if name == "weight" else f"{fqn}.{name}": t for name, t in tensors.items()}
        state |= {name: tensor.contiguous().clone() for name, tensor in named.items()}
    state |= {name: tensor.contiguous().clone() for name, tensor in dense.items()}
    targets = {fqn for group in groups.values() for fqn in group["targets"]}
    ignore = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in targets]
    return state, _config(list(groups.values()), ignore)


def _config(groups: list[dict[str, Any]], ignore: list[str]) -> dict[str, Any]:
    formats = sorted({group["format"] for group in groups})
    return {
        "quant_method": "compressed-tensors",
        "version": VERSION,
        "format": MIXED if len(formats) > 1 else formats[0] if formats else "dense",
        "quantization_status": "compressed",
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
        "ignore": ignore,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "sparsity_config": {},
        "transform_config": {},
    }


def _cannot(model: nn.Module, fqn: str, spec: LayerSpec, tied: set[str]) -> str | None:
    from torch import nn

    from ....compressors import module_at
    from ....compressors.anatomy import holder_of, kind_at

    if kind_at(model, fqn) in FUSED_KINDS:
        return f"it quantizes nn.Linear, and this is a weight inside {type(holder_of(model, fqn)[0]).__name__}"
    module = module_at(model, fqn)
    if not isinstance(module, nn.Linear):
        return f"it quantizes nn.Linear, and this is {type(module).__name__}"
    if weight_name(fqn) in tied:
        return "its weight is tied to another layer's"
    if not spec.changes_weight or spec.weight_bits == 32:
        return (
            "it has no integer activations without integer weights"
            if spec.changes_activation
            else "it is not quantized"
        )
    if spec.rank < 1.0:
        return "it has no factorized weights"
    if spec.weight_format not in ("int", "int_asym"):
        return f"it has no {spec.weight_format!r} weights"
    if spec.block[0] > 1:
        return f"its groups lie in a row, and {spec.group_size} has several"
    if isinstance(spec.group_size, int) and spec.group_size and module.in_features % spec.group_size:
        return f"its groups divide the row, and {spec.group_size} does not divide {module.in_features}"
    return None


def _scheme(spec: LayerSpec) -> dict[str, Any]:
    is_grouped = isinstance(spec.group_size, int) and spec.group_size > 0
    weights = {
        "num_bits": spec.weight_bits,
        "type": "int",
        "symmetric": spec.weight_format == "int",
        "strategy": "group" if is_grouped else "channel",
        "group_size": spec.group_size if is_grouped else None,
        "dynamic": False,
    }
    inputs = None
    if spec.changes_activation:
        inputs = {
            "num_bits": spec.activation_bits,
            "type": "int",
            "symmetric": spec.activation_scheme == "symmetric",
            "strategy": "tensor" if spec.needs_range else "token",
            "group_size": None,
            "dynamic": not spec.needs_range,
        }
    is_integer = inputs is not None and spec.weight_bits == 8
    return {
        "weights": weights,
        "input_activations": inputs,
        "output_activations": None,
        "format": INTEGER if is_integer else PACKED,
    }


def _weight_tensors(variant: Variant, spec: LayerSpec, scheme: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    from ._packed import pack_words

    even = variant.even_codes()
    assert even is not None, "other weights were left dense"
    (codes, zero), scale = even.signed(), even.scale
    if scheme["format"] == INTEGER:
        found = {"weight": codes, "weight_scale": scale}
        return found | ({} if zero is None else {"weight_zero_point": zero})
    packed = torch.from_numpy(pack_words(codes.numpy(), spec.weight_bits))
    found = {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor(variant.effective.shape)}
    if zero is not None:  # packed along the rows
        found["weight_zero_point"] = torch.from_numpy(pack_words(zero.T.contiguous().numpy(), spec.weight_bits)).T
    return found


def _input_tensors(fqn: str, spec: LayerSpec, calibration: Calibration | None) -> dict[str, Tensor]:
    import torch

    from ....compressors import rounding_of

    if not spec.needs_range:
        return {}
    rounding = rounding_of(calibration, fqn, spec)
    if rounding.input is None or rounding.input_at != fqn or rounding.output is not None:
        raise ExportError(
            f"{fqn} is {spec.label()}: compressed-tensors rounds what a layer reads, for it alone, and "
            f"activation_scope {spec.activation_scope!r} rounds {rounding.output_at or rounding.input_at} for all that "
            "read it; give the layer activation_scope 'layer', or take the format 'onnx' or 'paredown'"
        )
    if any(params != rounding.input for params in rounding.calls):
        raise ExportError(
            f"{fqn} is {spec.label()} and runs {len(rounding.calls)} times in a pass, each time with an input range of "
            "its own, and compressed-tensors stores one; give the layer activation_scheme 'dynamic', leave its "
            "activation_bits at 32, or take the format 'onnx' or 'paredown'"
        )
    scale, zero_point = rounding.input
    found = {"input_scale": torch.tensor([scale])}
    if spec.activation_scheme != "symmetric":
        found["input_zero_point"] = torch.tensor([zero_point - 2 ** (spec.activation_bits - 1)], dtype=torch.int8)
    return found


def _dense(variant: Variant, spec: LayerSpec, source: str) -> Tensor:
    """Dense weight in its stored type where that is a cast of the whole weight, or in the narrower type of its source.

    Whoever loads the folder in the source's type rounds it so anyway.
    """
    import torch

    if spec.weight_bits == 16 and spec.rank >= 1.0:
        return variant.effective.to(variant.tensors["values"].dtype)
    dtype: torch.dtype = getattr(torch, source or "float32")
    return variant.effective.to(dtype) if dtype.itemsize < 4 else variant.effective


def _plain_state(model: nn.Module, replaced: set[str]) -> dict[str, Tensor]:
    """Remaining tensors of the model in the types of its source; a tensor of several names gets the first."""
    from ....compressors.anatomy import source_dtypes, stored_dtype

    sources = source_dtypes(model)
    kept = model.state_dict().keys() - replaced
    found = {}
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        if name in kept:
            plain = tensor.detach().cpu()
            found[name] = plain.to(stored_dtype(plain, sources.get(name, ""))).contiguous().clone()
    return found


def _stored_names(model: nn.Module) -> dict[str, str]:
    """Map each name of a parameter to the name under which it is written: its first, whichever of its modules runs."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _model_config(model: nn.Module) -> dict[str, Any]:
    """Config of a transformers model; empty for any other model."""
    from ....compressors.anatomy import main_source_dtype

    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_diff_dict", None)
    if not callable(to_dict):
        return {}
    data: dict[str, Any] = json.loads(json.dumps(to_dict(), default=str))
    data.setdefault("architectures", [type(model).__name__])
    if not data["architectures"]:
        data["architectures"] = [type(model).__name__]
    data["dtype"] = main_source_dtype(model)  # of what is not quantized
    return data
