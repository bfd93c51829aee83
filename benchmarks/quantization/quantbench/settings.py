"""What is tried, everywhere the same: specs by name."""

from __future__ import annotations

from typing import Any

from paredown.compressors import LayerSpec

Ways = dict[str, dict[str, Any]]

ALWAYS: Ways = {
    "round to nearest": {"weight_method": "minmax"},
    "affine": {},
    "gptq": {"weight_method": "gptq"},
    "descent": {"weight_method": "descent"},
    "int_asym gptq": {"weight_method": "gptq", "weight_format": "int_asym", "scale_bits": 16},
    "int_asym descent": {"weight_method": "descent", "weight_format": "int_asym", "scale_bits": 16},
    "palette descent": {"weight_method": "descent", "weight_format": "palette", "scale_bits": 16},
}
"""At 8 (where the format has it), 6, 5, 4, 3 and 2 bits."""

LOW: Ways = {
    "percentile": {"weight_method": "percentile"},
    "entropy": {"weight_method": "entropy"},
    "weighted": {"weight_method": "weighted"},
    "all codes": {"weight_method": "all_codes"},
    "auto": {"weight_method": "auto"},
    "awq": {"weight_method": "awq"},
    "adaround": {"weight_method": "adaround"},
    "gptq in 4x16 blocks": {"weight_method": "gptq", "group_size": "4x16", "scale_bits": 16},
    "hqq": {"weight_method": "hqq"},
    "int_asym": {"weight_format": "int_asym", "scale_bits": 16},
    "int_asym hqq": {"weight_method": "hqq", "weight_format": "int_asym", "scale_bits": 16},
    "palette": {"weight_format": "palette", "scale_bits": 16},
    "palette weighted": {"weight_method": "weighted", "weight_format": "palette", "scale_bits": 16},
    "palette gptq": {"weight_method": "gptq", "weight_format": "palette", "scale_bits": 16},
    "adaptive method": {"weight_method": "adaptive"},
    "adaptive format gptq": {"weight_method": "gptq", "weight_format": "adaptive", "scale_bits": 16},
    "pow2": {"weight_format": "pow2"},
    "apot": {"weight_format": "apot"},
    "log": {"weight_format": "log"},
    "apot gptq": {"weight_method": "gptq", "weight_format": "apot"},
    "nf4": {"weight_format": "nf4"},
    "nf4 gptq": {"weight_method": "gptq", "weight_format": "nf4"},
}
"""At 4, 3 and 2 bits."""

FLOATS: Ways = {
    "fp16": {"weight_bits": 16, "weight_format": "fp16"},
    "bf16": {"weight_bits": 16, "weight_format": "bf16"},
    "fp8_e4m3": {"weight_bits": 8, "weight_format": "fp8_e4m3"},
    "fp8_e5m2": {"weight_bits": 8, "weight_format": "fp8_e5m2"},
}

ACTIVATIONS: Ways = {
    "W8A8": {"weight_bits": 8, "activation_bits": 8},
    "W8A8 affine": {"weight_bits": 8, "activation_bits": 8, "activation_method": "affine"},
    "W8A8 percentile": {"weight_bits": 8, "activation_bits": 8, "activation_method": "percentile"},
    "W8A8 entropy": {"weight_bits": 8, "activation_bits": 8, "activation_method": "entropy"},
    "W8A8 symmetric": {"weight_bits": 8, "activation_bits": 8, "activation_scheme": "symmetric"},
    "W8A8 dynamic": {"weight_bits": 8, "activation_bits": 8, "activation_scheme": "dynamic"},
    "W4A8 gptq": {"weight_bits": 4, "activation_bits": 8, "weight_method": "gptq"},
    "W4A6 gptq": {"weight_bits": 4, "activation_bits": 6, "weight_method": "gptq"},
    "W4A4 gptq": {"weight_bits": 4, "activation_bits": 4, "weight_method": "gptq"},
}

REPAIRS: dict[str, tuple[bool, bool]] = {" + bias": (True, False), " + bias, norms": (True, True)}
"""Suffix of a setting's name -> whether biases, and batch norms, are repaired."""
REPAIRED = (
    "W8A8",
    *(f"W{bits} {way}" for bits in (4, 3, 2) for way in ("affine", "gptq", "descent", "palette descent")),
)
"""Settings that are tried with each of these too, where the model has something to repair."""

GROUPED = ("round to nearest", "affine", "gptq", "descent", "awq", "hqq", "int_asym gptq", "int_asym hqq")
"""Once more with groups of 64 at 4, 3 and 2 bits, for models whose rows are longer than that."""


def settings(group_size: int = 0) -> dict[str, LayerSpec]:
    """Name -> spec; combinations that there are not (an 8-bit palette) are left out."""
    from paredown.compressors import FORMAT_BITS

    found: dict[str, LayerSpec] = {}
    for bits in (4, 3, 2) if group_size else (8, 6, 5, 4, 3, 2):
        for name, way in {**ALWAYS, **(LOW if bits <= 4 else {})}.items():
            if bits not in FORMAT_BITS[way.get("weight_format", "int")] or (group_size and name not in GROUPED):
                continue
            grouped = f" g{group_size}" if group_size else ""
            found[f"W{bits} {name}{grouped}"] = LayerSpec(**{"weight_bits": bits, "group_size": group_size, **way})
    if not group_size:
        found |= {name: LayerSpec(**way) for name, way in {**FLOATS, **ACTIVATIONS}.items()}
    return found
