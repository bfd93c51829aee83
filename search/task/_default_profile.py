"""The default hardware profile of a task: the one that fits the processor of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._machine import environment
from ._stored_task import TASK, stored_task

if TYPE_CHECKING:
    from ._task import Task

_WHOLE = {"avx512_vnni", "avx_vnni"}
"""Instruction sets that add products of bytes in 32 bits."""


def default_profile(runtime: str, machine: Mapping[str, Any] | None = None) -> str:
    """x86-64-RUNTIME; on an x86-64 that is known to lack VNNI x86-64-avx2-RUNTIME, where there is one.

    machine  as `environment` gives it; default: this one
    """
    from ...hardware_profiles import list_profiles

    machine = environment() if machine is None else machine
    known, older = set(machine["instruction_sets"]), _older(runtime)
    lacks = machine["architecture"] in ("x86_64", "AMD64") and known and not known & _WHOLE
    return older if lacks and older in list_profiles() else f"x86-64-{runtime}"


def saturates_here(runtime: str) -> bool:
    """Tell whether integer kernels of this runtime overflow with 8-bit weights on this machine (`saturates`)."""
    from ...hardware_profiles import list_profiles, load_profile

    name = default_profile(runtime)
    return name in list_profiles() and load_profile(name).saturates


def settle_profile(task: Task, *, run: Path | None = None) -> Task:
    """The task with a profile that fits this machine, where it names none and the usual one would not.

    run  folder of a run that may have begun, perhaps on another machine: it goes on with the profile that it has
    """
    hardware = task.hardware
    if hardware.profile is not None:
        return task
    name, usual = default_profile(hardware.runtime), hardware.profile_name
    if run is not None and (run / TASK).is_file():
        older = _older(hardware.runtime)
        name = older if stored_task(run).hardware.profile == older else usual
    return task if name == usual else task.with_overrides([f"hardware.profile={json.dumps(name)}"])


def _older(runtime: str) -> str:
    return f"x86-64-avx2-{runtime}"
