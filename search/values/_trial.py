"""Outcomes of candidates: five types, so that nobody mistakes a failure or an estimate for a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...evaluators import Measurement
from ._space import Candidate

Kind = Literal["original", "uniform", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The result of a full evaluation; every metric is finite.

    number   0, 1, 2, …: the order in which trials were asked for
    kind     "original" and "uniform" are the baselines; "mixed" is what a searcher proposed
    seconds  wall clock of the evaluation on its worker
    samples  samples that went through the whole model; 0 if an old ledger does not say
    worker   facts about the evaluation that the worker reports
    screen   metrics on the first samples, the low fidelity; empty where the search has only one fidelity
    """

    number: int
    candidate: Candidate
    kind: Kind
    metrics: Mapping[str, Measurement]
    seconds: float = 0.0
    samples: int = 0
    worker: Mapping[str, Any] = field(default_factory=dict, hash=False)
    screen: Mapping[str, Measurement] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if bad := [name for name, measurement in self.metrics.items() if not measurement.is_finite]:
            raise ValueError(f"a completed trial has finite metrics only; {bad[0]} of trial {self.number} is not")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopped:
    """The estimate of a stopped evaluation: a part of the split showed that trial `beaten_by` is no dearer or worse.

    An early-stopped trial is never on the front, in a selection or in the hypervolume.

    metrics    the costs, and estimates of the quality with their intervals
    beaten_by  number of the completed trial that it lost to
    samples    samples that went through the model before the evaluation was stopped
    seconds    wall clock on its worker
    """

    number: int
    candidate: Candidate
    kind: Kind
    reason: str
    metrics: Mapping[str, Measurement]
    beaten_by: int
    samples: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if bad := [name for name, measurement in self.metrics.items() if not measurement.is_finite]:
            raise ValueError(f"a dominated trial has finite estimates only; {bad[0]} of trial {self.number} is not")


@dataclass(frozen=True, slots=True, kw_only=True)
class LowFidelity:
    """The result of an evaluation on the first samples of the search split alone.

    A promoted candidate is evaluated on the whole split, which is another trial. A low-fidelity trial is never on the
    front, in a selection or in the hypervolume.

    metrics  the costs, and the quality on these samples
    samples  samples that went through the whole model
    seconds  wall clock on its worker
    """

    number: int
    candidate: Candidate
    kind: Kind
    metrics: Mapping[str, Measurement]
    samples: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if bad := [name for name, measurement in self.metrics.items() if not measurement.is_finite]:
            raise ValueError(f"a screened trial has finite metrics only; {bad[0]} of trial {self.number} is not")

    @property
    def reason(self) -> str:
        """The reason why the trial is no result, as tables show it."""
        return f"seen on the first {self.samples} samples, and others looked more worth seeing on all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """A candidate that was not evaluated: a limit breaks before any forward pass, by the bytes or MACs in `metrics`."""

    number: int
    candidate: Candidate
    kind: Kind
    reason: str
    metrics: Mapping[str, Measurement] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An evaluation that crashed, hung, ran out of memory or gave NaN. The trial can be run again by itself.

    seed      seed of the evaluation
    attempts  number of evaluations that were tried
    metrics   the costs, which need no evaluation; empty where they are not known, as in an old ledger
    """

    number: int
    candidate: Candidate
    kind: Kind
    reason: str
    seed: int
    seconds: float = 0.0
    samples: int = 0
    attempts: int = 1
    metrics: Mapping[str, Measurement] = field(default_factory=dict, hash=False)


Trial = Completed | EarlyStopped | LowFidelity | Infeasible | Failed


STATUS: Mapping[type[Trial], str] = {
    Completed: "completed",
    EarlyStopped: "dominated",
    LowFidelity: "screened",
    Infeasible: "infeasible",
    Failed: "failed",
}
"""Words that ledgers, tables and MLflow store for the types of trials."""


def trial_to_record(trial: Trial) -> dict[str, Any]:
    """Return the trial as a record of the ledger."""
    record: dict[str, Any] = {
        "type": "trial",
        "status": STATUS[type(trial)],
        "number": trial.number,
        "kind": trial.kind,
        "levels": list(trial.candidate.levels),
    }
    if isinstance(trial, Failed):
        return record | {
            "reason": trial.reason,
            "seed": trial.seed,
            "seconds": trial.seconds,
            "samples": trial.samples,
            "attempts": trial.attempts,
            "metrics": {name: m.to_dict(samples=False) for name, m in trial.metrics.items()},
        }
    record["metrics"] = {name: m.to_dict(samples=False) for name, m in trial.metrics.items()}
    if isinstance(trial, Infeasible):
        return record | {"reason": trial.reason}
    record |= {"seconds": trial.seconds, "samples": trial.samples}
    if isinstance(trial, EarlyStopped):
        return record | {"reason": trial.reason, "beaten_by": trial.beaten_by}
    if isinstance(trial, LowFidelity):
        return record
    if trial.screen:
        record["screen"] = {name: m.to_dict(samples=False) for name, m in trial.screen.items()}
    return record | {"worker": dict(trial.worker)}


def trial_from_record(record: Mapping[str, Any]) -> Trial:
    """Return the trial of a record; the inverse of `trial_to_record`."""
    not_its_own = ("type", "status", "levels", "losses", "spent_s")
    data = {key: value for key, value in record.items() if key not in not_its_own}
    data["candidate"] = Candidate(levels=tuple(record["levels"]))
    for key in {"metrics", "screen"} & set(record):
        data[key] = {name: Measurement.from_dict(m) for name, m in record[key].items()}
    types: dict[str, Callable[..., Trial]] = {word: kind for kind, word in STATUS.items()}
    return types[record["status"]](**data)
