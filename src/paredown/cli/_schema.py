"""JSON Schemas of the files that people write."""

from __future__ import annotations

import dataclasses
from typing import Any


def schema_of(kind: str) -> dict[str, Any]:
    """Make the JSON Schema of a `kind` of file: "task", "config" or "profile"."""
    if kind == "task":
        from ..search import task_schema

        return task_schema()
    if kind == "profile":
        from .. import hardware_profiles

        return hardware_profiles.schema()
    return config_schema()


def config_schema() -> dict[str, Any]:
    """Make the JSON Schema of a config. A layer that is not named, or a key that is left out, is left alone."""
    from ..compressors import ACTIVATION_BITS, FORMAT_BITS, WEIGHT_BITS, LayerSpec
    from ..compressors.values import ACTIVATION_SCHEMES, ACTIVATION_SCOPES, SCALE_BITS
    from ..search.space import SCHEMA_VERSION

    about: dict[str, dict[str, Any]] = {
        "weight_bits": {"enum": list(WEIGHT_BITS)},
        "activation_bits": {"enum": list(ACTIVATION_BITS)},
        "weight_format": {"enum": list(FORMAT_BITS)},
        "group_size": {
            "type": ["integer", "string"],
            "description": "weights that share a scale; 0: a row, 'tensor', or a block such as '32x32'",
        },
        "scale_bits": {"enum": list(SCALE_BITS)},
        "activation_scheme": {"enum": list(ACTIVATION_SCHEMES)},
        "activation_scope": {"enum": list(ACTIVATION_SCOPES)},
        "sparsity": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "description": "share of zero weights"},
        "rank": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "share of the full rank; 1 is whole",
        },
    }
    fields = {
        field.name: {**about.get(field.name, {"type": "string"}), "default": field.default}
        for field in dataclasses.fields(LayerSpec)
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "paredown config",
        "type": "object",
        "additionalProperties": False,
        "required": ["schema_version", "layers"],
        "properties": {
            "schema_version": {"const": SCHEMA_VERSION},
            "layers": {
                "type": "object",
                "description": "the layer's full name in the model -> what is done to it",
                "additionalProperties": {"type": "object", "additionalProperties": False, "properties": fields},
            },
            "claims": {
                "type": "object",
                "description": "metric -> measurement, as it was known when the config was exported; `source` says "
                "measured, predicted or modelled. Not read when the config is applied",
            },
        },
    }
