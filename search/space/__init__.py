"""From a task and the layers of a model to the search space, its uniform settings and its exact bounds.

Groups of layers, their ordered levels, structure that can be removed, and configs as JSON. It knows `task` and
`devices`. Begin with `_build.py`. A new choice for a layer is one axis in `_axes.py`.
"""

from ._build import bounds, build_space, check_reachable, estimate_bytes, native_scope, uniform_settings
from ._config import SCHEMA_VERSION, assignment_of, config_of, read_config, with_claims
from ._notes import describe_kv_cache, describe_left_alone, describe_products, without_correction
from ._reduced import dominated_levels, reduce_space, relevant_costs, unpromising_levels
from ._saturation import SAFE, WIDE, describe_saturation
from ._structure import (
    Structured,
    describe_structure_left,
    find_structure,
    refuse_with_structure,
    removed_anatomy,
    removes_something,
    threshold_settings,
)
from ._thresholds import global_shares, plans, weights_of

__all__ = [
    "SAFE",
    "SCHEMA_VERSION",
    "WIDE",
    "Structured",
    "assignment_of",
    "bounds",
    "build_space",
    "check_reachable",
    "config_of",
    "describe_kv_cache",
    "describe_left_alone",
    "describe_products",
    "describe_saturation",
    "describe_structure_left",
    "dominated_levels",
    "estimate_bytes",
    "find_structure",
    "global_shares",
    "native_scope",
    "plans",
    "read_config",
    "reduce_space",
    "refuse_with_structure",
    "relevant_costs",
    "removed_anatomy",
    "removes_something",
    "threshold_settings",
    "uniform_settings",
    "unpromising_levels",
    "weights_of",
    "with_claims",
    "without_correction",
]
