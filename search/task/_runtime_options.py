"""Options that the sessions of a runtime are loaded with: the task's, the profile's, the runtime's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ._default_profile import default_profile

if TYPE_CHECKING:
    from ...evaluators.runtimes import RuntimeOptions
    from ...hardware_profiles import HardwareProfile
    from ._task import Task


def runtime_options(task: Task, profiles: Sequence[HardwareProfile], runtime: str) -> RuntimeOptions | None:
    """Options that sessions of this runtime are loaded with: the task's, over those of the first profile of the
    runtime. Without such a profile those of the runtime's usual one count. None for a runtime without options.

    Raises `ProfileError` for a profile that names options which the runtime has not.
    """
    from ...evaluators.runtimes import OPTIONS, options_from
    from ...hardware_profiles import ProfileError, load_profile

    profile = next((one for one in profiles if one.runtime == runtime), None)
    if profile is None and runtime in OPTIONS:
        profile = load_profile(default_profile(runtime))
    named: Mapping[str, Any] = profile.runtime_options if profile is not None else {}
    own: Mapping[str, Any] = task.hardware.runtime_options if task.hardware.runtime == runtime else {}
    try:
        options_from(runtime, named)
    except InputError as error:
        raise ProfileError(f"the profile {profile.name if profile else ''}: {error}") from None
    return options_from(runtime, {**named, **own})
