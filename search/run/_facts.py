"""Placeholder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..values import Objective


def objectives_from(data: Sequence[Mapping[str, Any]]) -> tuple[Objective, ...]:
    """As `_groundwork` wrote them down; a run of an older version has no `indifference_threshold`."""
    return tuple(
        Objective(name=o["name"], maximise=o["maximise"], indifference_threshold=o.get("good_enough", -math.inf))
        for o in data
    )


def limits_from(data: Mapping[str, Sequence[float | None]]) -> dict[str, tuple[float | None, float | None]]:
    return {name: (low, high) for name, (low, high) in data.items()}
