"""The phases of a search: store, baselines, table, exploration, verification.

Each reads the run's state first and does what is missing, so a killed run goes on from there. It knows every folder
below it in `docs/architecture.md`. A phase takes what it uses as arguments; `search/_search.py` puts them in a row:
`build_store` gives the cost model, `evaluate_baselines` the trial factory, `measure_table` the table for `explore`.
Begin with `_store.py`. Another phase is one file.
"""

from ._baselines import baselines_of, bind_limits, evaluate_baselines
from ._blas import one_blas_thread
from ._clock import Clock
from ._cost_model import CostModel, guide_on_every_device
from ._explore import explore
from ._job_runner import JobRunner
from ._latency_table import latency_table, measure_latencies
from ._preflight import check_exports, check_results
from ._promotion import Promotion, as_screened
from ._record_facts import facts_of, record_facts
from ._screened_baselines import screened_baselines
from ._settle_repairs import settle_repairs
from ._store import build_error, build_store
from ._table import TableInputs, TablePolicy, measure_table, unsure_rows
from ._table_rows import affordable_rows
from ._trials import TrialFactory, screening_samples
from ._verify import VerifyInputs, verify_points

__all__ = [
    "Clock",
    "CostModel",
    "JobRunner",
    "Promotion",
    "TableInputs",
    "TablePolicy",
    "TrialFactory",
    "VerifyInputs",
    "affordable_rows",
    "as_screened",
    "baselines_of",
    "bind_limits",
    "build_error",
    "build_store",
    "check_exports",
    "check_results",
    "evaluate_baselines",
    "explore",
    "facts_of",
    "guide_on_every_device",
    "latency_table",
    "measure_latencies",
    "measure_table",
    "one_blas_thread",
    "record_facts",
    "screened_baselines",
    "screening_samples",
    "settle_repairs",
    "unsure_rows",
    "verify_points",
]
