"""What to try next, who runs it, and what is remembered.

`search` drives a run from a task to a verified front; `resume` goes on with one; `open_run` reads one. Everything is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .._module import make_callable

if TYPE_CHECKING:
    from ._driver import resume, search
    from ._export import apply_config, export_point, verify_artifact
    from ._progress import Progress
    from ._resolve import Resolution, resolve
    from ._result import Front, Point
    from ._run import Run, open_run
    from ._space import Candidate, Group, SearchSpace
    from ._task import Task, task_schema
    from ._trial import Completed, Dominated, Failed, Infeasible, Screened, Trial
    from .searchers import Objective, SearchContext, Searcher, SensitivityTable, register_searcher

_HOMES = {
    "._driver": ("resume", "search"),
    "._export": ("apply_config", "export_point", "verify_artifact"),
    "._progress": ("Progress",),
    "._resolve": ("Resolution", "resolve"),
    "._result": ("Front", "Point"),
    "._run": ("Run", "open_run"),
    "._space": ("Candidate", "Group", "SearchSpace"),
    "._task": ("Task", "task_schema"),
    "._trial": ("Completed", "Dominated", "Failed", "Infeasible", "Screened", "Trial"),
    ".searchers": ("Objective", "SearchContext", "Searcher", "SensitivityTable", "register_searcher"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Candidate",
    "Completed",
    "Dominated",
    "Failed",
    "Front",
    "Group",
    "Infeasible",
    "Objective",
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
    "export_point",
    "open_run",
    "register_searcher",
    "resolve",
    "resume",
    "search",
    "task_schema",
    "verify_artifact",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOME_OF)


make_callable(__name__)  # `paredown.search` is this package and its function
