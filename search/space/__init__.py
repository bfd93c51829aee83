"""From a task and the layers of a model to the search space, its uniform settings and its exact bounds.

Groups of layers, their ordered levels, structure that can be removed, and configs as JSON. It knows `task` and
`devices`. Begin with `_build.py`. A new choice for a layer is one axis in `_axes.py`.
"""

from ._build import bounds, build_space, check_reachable, estimate_bytes, native_scope, uniform_settings
from ._config import SCHEMA_VERSION, assignment_of, config_of, read_config, with_claims
from ._notes import kv_cache_remark, left_alone, products_remark, without_correction
from ._reduced import dominated_levels, narrow, relevant_costs, unpromising_levels
from ._saturation import SAFE, WIDE, saturation_remark
from ._structure import (
    Structured,
    find_structure,
    refuse_with_structure,
    remarks_on_structure,
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
    "dominated_levels",
    "estimate_bytes",
    "find_structure",
    "global_shares",
    "kv_cache_remark",
    "left_alone",
    "narrow",
    "native_scope",
    "plans",
    "products_remark",
    "read_config",
    "refuse_with_structure",
    "relevant_costs",
    "remarks_on_structure",
    "removed_anatomy",
    "removes_something",
    "saturation_remark",
    "threshold_settings",
    "uniform_settings",
    "unpromising_levels",
    "weights_of",
    "with_claims",
    "without_correction",
]
