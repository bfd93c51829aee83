"""JSON Schemas of the files that people write."""

from __future__ import annotations

from typing import Any

_NAMED = (
    ("SearchSection", "searcher", "searcher"),
    ("QualitySection", "metric", "metric"),
    ("HardwareSection", "runtime", "runtime"),
    ("ObjectivesSection", "names", "objective"),
    ("SpaceSection", "weight_method", "weight_method"),
    ("SpaceSection", "weight_format", "weight_format"),
    ("SpaceSection", "activation_method", "activation_method"),
    ("SpaceSection", "activation_scheme", "activation_scheme"),
    ("SpaceSection", "activation_scope", "activation_scope"),
    ("SpaceSection", "sparsity_method", "sparsity_method"),
    ("SpaceSection", "sparsity_pattern", "sparsity_pattern"),
    ("SpaceSection", "rank_method", "rank_method"),
    ("SpaceSection", "rank_form", "rank_form"),
    ("SpaceSection", "keep_method", "keep_method"),
)
"""(section, key, kind of the methods that it names)."""


def schema_of(kind: str) -> dict[str, Any]:
    """Make the JSON Schema of a `kind` of file: "task", "config" or "profile"."""
    if kind == "task":
        from ..search import task_schema

        return with_names(task_schema())
    if kind == "profile":
        from .. import hardware_profiles

        return hardware_profiles.schema()
    return config_schema()


def config_schema() -> dict[str, Any]:
    """Make the JSON Schema of a config. A layer that is not named, or a key that is left out, is left alone."""
    from ..compressors.values import spec_fields
    from ..search.space import SCHEMA_VERSION

    fields = {field.name: {**field.schema, "default": field.neutral} for field in spec_fields()}
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


def with_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Add to a task's schema the names that its keys can hold, as examples. More are legal: those of plugins."""
    from ..search import list_methods

    for section, key, kind in _NAMED:
        known = schema["$defs"][section]["properties"][key]
        names = [method.name for method in list_methods(kind)]
        known["examples"] = names if known.get("type") == "string" else [[name] for name in names]
    return schema
