"""What a person writes: the task, its sections, and the code, model and data that it names.

`Task` is read from TOML, checked and never changed. The room also loads what a task names, and describes this machine.
It knows `values`. Begin with `_sections.py` (every key) and `_task.py`. A new key of a task belongs in `_sections.py`.
"""

from ._default_profile import default_profile, saturates_here, settle_profile
from ._field_types import parse_duration
from ._load_model import load_task_metric, load_task_model, user_modules
from ._machine import ISA, environment, usable_cores, version_of
from ._plugins import Plugins
from ._rules import nearest
from ._sections import BudgetSection, DataSection, RepairSection, Section, SpaceSection
from ._splits import Splits, load_task_data, sizes
from ._stored_task import TASK, stored_task
from ._task import Task, as_task

__all__ = [
    "ISA",
    "TASK",
    "BudgetSection",
    "DataSection",
    "Plugins",
    "RepairSection",
    "Section",
    "SpaceSection",
    "Splits",
    "Task",
    "as_task",
    "default_profile",
    "environment",
    "load_task_data",
    "load_task_metric",
    "load_task_model",
    "nearest",
    "parse_duration",
    "saturates_here",
    "settle_profile",
    "sizes",
    "stored_task",
    "usable_cores",
    "user_modules",
    "version_of",
]
