"""Values that the whole search shares: a candidate, a trial, an objective, a limit, a table.

They are frozen, hold no torch module and read no file. This room knows no other room of the search.
Begin with `_space.py` (the decisions) and `_trial.py` (the outcomes of candidates). A new value that two rooms
exchange belongs here.
"""

from ._least_gain import LEAST_SAVING, LeastGain
from ._limit_expressions import SAMPLES, parse_limits
from ._limits import PICKS, Bounds, Limits, misses, parse_bounds, violation
from ._metric_names import (
    COUNTED,
    MEMORY,
    MODELLED,
    MetricName,
    base_name,
    metric_on_device,
    metrics_on_device,
    not_measured,
    of_first_device,
    static_measurements,
)
from ._objective import Objective, vectors
from ._output_perturbations import OutputPerturbations, Superposition
from ._packed import pack_losses, pack_values, unpack_losses, unpack_values
from ._pareto import crowding, fronts, hypervolume, knee, non_dominated, spread, unique_rows
from ._reason import reason
from ._sensitivity_row import Row, base_levels
from ._sensitivity_table import SensitivityTable
from ._space import Candidate, Group, SearchSpace, space_from_dict, space_to_dict
from ._structural_names import block_name, is_structural, layers_of, structure_of, without_structure
from ._trial import (
    STATUS,
    Completed,
    EarlyStopped,
    Failed,
    Infeasible,
    Kind,
    LowFidelity,
    Trial,
    trial_from_record,
    trial_to_record,
)

__all__ = [
    "COUNTED",
    "LEAST_SAVING",
    "MEMORY",
    "MODELLED",
    "PICKS",
    "SAMPLES",
    "STATUS",
    "Bounds",
    "Candidate",
    "Completed",
    "EarlyStopped",
    "Failed",
    "Group",
    "Infeasible",
    "Kind",
    "LeastGain",
    "Limits",
    "LowFidelity",
    "MetricName",
    "Objective",
    "OutputPerturbations",
    "Row",
    "SearchSpace",
    "SensitivityTable",
    "Superposition",
    "Trial",
    "base_levels",
    "base_name",
    "block_name",
    "crowding",
    "fronts",
    "hypervolume",
    "is_structural",
    "knee",
    "layers_of",
    "metric_on_device",
    "metrics_on_device",
    "misses",
    "non_dominated",
    "not_measured",
    "of_first_device",
    "pack_losses",
    "pack_values",
    "parse_bounds",
    "parse_limits",
    "reason",
    "space_from_dict",
    "space_to_dict",
    "spread",
    "static_measurements",
    "structure_of",
    "trial_from_record",
    "trial_to_record",
    "unique_rows",
    "unpack_losses",
    "unpack_values",
    "vectors",
    "violation",
    "without_structure",
]
