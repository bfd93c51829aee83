"""Zeros: which weights to drop (`_magnitude`)."""

from ._magnitude import magnitude, n_zeros

__all__ = ["magnitude", "n_zeros"]
