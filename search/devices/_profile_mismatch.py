"""Notes for the user where a hardware profile fits neither this machine nor what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._command import command
from ..task import ISA, default_profile

if TYPE_CHECKING:
    from ...evaluators import Measurement
    from ...hardware_profiles import HardwareProfile

_ALSO_CALLED = {"arm64": "aarch64", "AMD64": "x86_64"}
"""Architecture names of macOS and Windows -> the names that profiles have."""


def is_here(profile: HardwareProfile, machine: Mapping[str, Any]) -> bool:
    """Say whether measurements on this machine apply to the profile's device: a CPU of the same architecture.

    machine  the result of `environment`
    """
    name = machine["architecture"]
    return profile.kind == "cpu" and profile.architecture in ("unknown", _ALSO_CALLED.get(name, name))


def describe_profile_mismatch(
    profile: HardwareProfile, runtime: str, machine: Mapping[str, Any], *, by_default: bool = False
) -> list[str]:
    """Describe to the user how a profile does not fit the machine or the runtime; empty if it fits.

    by_default  True if the task names no profile, so the profile does not say where the model will run
    """
    here = is_here(profile, machine)
    if by_default and not here:
        line = (
            f"the default profile {profile.name} is of {profile.architecture}, and this machine is "
            f"{machine['architecture']}: the modelled costs are another machine's; name a profile in [hardware]"
        )
        return [line]
    if not here:
        line = (
            f"the device of the profile {profile.name} ({profile.device}, {profile.runtime}) is not here: its latency "
            f"stays modelled and is not measured; quality is verified on {runtime} here"
        )
        return [line]
    lines = []
    missing = [name for name in profile.isa if name in ISA and name not in machine["instruction_sets"]]
    if missing and machine["instruction_sets"]:  # no instruction set is known on some systems
        lines.append(
            f"the profile {profile.name} assumes {', '.join(missing)}, which this CPU does not have: its modelled "
            "costs are another machine's, and what is measured is this one's"
        )
        if not profile.saturates and (fitting := default_profile(runtime, machine)) != f"x86-64-{runtime}":
            lines[-1] += (
                f". 8-bit weights overflow this CPU's integer kernels; with the profile {fitting} they have 7 bits"
            )
    lines += _of_another_cpu(profile, machine)
    if profile.runtime != runtime:
        lines.append(
            f"the profile {profile.name} is of the runtime {profile.runtime}, and the task's is {runtime}: "
            "modelled and measured costs are of different runtimes"
        )
    return lines


def _of_another_cpu(profile: HardwareProfile, machine: Mapping[str, Any]) -> list[str]:
    """Describe that a profile was measured on another CPU than this one; empty if it was not.

    A measured profile names its CPU. Another CPU may have the same name (virtual machines tell the vendor and no more),
    and the instruction sets give it away.
    """
    if not profile.cpu:
        return []
    here, more = machine["processor"], set(machine["instruction_sets"]) - set(profile.isa)
    if profile.cpu == here and not more:
        return []
    difference = f"this one is a {here}"
    if profile.cpu == here:
        difference = f"this one of that name also has {', '.join(sorted(more))}"
    line = (
        f"the figures of the profile {profile.name} were measured on another CPU than this: on a {profile.cpu}, and "
        f"{difference}; `{command('profile', '--runtime', profile.runtime, '--out', 'FILE')}` measures this one"
    )
    return [line]


FAR_OFF = 2.0
"""Factor between modelled and measured latency above which the user is told, if the profile was measured here."""


def describe_latency_mismatch(profile: HardwareProfile, modelled: Measurement, measured: Measurement) -> str | None:
    """Describe that a measured profile does not predict the original's latency here; None if it does (`FAR_OFF`)."""
    if not profile.cpu or modelled.source != "modelled" or measured.source != "measured":
        return None
    if min(modelled.value, measured.value) <= 0:
        return None
    if max(modelled.value / measured.value, measured.value / modelled.value) <= FAR_OFF:
        return None
    return (
        f"the original took {measured.value:.3g} ms, and the profile {profile.name} says {modelled.value:.3g} ms: "
        "either it was not measured on this machine as it is now, or most of this model's time is not in layers that "
        'it knows; [hardware] latency = "measured" predicts from the model itself'
    )
