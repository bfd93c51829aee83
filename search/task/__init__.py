"""The task that a person writes: its sections, and the code, model and data that it names.

`Task` is read from TOML, checked and never changed. This folder also loads the code, model and data of a task, and
describes this machine. It imports `values` alone. Begin with `_sections.py` (every key) and `_task.py`. A new axis of
[space] belongs in `_built_in_axes.py`, any other new key in `_sections.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._axes import axes, axes_within, layer_axes, main_axes, register_axis, registered_axes
from ._axis import Axis
from ._default_profile import default_profile, saturates_here, settle_profile
from ._field_types import parse_duration
from ._limits import resolve_limit, resolve_limits
from ._load_model import load_task_metric, load_task_model, user_modules, widened
from ._machine import ISA, environment, usable_cores, version_of
from ._plugins import Plugins
from ._rules import nearest
from ._runtime_options import runtime_options
from ._section import Section
from ._sections import COSTS, MORE_COSTS, THROUGHPUT, BudgetSection, DataSection, PrepareSection, RepairSection
from ._space_section import AxesSection, SpaceSection
from ._stored_task import TASK, stored_task
from ._task import Task, as_task
from ._user_code import told

if TYPE_CHECKING:
    from ._cards import CARDS
    from ._splits import Splits, load_task_data, sizes

__all__ = [
    "CARDS",
    "COSTS",
    "ISA",
    "MORE_COSTS",
    "TASK",
    "THROUGHPUT",
    "AxesSection",
    "Axis",
    "BudgetSection",
    "DataSection",
    "Plugins",
    "PrepareSection",
    "RepairSection",
    "Section",
    "SpaceSection",
    "Splits",
    "Task",
    "as_task",
    "axes",
    "axes_within",
    "default_profile",
    "environment",
    "layer_axes",
    "load_task_data",
    "load_task_metric",
    "load_task_model",
    "main_axes",
    "nearest",
    "parse_duration",
    "register_axis",
    "registered_axes",
    "resolve_limit",
    "resolve_limits",
    "runtime_options",
    "saturates_here",
    "settle_profile",
    "sizes",
    "stored_task",
    "told",
    "usable_cores",
    "user_modules",
    "version_of",
    "widened",
]

__getattr__, __dir__ = lazy_exports(
    __name__, {"._cards": ("CARDS",), "._splits": ("Splits", "load_task_data", "sizes")}
)
