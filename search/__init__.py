"""The search: it proposes candidates, runs them on workers, and remembers every result.

`search` drives a run from a task to a verified front; `resume` goes on with one; `open_run` reads one. Everything is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .._module import make_callable

if TYPE_CHECKING:
    from ._export import apply_config, export_point
    from ._methods import METHOD_KINDS, Method, list_methods
    from ._plan import Plan, plan
    from ._run_view import Run, open_run
    from ._search import resume, search
    from ._verify_artifact import EMBEDDED, verify_artifact
    from .artifacts._diff import diff
    from .artifacts._manifest import load
    from .front._front import Front, Point
    from .resolution import Resolution, resolve
    from .run._progress import Progress
    from .searchers import SearchContext, Searcher, register_searcher
    from .task._axes import register_axis
    from .task._axis import Axis
    from .task._task import Task, task_schema
    from .values import Objective, SensitivityTable
    from .values._space import Candidate, Group, SearchSpace
    from .values._trial import Completed, EarlyStopped, Failed, Infeasible, LowFidelity, Trial

_HOMES = {
    ".values": ("Objective", "SensitivityTable"),
    "._export": (
        "apply_config",
        "export_point",
    ),
    "._methods": (
        "METHOD_KINDS",
        "Method",
        "list_methods",
    ),
    "._plan": (
        "Plan",
        "plan",
    ),
    "._run_view": (
        "Run",
        "open_run",
    ),
    "._search": (
        "resume",
        "search",
    ),
    "._verify_artifact": (
        "EMBEDDED",
        "Axis",
        "verify_artifact",
    ),
    ".artifacts._diff": ("diff",),
    ".artifacts._manifest": ("load",),
    ".front._front": (
        "Front",
        "Point",
    ),
    ".resolution": (
        "Resolution",
        "resolve",
    ),
    ".run._progress": ("Progress",),
    ".searchers": ("SearchContext", "Searcher", "register_searcher"),
    ".task._axes": ("register_axis",),
    ".task._axis": ("Axis",),
    ".task._task": (
        "Task",
        "task_schema",
    ),
    ".values._space": (
        "Candidate",
        "Group",
        "SearchSpace",
    ),
    ".values._trial": (
        "Completed",
        "EarlyStopped",
        "Failed",
        "Infeasible",
        "LowFidelity",
        "Trial",
    ),
}

__all__ = [
    "EMBEDDED",
    "METHOD_KINDS",
    "Axis",
    "Candidate",
    "Completed",
    "EarlyStopped",
    "Failed",
    "Front",
    "Group",
    "Infeasible",
    "LowFidelity",
    "Method",
    "Objective",
    "Plan",
    "Point",
    "Progress",
    "Resolution",
    "Run",
    "SearchContext",
    "SearchSpace",
    "Searcher",
    "SensitivityTable",
    "Task",
    "Trial",
    "apply_config",
    "diff",
    "export_point",
    "list_methods",
    "load",
    "open_run",
    "plan",
    "register_axis",
    "register_searcher",
    "resolve",
    "resume",
    "search",
    "task_schema",
    "verify_artifact",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)

make_callable(__name__)  # `paredown.search` is this package and its function
