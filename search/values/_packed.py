"""Arrays as text, for the lines of a ledger."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from ...errors import IntegrityError


def pack_values(values: NDArray[np.float32]) -> str:
    """Encode values as base64 of little-endian float16: 2.7 characters a value, eleven bits each, at most 65,504."""
    limit = float(np.finfo(np.float16).max)
    return base64.b64encode(np.clip(values, -limit, limit).astype("<f2").tobytes()).decode("ascii")


def unpack_values(text: str) -> NDArray[np.float32]:
    """Return the values of `pack_values`. Raises `IntegrityError` for text that it did not write."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)
    except ValueError as error:
        raise IntegrityError(f"an array in the ledger cannot be read ({error}); start a new run") from None


def pack_losses(losses: NDArray[np.float32]) -> str:
    """Encode losses as base64 of little-endian float32: 5.4 characters a sample."""
    return base64.b64encode(np.ascontiguousarray(losses, dtype="<f4").tobytes()).decode("ascii")


def unpack_losses(text: str) -> NDArray[np.float32]:
    """Return the losses of `pack_losses`. Raises `IntegrityError` for text that it did not write."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except ValueError as error:
        raise IntegrityError(f"the losses of a trial cannot be read ({error}); start a new run") from None
