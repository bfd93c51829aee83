"""The phases of a search: store, baselines, table, exploration, verification.

Each looks at the ledger first and does what is missing, so a killed run goes on from there. It knows every room above
it in the list of `docs/architecture.md`. Begin with `_session.py` (what the phases share). Another phase is one file.
"""

from ._blas import one_blas_thread
from ._explore import explore
from ._promotion import Promotion, as_screened
from ._screened_baselines import screened_baselines
from ._session import SearchSession
from ._store_and_baselines import baselines_of, build_store, evaluate_baselines
from ._table import measure_table, unsure
from ._verify import export_original, verify_points

__all__ = [
    "Promotion",
    "SearchSession",
    "as_screened",
    "baselines_of",
    "build_store",
    "evaluate_baselines",
    "explore",
    "export_original",
    "measure_table",
    "one_blas_thread",
    "screened_baselines",
    "unsure",
    "verify_points",
]
