"""The state of a run, as the records of its ledger build it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...evaluators import Measurement
from ..values import Infeasible, LeastGain, Row, Trial, trial_from_record
from ._facts import RunFacts

ESTIMATE = ("values", "elements", "reason", "passes")
"""Keys of the record of the table's first guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Measurements of one trial's artifact in a fresh process, on the test ("report") split.

    scores     one score for each sample of the split, or a row of numbers (`Metric`)
    reason     reason why the artifact could not be measured; None if it was
    agreement  distance of its outputs from PyTorch's, in words; "" in an old ledger
    """

    number: int
    metrics: Mapping[str, Measurement]
    scores: tuple[Any, ...] = ()
    reason: str | None = None
    agreement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of a paired one-sided test whether one point is better than another, its rival, on the test ("report")
    split.

    difference  mean difference in the metric's unit, positive where the point is better
    low, high   95 % interval of the difference
    """

    number: int
    rival: int
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(slots=True)
class State:
    """State of a run after the records that were added so far.

    facts      facts that were known before the first trial; None before they are recorded
    rows       (group, level) -> divergence of this row of the sensitivity table; None if the row failed
    row_facts  (group, level) -> the whole row: samples, standard error, cost
    frame      reference outputs, in which the rows' shifts were measured (`_perturbations`); None in an old ledger
    estimate   first guess of the table ("values", "elements", "passes"), or the reason why there is none ("reason");
               without "elements" in an old ledger
    dropped    (group, level) that the searcher does without; None as long as that is not decided
    searcher   report of the searcher at the end (`Reporting`); empty if it has none
    least_gain  least lead that is worth telling; None before the verification, and in an old ledger
    losses     number -> packed losses of the trials that are or were incumbents
    seconds    purpose -> wall clock spent on it
    spent_s    wall clock since the run began, all sessions together
    ended      "done" or "interrupted"; None while the run goes on
    """

    facts: RunFacts | None = field(default=None, init=False)
    rows: dict[tuple[int, int], float | None] = field(default_factory=dict, init=False)
    row_facts: dict[tuple[int, int], Row] = field(default_factory=dict, init=False)
    frame: dict[str, Any] | None = field(default=None, init=False)
    estimate: dict[str, Any] | None = field(default=None, init=False)
    dropped: tuple[tuple[int, int], ...] | None = field(default=None, init=False)
    trials: list[Trial] = field(default_factory=list, init=False)
    losses: dict[int, str] = field(default_factory=dict, init=False)
    verified: dict[int, Verified] = field(default_factory=dict, init=False)
    least_gain: LeastGain | None = field(default=None, init=False)
    verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict, init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    spent_s: float = field(default=0.0, init=False)
    ended: str | None = field(default=None, init=False)
    searcher: dict[str, Any] = field(default_factory=dict, init=False)
    notes: list[str] = field(default_factory=list, init=False)

    @classmethod
    def replay(cls, records: Sequence[Mapping[str, Any]]) -> State:
        """Build the state from all records of a ledger, in order."""
        state = cls()
        for record in records:
            state.add(record)
        return state

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record. Raises `KeyError`, `TypeError` or `ValueError` for one that is not understood."""
        self.spent_s = max(self.spent_s, record.get("spent_s", 0.0))
        match record["type"]:
            case "facts":
                self.facts = RunFacts.from_record(record)
            case "row":
                self._add_row((record["group"], record["level"]), Row.from_record(record))
            case "frame":
                self.frame = dict(record)
            case "estimate":
                self.estimate = {key: record[key] for key in ESTIMATE if key in record}
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
            case "least_gain":
                self.least_gain = LeastGain(amount=record["amount"], is_relative=record["is_relative"])
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
        """Keep the row, unless one of more samples is known for its (group, level)."""
        if key not in self.row_facts or row.n >= self.row_facts[key].n:
            self.row_facts[key], self.rows[key] = row, row.value

    @property
    def n_mixed(self) -> int:
        """Number of proposed candidates. One that was screened and then promoted has two trials and counts once."""
        return len({trial.candidate for trial in self.trials if trial.kind == "mixed"})

    @property
    def samples(self) -> int:
        """Number of samples passed through the model, over all trials."""
        return sum(t.samples for t in self.trials if not isinstance(t, Infeasible))

    @property
    def core_seconds(self) -> float:
        """Seconds of worker time, over all trials."""
        return sum(trial.seconds for trial in self.trials if not isinstance(trial, Infeasible))
