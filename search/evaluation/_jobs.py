"""Placeholder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..values import reason
from ._worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A call of one of a worker's methods. `token` is the submitter's own; `attempt` counts from 1."""

    method: str
    args: tuple[Any, ...]
    token: Any = None
    timeout_s: float = 0.0
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a job: a value, or the reason why there is none.

    fatal  the worker itself is gone (it died, or hung and was killed); only then is another attempt worth it
    """

    job: Job
    value: Any = None
    error: str | None = None
    fatal: bool = False
    seconds: float = 0.0
    worker: Mapping[str, Any] = field(default_factory=dict)


def run_job(worker: Worker, job: Job, facts: Mapping[str, Any]) -> Outcome:
    """Run it here. Whatever the candidate raises becomes the outcome's reason."""
    start = time.perf_counter()
    value, error = None, None
    try:
        value = getattr(worker, job.method)(*job.args)
    except (Exception, SystemExit) as exception:  # a candidate may fail in any way at all; the reason is recorded
        error = reason(exception)
    return Outcome(job=job, value=value, error=error, seconds=time.perf_counter() - start, worker=facts)
