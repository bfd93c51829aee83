"""Multiples of channels that the kernels of a device want."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ...compressors.structure import CoupledSet
    from ...hardware_profiles import HardwareProfile


def alignment_of(model: nn.Module, coupled: CoupledSet, profile: HardwareProfile) -> int:
    """Number that the channels of a set should be a multiple of on this device.

    It is the largest `alignment` of the layers that the set goes through, and of the faster rules (`aligned`); 1 where
    the profile gives none.
    """
    from torch import nn

    from ...compressors.anatomy import kind_of

    wanted = [rule.when.aligned or 1 for rule in profile.lowering]
    for fqn in {member.tensor.rpartition(".")[0] for member in coupled.members}:
        module = model.get_submodule(fqn)
        if (kind := kind_of(module)) is not None:
            grouped = isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1
            wanted.append(profile.alignment_of(kind, depthwise=grouped and module.groups == module.out_channels))
    return max(wanted, default=1)
