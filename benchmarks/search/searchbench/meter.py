"""What was paid: sample passes. One sample through the whole model is 1, whatever it was wanted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("baselines", "table", "trials", "partial", "gradients")


def cost_of(record: Mapping[str, Any], *, full: int, table_samples: int) -> float:
    """Sample passes of one ledger record; 0 for what passed nothing.

    A record that says what it passed ("passes" of a row or of other work, "samples" of a trial) is believed. A trial
    that does not say looked at the whole split (`full`), a row at `table_samples`. The original costs nothing: its
    outputs are what everybody starts from. An infeasible trial was not run.
    """
    if "passes" in record and record["passes"] is not None:
        return float(record["passes"])
    if record["type"] == "row":
        return float(table_samples)
    if record["type"] != "trial" or record["kind"] == "original" or record["status"] == "infeasible":
        return 0.0
    return float(record.get("samples") or full)


def kind_of(record: Mapping[str, Any]) -> str:
    """Under what it is booked, one of `KINDS`."""
    if record["type"] == "trial":
        return "baselines" if record["kind"] == "uniform" else "trials"
    return {"partial": "partial", "gradients": "gradients"}.get(record["type"], "table")


class Meter:
    """Adds up a growing list of records; `read` looks only at those that are new."""

    def __init__(self, records: list[dict[str, Any]], *, full: int, table_samples: int) -> None:
        self._records, self._full, self._table_samples = records, full, table_samples
        self._seen, self._spent = 0, 0.0

    def read(self) -> float:
        """Sample passes so far."""
        new = self._records[self._seen :]
        self._spent += sum(cost_of(r, full=self._full, table_samples=self._table_samples) for r in new)
        self._seen += len(new)
        return self._spent


def booked(records: Iterable[Mapping[str, Any]], *, full: int, table_samples: int) -> dict[str, float]:
    """Sample passes by what they were for."""
    totals = dict.fromkeys(KINDS, 0.0)
    for record in records:
        if passes := cost_of(record, full=full, table_samples=table_samples):
            totals[kind_of(record)] += passes
    return totals
