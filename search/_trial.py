"""What became of a candidate: three types, so that a failure can never be mistaken for a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..evaluators import Measurement
from ._space import Candidate

Kind = Literal["original", "uniform", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The candidate was evaluated; every metric is finite.

    number   0, 1, 2, …: the order in which trials were asked for
    kind     "original" and "uniform" are the baselines; "mixed" is what a searcher proposed
    seconds  wall clock of the evaluation on its worker
    """

    number: int
    candidate: Candidate
    kind: Kind
    metrics: Mapping[str, Measurement]
    seconds: float = 0.0
    worker: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if bad := [name for name, measurement in self.metrics.items() if not measurement.is_finite]:
            raise ValueError(f"a completed trial has finite metrics only; {bad[0]} of trial {self.number} is not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """Known to break a limit before any forward pass (its bytes or MACs alone say so). `metrics` holds those."""

    number: int
    candidate: Candidate
    kind: Kind
    reason: str
    metrics: Mapping[str, Measurement] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Crashed, hung, ran out of memory or gave NaN. Keeps what is needed to run it again by itself."""

    number: int
    candidate: Candidate
    kind: Kind
    reason: str
    seed: int
    seconds: float = 0.0
    attempts: int = 1


Trial = Completed | Infeasible | Failed


def trial_to_record(trial: Trial) -> dict[str, Any]:
    """The trial as a line of the ledger."""
    record: dict[str, Any] = {
        "type": "trial",
        "status": type(trial).__name__.lower(),
        "number": trial.number,
        "kind": trial.kind,
        "levels": list(trial.candidate.levels),
    }
    if isinstance(trial, Failed):
        return record | {
            "reason": trial.reason,
            "seed": trial.seed,
            "seconds": trial.seconds,
            "attempts": trial.attempts,
        }
    record["metrics"] = {name: m.to_dict(samples=False) for name, m in trial.metrics.items()}
    if isinstance(trial, Infeasible):
        return record | {"reason": trial.reason}
    return record | {"seconds": trial.seconds, "worker": dict(trial.worker)}


def trial_from_record(record: Mapping[str, Any]) -> Trial:
    """The inverse of `trial_to_record`."""
    data = {
        key: value for key, value in record.items() if key not in ("type", "status", "levels", "metrics", "spent_s")
    }
    data["candidate"] = Candidate(levels=tuple(record["levels"]))
    if "metrics" in record:
        data["metrics"] = {name: Measurement.from_dict(m) for name, m in record["metrics"].items()}
    types: dict[str, type[Completed] | type[Infeasible] | type[Failed]] = {
        "completed": Completed,
        "infeasible": Infeasible,
        "failed": Failed,
    }
    return types[record["status"]](**data)
