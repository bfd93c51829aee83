"""Contract suites for your own metric, compressor, searcher or runtime.

Each `check_…` runs every clause of one protocol and raises `AssertionError` naming the clause that is broken. It knows
all of paredown below the command line. Begin with the file of your protocol: `_compressors.py`, `_evaluators.py`,
`_runtimes.py` or `_searchers.py`. Awkward models for all suites are in `_models.py` and `_structures.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._compressors import check_compressor
    from ._elsewhere import ContractViolation
    from ._evaluators import check_evaluator, check_metric
    from ._models import AWKWARD
    from ._problems import SyntheticProblem
    from ._registries import isolated_registries
    from ._runtimes import check_runtime
    from ._searchers import check_searcher
    from ._structures import STRUCTURES

_HOMES = {
    "._compressors": ("check_compressor",),
    "._elsewhere": ("ContractViolation",),
    "._evaluators": (
        "check_evaluator",
        "check_metric",
    ),
    "._models": ("AWKWARD",),
    "._problems": ("SyntheticProblem",),
    "._registries": ("isolated_registries",),
    "._runtimes": ("check_runtime",),
    "._searchers": ("check_searcher",),
    "._structures": ("STRUCTURES",),
}

__all__ = [
    "AWKWARD",
    "STRUCTURES",
    "ContractViolation",
    "SyntheticProblem",
    "check_compressor",
    "check_evaluator",
    "check_metric",
    "check_runtime",
    "check_searcher",
    "isolated_registries",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
