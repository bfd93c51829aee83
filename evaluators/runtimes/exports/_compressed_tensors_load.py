"""Reader of files of `_compressed_tensors`, as a reference for other tools' results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import InputError, IntegrityError
from ._compressed_tensors import WEIGHTS_FILE
from ._packed import unpack_words

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_compressed_tensors(path: Path, model: nn.Module) -> nn.Module:
    """Load the weights of the folder around `path` (its config.json), decoded, into `model`, with its input quantizers.

    A model in half precision becomes FP32, for it could not hold the decoded weights.

    Raises `IntegrityError` for a file that contradicts its config, `InputError` for another method or another model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ....compressors import module_at

    config = _quantization_config(path)
    try:
        tensors = load_file(path.parent / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path.parent / WEIGHTS_FILE} cannot be read: {error}; export it again") from error
    for group in config["config_groups"].values():
        for fqn in group["targets"]:
            own = {
                name.removeprefix(f"{fqn}."): tensors.pop(name)
                for name in list(tensors)
                if name.startswith((f"{fqn}.weight", f"{fqn}.input_"))
            }
            try:
                tensors[f"{fqn}.weight"] = decode_weight(own, group["weights"])
            except (KeyError, ValueError, RuntimeError) as error:
                raise IntegrityError(f"{path.parent}: the weight of {fqn} contradicts the config: {error}") from error
            if group["input_activations"] is not None:
                quantizer = _input_quantizer(own, group["input_activations"])
                module_at(model, fqn).register_forward_pre_hook(quantizer, with_kwargs=True)
    if any(t.is_floating_point() and t.dtype.itemsize < 4 for t in model.state_dict().values()):
        model.float()
    with torch.no_grad():
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    present = {id(value) for name, value in model.named_parameters() if name in tensors}
    tied = dict(model.named_parameters(remove_duplicate=False))
    missing = [name for name in missing if id(tied.get(name)) not in present]
    if missing or unexpected:
        raise InputError(f"{path.parent} belongs to another model: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model


def decode_weight(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> Tensor:
    """Decode float32 (out, in) of one linear layer. Raises `KeyError` or `ValueError` where a tensor is missing or
    invalid.
    """
    import torch

    bits, scale = int(args["num_bits"]), tensors["weight_scale"].float()
    zero = tensors.get("weight_zero_point")
    if "weight_packed" in tensors:
        rows, columns = (int(n) for n in tensors["weight_shape"])
        codes = torch.from_numpy(unpack_words(tensors["weight_packed"].numpy(), bits, columns))
        if zero is not None:
            zero = torch.from_numpy(unpack_words(zero.T.contiguous().numpy(), bits, rows)).T
    else:
        codes = tensors["weight"]
    if args["symmetric"] is (zero is not None):
        raise ValueError("zero points and the config's symmetric do not fit")
    repeat = codes.shape[1] // scale.shape[1]
    values = codes.float()
    if zero is not None:
        values = values - zero.float().repeat_interleave(repeat, dim=1)
    return values * scale.repeat_interleave(repeat, dim=1)


def _input_quantizer(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> Any:
    from ....compressors import ActivationQuantizer
    from ....compressors.quantization import DynamicQuantizer

    bits = int(args["num_bits"])
    if args["dynamic"]:
        return DynamicQuantizer(bits)
    zero = int(tensors["input_zero_point"]) if "input_zero_point" in tensors else 0
    return ActivationQuantizer(float(tensors["input_scale"]), zero + 2 ** (bits - 1), bits)


def _quantization_config(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["quantization_config"]
        method = data["quant_method"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} holds no quantization_config ({error}); export it again") from error
    if method != "compressed-tensors":
        raise InputError(f"{path} is quantized by {method!r}; expected 'compressed-tensors'")
    config: dict[str, Any] = data
    return config
