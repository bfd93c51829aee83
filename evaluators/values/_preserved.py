"""Evaluation without side effects: the model and the process are left as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn

from ... import compressors


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode without gradients inside the block; restore everything at the end, also after an
    exception.

    As `compressors.preserved` (each module's own train mode, the grad mode, torch's random states), and the global
    random states of numpy and Python as well.

    `no_grad` and not `inference_mode`: a model that caches a mask or a table on its first call would otherwise keep an
    inference tensor, and could not be trained any more.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is put back below)
    try:
        with compressors.preserved(model):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
