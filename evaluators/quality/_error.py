"""Error of a metric."""

from __future__ import annotations

from ...errors import InputError


class MetricError(InputError):
    """A metric cannot be computed from these outputs, or its scores are invalid: a wrong shape, NaN, an infinity."""
