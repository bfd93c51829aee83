"""Keeps numpy's BLAS to one thread while workers have the cores.

The searcher's matrices are small (a few hundred rows), and its threads spin while they wait for a core that a worker
holds. An eigenvalue problem of 200 rows takes 4 ms of CPU in one thread, and 37 ms in two beside two busy workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit this process's OpenBLAS libraries to one thread; torch's own threads stay as they are."""
    np.linalg.eigvalsh(np.eye(1))  # a library that is not loaded yet could not be limited
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        yield
