"""Evaluation of candidates: a worker applies a candidate to its resident model and measures it.

The order from bottom to top: variants of layers, pruned models, the candidate model, the worker, jobs. A job is a
function of its fields and the data alone, so a worker may die at any moment. This folder knows `problem` and `space`.
Begin with `_jobs.py`; a new kind of job is one dataclass there.
"""

from ._candidate_model import CandidateModel
from ._incumbents import Incumbent, Incumbents
from ._jobs import (
    AnyJob,
    AnyOutcome,
    BuildVariants,
    EstimateSensitivity,
    EvaluateCandidate,
    EvaluateLowFidelity,
    Job,
    MeasureRows,
    Outcome,
    TrialJob,
    TryRepairs,
    run_job,
)
from ._pruned_model import PrunedModel, PrunedModelBuilder
from ._repair_trial import Apart, Repairs, RepairTrial, try_repairs
from ._results import BuiltVariant, EvaluationResult, SensitivityEstimate
from ._sensitivity_probe import SensitivityProbe, output_frame
from ._static_costs import LevelCosts, original_costs, static_costs
from ._structural_costs import exact_totals, macs_left, structure_bytes, structure_text
from ._variants import LayerVariants
from ._worker import Worker

__all__ = [
    "AnyJob",
    "AnyOutcome",
    "Apart",
    "BuildVariants",
    "BuiltVariant",
    "CandidateModel",
    "EstimateSensitivity",
    "EvaluateCandidate",
    "EvaluateLowFidelity",
    "EvaluationResult",
    "Incumbent",
    "Incumbents",
    "Job",
    "LayerVariants",
    "LevelCosts",
    "MeasureRows",
    "Outcome",
    "PrunedModel",
    "PrunedModelBuilder",
    "RepairTrial",
    "Repairs",
    "SensitivityEstimate",
    "SensitivityProbe",
    "TrialJob",
    "TryRepairs",
    "Worker",
    "exact_totals",
    "macs_left",
    "original_costs",
    "output_frame",
    "run_job",
    "static_costs",
    "structure_bytes",
    "structure_text",
    "try_repairs",
]
