"""Contract suites: what a metric, a compressor, a searcher or a runtime of your own must do to be used by paredown.

Each `check_…` runs every clause of one protocol and raises `AssertionError` naming the clause that is broken.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOME_OF = {
    "AWKWARD": "._models",
    "ContractViolation": "._elsewhere",
    "STRUCTURES": "._structures",
    "SyntheticProblem": "._problems",
    "check_compressor": "._compressors",
    "check_evaluator": "._evaluators",
    "check_metric": "._evaluators",
    "check_runtime": "._runtimes",
    "check_searcher": "._searchers",
    "isolated_registries": "._registries",
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


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
