"""What a worker does: it builds variants, applies a candidate to its resident model, and measures it.

Every job is a pure function of the candidate and the samples, so a worker may die at any moment. It knows `problem`
and `space`. Begin with `_jobs.py` (the jobs) and `_worker.py` (who runs them). A new kind of job is one dataclass in
`_jobs.py`.
"""

from ._incumbents import EvaluationResult, Incumbents
from ._jobs import Job, Outcome, run_job
from ._sensitivity_rows import Rows, output_frame
from ._static_costs import Static, original_costs, static_costs
from ._structural_costs import exact_totals, macs_left, structure_bytes, structure_text
from ._worker import Worker

__all__ = [
    "EvaluationResult",
    "Incumbents",
    "Job",
    "Outcome",
    "Rows",
    "Static",
    "Worker",
    "exact_totals",
    "macs_left",
    "original_costs",
    "output_frame",
    "run_job",
    "static_costs",
    "structure_bytes",
    "structure_text",
]
