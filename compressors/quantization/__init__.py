"""Fewer bits: for weights (`_affine`) and for activations (`_activation`)."""

from ._activation import ActivationQuantizer, mse_range
from ._affine import affine, code_range

__all__ = ["ActivationQuantizer", "affine", "code_range", "mse_range"]
