"""Register of named metrics."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ._error import MetricError
from ._metric import Metric

_METRICS: dict[str, Metric] = {}
METRICS = MappingProxyType(_METRICS)
"""Registered metrics by name. Read only: see `register_metric`."""
_CONFIGURE: dict[str, Callable[..., Metric]] = {}
_AT = re.compile(r"(?P<stem>\w+)_at_(?P<k>[1-9][0-9]*)")


def register_metric(metric: Metric, *, configure: Callable[..., Metric] | None = None) -> Metric:
    """Register a metric under its name. Raises `MetricError` where the name is taken.

    configure  makes the metric with other settings than the usual ones; its keywords are the keys of [quality] args.
               That of a name like `ndcg_at_10` takes `k`, and serves the name with any other number.
    """
    if metric.name in _METRICS:
        raise MetricError(
            f"a metric named {metric.name!r} is registered already; known are {', '.join(sorted(_METRICS))}"
        )
    _METRICS[metric.name] = metric
    if configure is not None:
        _CONFIGURE[metric.name] = configure
    return metric


def known_metric(name: str) -> bool:
    """Tell whether `get_metric` knows the name."""
    return name in _METRICS or _family(name) is not None


def get_metric(name: str, args: Mapping[str, Any] | None = None) -> Metric:
    """Return the metric of that name, with the settings `args`. Raises `MetricError` listing what is known."""
    family = _family(name)
    if name not in _METRICS and family is None:
        raise MetricError(
            f"unknown metric {name!r}; known are {', '.join(sorted(_METRICS))}, or give your own function as "
            "'module:function' or 'file.py:function'"
        )
    settings = dict(args or {})
    if family is not None and not settings:
        return _CONFIGURE[family[0]](k=family[1])
    if not settings:
        return _METRICS[name]
    configure = _CONFIGURE.get(name) if family is None else None
    known = tuple(inspect.signature(configure).parameters) if configure is not None and not _AT.fullmatch(name) else ()
    if configure is None or set(settings) - set(known):
        odd = next(key for key in settings if key not in known)
        raise MetricError(
            f"the metric {name} takes no argument {odd!r}; "
            + (f"it takes {', '.join(known)}" if known else "it takes none")
        )
    try:
        return configure(**settings)
    except (TypeError, ValueError) as error:
        raise MetricError(f"the metric {name} refused [quality] args {settings}: {error}") from error


def _family(name: str) -> tuple[str, int] | None:
    """(Registered name, number) of a name like `ndcg_at_5`, where `ndcg_at_10` is registered."""
    if name in _METRICS or (match := _AT.fullmatch(name)) is None:
        return None
    for known in _CONFIGURE:
        other = _AT.fullmatch(known)
        if other is not None and other["stem"] == match["stem"]:
            return known, int(match["k"])
    return None
