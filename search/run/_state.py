"""What a ledger says: the state of a run, record by record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...evaluators import Measurement
from ..values import Infeasible, Row, Trial, trial_from_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a fresh process found of one trial's artifact, on the report split. `reason` says why there is nothing;
    `agreement` how far its outputs are from PyTorch's ("" in an old ledger)."""

    number: int
    metrics: Mapping[str, Measurement]
    scores: tuple[float, ...] = ()
    reason: str | None = None
    agreement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Is a mixed point better than its uniform rival on the report split? A paired one-sided test on the same samples.

    difference  in the metric's unit, positive where the mixed point is better; low, high: 95 % interval
    """

    number: int
    rival: int
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(slots=True)
class State:
    """What the ledger says so far. `facts` is what was known before the first trial: space, objectives, costs, …

    rows, row_facts  of the sensitivity table: (group, level) -> divergence, None if it failed; and all that is known
    frame            of the outputs, in which the rows' shifts were measured (`_shifts`); None in an old ledger
    estimate         the table's first guess ("values"), or why there is none ("reason")
    dropped          (group, level) that the searcher does without; None as long as that is not decided
    searcher         what the searcher said of itself at the end (`Reporting`); empty if it says nothing
    losses           number -> losses, packed (`_race`), of the trials that others had to beat
    """

    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[tuple[int, int], float | None] = field(default_factory=dict)
    row_facts: dict[tuple[int, int], Row] = field(default_factory=dict)
    frame: dict[str, Any] | None = None
    estimate: dict[str, Any] | None = None
    dropped: tuple[tuple[int, int], ...] | None = None
    trials: list[Trial] = field(default_factory=list)
    losses: dict[int, str] = field(default_factory=dict)
    verified: dict[int, Verified] = field(default_factory=dict)
    verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spent_s: float = 0.0
    ended: str | None = None
    searcher: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def replay(cls, records: Sequence[Mapping[str, Any]]) -> State:
        state = cls()
        for record in records:
            state.add(record)
        return state

    def add(self, record: Mapping[str, Any]) -> None:
        self.spent_s = max(self.spent_s, record.get("spent_s", 0.0))
        match record["type"]:
            case "facts":
                self.facts = dict(record)
            case "row":
                self._add_row((record["group"], record["level"]), Row.from_record(record))
            case "frame":
                self.frame = dict(record)
            case "estimate":
                self.estimate = {"values": record["values"], "reason": record["reason"]}
            case "dropped":
                self.dropped = tuple((g, level) for g, level in record["levels"])
            case "trial":
                self.trials.append(trial_from_record(record))
                if "losses" in record:
                    self.losses[record["number"]] = record["losses"]
            case "verified":
                self.verified[record["number"]] = Verified(
                    number=record["number"],
                    metrics={name: Measurement.from_dict(m) for name, m in record["metrics"].items()},
                    scores=tuple(record["scores"]),
                    reason=record["reason"],
                    agreement=record.get("agreement", ""),
                )
            case "verdict":
                values = {key: record[key] for key in Verdict.__slots__}
                self.verdicts[record["number"], record["rival"]] = Verdict(**values)
            case "time":
                for name, seconds in record["seconds"].items():
                    self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            case "searcher":
                self.searcher = dict(record["report"])
            case "note":
                self.notes.append(record["text"])
            case "ended":
                self.ended = record["how"]
            case "started":
                self.ended = None

    def _add_row(self, key: tuple[int, int], row: Row) -> None:
        """Of one (group, level) the row of the most samples stays."""
        if key not in self.row_facts or row.n >= self.row_facts[key].n:
            self.row_facts[key], self.rows[key] = row, row.value

    @property
    def n_mixed(self) -> int:
        """Candidates that were proposed: one that was screened and then seen on all samples has two trials."""
        return len({trial.candidate for trial in self.trials if trial.kind == "mixed"})

    @property
    def samples(self) -> int:
        """Sample passes of all trials."""
        return sum(t.samples for t in self.trials if not isinstance(t, Infeasible))

    @property
    def core_seconds(self) -> float:
        return sum(trial.seconds for trial in self.trials if not isinstance(trial, Infeasible))
