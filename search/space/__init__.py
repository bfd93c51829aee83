"""The search space, made of a task and the layers of a model, with its uniform settings and its exact bounds.

Groups of layers, their ordered levels, structure that can be removed, and configs as JSON. It knows `task` and
`devices`. Begin with `_build.py`, then `_levels.py`. A new choice for a layer is one `Axis` (`search/task/_axis.py`).
"""

from ._bounds import check_reachable
from ._build import build_space
from ._config import SCHEMA_VERSION, assignment_of, config_of, read_config, with_claims
from ._estimate import estimate_bytes
from ._find_structure import find_structure
from ._keeps import removes_something
from ._narrowed import check_statistics, describe_without_moments, narrowed
from ._notes import (
    describe_calls,
    describe_kv_cache,
    describe_left_alone,
    describe_products,
    describe_structure_left,
    describe_unmasked,
    without_correction,
)
from ._places import ParameterPlace, describe_places, parameter_places
from ._reduced import dominated_levels, reduce_space, relevant_costs, unpromising_levels
from ._saturation import SAFE, WIDE, describe_saturation
from ._scope import native_scope
from ._structural_groups import threshold_settings
from ._structured import Structured, removed_anatomy
from ._thresholds import global_shares, plans, weights_of
from ._uniform import uniform_settings
from ._validate import refuse_with_structure

__all__ = [
    "SAFE",
    "SCHEMA_VERSION",
    "WIDE",
    "ParameterPlace",
    "Structured",
    "assignment_of",
    "build_space",
    "check_reachable",
    "check_statistics",
    "config_of",
    "describe_calls",
    "describe_kv_cache",
    "describe_left_alone",
    "describe_places",
    "describe_products",
    "describe_saturation",
    "describe_structure_left",
    "describe_unmasked",
    "describe_without_moments",
    "dominated_levels",
    "estimate_bytes",
    "find_structure",
    "global_shares",
    "narrowed",
    "native_scope",
    "parameter_places",
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
