"""Costs of candidates on the devices of a task, without an evaluation.

`Device` turns a hardware profile into costs of layers, of groups and of whole models. It knows `task` and `values`.
Begin with `_costs.py`; `_profile_mismatch.py` tells the user where a profile does not fit. A new modelled cost belongs
here, its name in `values/_metric_names.py`.
"""

from ._costs import Device, DeviceRows, devices_of, wanted
from ._on_each_device import guides_of, limits_elsewhere, limits_of
from ._profile_mismatch import describe_latency_mismatch, describe_profile_mismatch, is_here

__all__ = [
    "Device",
    "DeviceRows",
    "describe_latency_mismatch",
    "describe_profile_mismatch",
    "devices_of",
    "guides_of",
    "is_here",
    "limits_elsewhere",
    "limits_of",
    "wanted",
]
