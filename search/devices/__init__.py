"""What candidates cost on the devices of a task, without an evaluation.

`Device` turns a hardware profile into costs of layers, of groups and of whole models. It knows `task` and `values`.
Begin with `_costs.py`. A new modelled cost belongs here, its name in `values/_metric_names.py`.
"""

from ._costs import (
    Device,
    DeviceRows,
    describe_latency_mismatch,
    describe_profile_mismatch,
    devices_of,
    is_here,
    wanted,
)

__all__ = [
    "Device",
    "DeviceRows",
    "describe_latency_mismatch",
    "describe_profile_mismatch",
    "devices_of",
    "is_here",
    "wanted",
]
