"""Migration of profiles from an older schema version to this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 2

_ARCHITECTURES = {
    "x86_64": ("avx", "sse", "amx"),
    "aarch64": ("neon", "asimd", "dotprod", "sve", "i8mm"),
}
_UNKNOWN = "unknown"


def migrate(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same profile in the schema of this version; a profile of this version is copied.

    From 1 to 2:

    schema_version      1 -> 2
    kind                new, required: "cpu", for version 1 knew no other device
    architecture        new, required: from the names in `isa` (avx…, amx… -> x86_64; neon, asimd… -> aarch64), else
                        "unknown"
    energy.pj_per_byte  one figure -> one for each level; what was given is that of "memory"

    Added, and left out by a version 1 profile: numa_nodes, memory_bytes, storage_bytes, caches, efficiency, scaling,
    tile, bandwidth_all_gb_s, boundary_overhead_us, channels_multiple, patterns, operators, energy.idle_w, the kind
    "paper" of a figure, and in a rule's `when` depthwise, weight_formats, group_sizes, min_sparsity, patterns, aligned.
    Everything else means what it meant, `rates_gmac_s` (without an `efficiency`: what is reached) included.

    The schema reports any other error in `data`.
    """
    new = dict(data)
    if new.get("schema_version") != 1:
        return new
    new["schema_version"] = 2
    new.setdefault("kind", "cpu")
    new.setdefault("architecture", _architecture(new.get("isa")))
    energy = new.get("energy")
    if isinstance(energy, Mapping) and isinstance(energy.get("pj_per_byte"), Mapping):
        new["energy"] = {**energy, "pj_per_byte": {"memory": energy["pj_per_byte"]}}
    return new


def _architecture(isa: object) -> str:
    names = [name for name in isa if isinstance(name, str)] if isinstance(isa, list | tuple) else []
    for architecture, starts in _ARCHITECTURES.items():
        if any(name.startswith(starts) for name in names):
            return architecture
    return _UNKNOWN
