"""Names for the types of numpy arrays that many modules use."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
SingleArray: TypeAlias = NDArray[np.float32]
LevelArray: TypeAlias = NDArray[np.int32]
"""Levels of candidates, shape (candidates, groups)."""
