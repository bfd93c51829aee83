"""What to try next, who runs it, and what is remembered.

`search` drives a run from a task to a verified front; `resume` goes on with one; `open_run` reads one. Everything is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .._module import make_callable

if TYPE_CHECKING:
    from ._export import apply_config, export_point
    from ._search import resume, search
    from ._verify_artifact import verify_artifact
    from .artifacts._diff import diff
    from .artifacts._manifest import load
    from .front._front import Front, Point
    from .plans import Plan, plan
    from .resolve._resolve import Resolution, resolve
    from .run._progress import Progress
    from ._run_view import Run, open_run
    from .searchers import Objective, SearchContext, Searcher, SensitivityTable, register_searcher
    from .task._task import Task, task_schema
    from .values._space import Candidate, Group, SearchSpace
    from .values._trial import Completed, Dominated, Failed, Infeasible, Screened, Trial

_HOMES = {
    "._artifact": ("load",),
    "._check_artifact": ("verify_artifact",),
    "._diff": ("diff",),
    "._driver": ("resume", "search"),
    "._export": ("apply_config", "export_point"),
    "._progress": ("Progress",),
    "._resolve": ("Resolution", "resolve"),
    "._result": ("Front", "Point"),
    "._run": ("Run", "open_run"),
    "._space": ("Candidate", "Group", "SearchSpace"),
    "._task": ("Task", "task_schema"),
    "._trial": ("Completed", "Dominated", "Failed", "Infeasible", "Screened", "Trial"),
    ".plans": ("Plan", "plan"),
    ".searchers": ("Objective", "SearchContext", "Searcher", "SensitivityTable", "register_searcher"),
}

__all__ = [
    "Candidate",
    "Completed",
    "Dominated",
    "Failed",
    "Front",
    "Group",
    "Infeasible",
    "Objective",
    "Plan",
    "Point",
    "Progress",
    "Resolution",
    "Run",
    "Screened",
    "SearchContext",
    "SearchSpace",
    "Searcher",
    "SensitivityTable",
    "Task",
    "Trial",
    "apply_config",
    "diff",
    "export_point",
    "load",
    "open_run",
    "plan",
    "register_searcher",
    "resolve",
    "resume",
    "search",
    "task_schema",
    "verify_artifact",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)


make_callable(__name__)  # `paredown.search` is this package and its function
