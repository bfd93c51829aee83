"""Constants that metrics share."""

from __future__ import annotations

IGNORED = -100
"""Target that does not count, as in `torch.nn.functional.cross_entropy`."""
