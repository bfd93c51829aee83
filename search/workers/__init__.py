"""Pools of workers that run jobs: this process, or processes on Ray.

All of them look the same to the driver (`Pool`). Ray is imported in `_ray.py` and nowhere else. This folder knows
`evaluation`. Begin with `_in_process.py`; another kind of worker, such as a cluster's, is one file here and a line in
`_open_pool.py`.
"""

from ._in_process import InProcess, Pool, python_path
from ._open_pool import open_pool
from ._queues import SHORT_S, WorkerQueues
from ._ray import RayPool

__all__ = ["SHORT_S", "InProcess", "Pool", "RayPool", "WorkerQueues", "open_pool", "python_path"]
