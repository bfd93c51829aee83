"""A run as its user sees it: its front, its status, and the layers of its points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._export import export_point
from .front import Front, front_of
from .run import StoredRun, read_run
from .values import Completed, EarlyStopped, Failed, Infeasible, LowFidelity, is_structural


class Run(StoredRun):
    """A run's folder, opened for reading by `open_run`."""

    def front(self, all: bool = False, *, profile: str | Path | None = None) -> Front:
        """Return the front so far.

        all      True: every completed trial is a point
        profile  another device: the name of one of the task's profiles, or the name or path of any profile
        """
        return front_of(self, everything=all, profile=profile).with_exporter(export_point)

    def status(self) -> dict[str, Any]:
        """Return the phase of the run, its costs, its trials by status, and the picks so far.

        The result is the JSON of `paredown status --json`; docs/json.md lists its keys.
        """
        state = self.state
        phase = (
            "done"
            if state.ended == "done"
            else "stopped"
            if state.ended
            else "running"
            if self.is_locked
            else "stopped"
        )
        front = (
            self.front().to_dict()
            if state.facts is not None and state.trials
            else {"points": [], "picks": {}, "hypervolume": None}
        )
        return {
            "run": str(self.path),
            "phase": phase,
            "ended": state.ended,
            "trials": {
                "budget": self.task.budget.trials,
                "mixed": state.n_mixed,
                "completed": sum(isinstance(t, Completed) for t in state.trials),
                "dominated": sum(isinstance(t, EarlyStopped) for t in state.trials),
                "screened": sum(isinstance(t, LowFidelity) for t in state.trials),
                "infeasible": sum(isinstance(t, Infeasible) for t in state.trials),
                "failed": sum(isinstance(t, Failed) for t in state.trials),
            },
            "failures": [
                {"number": t.number, "reason": t.reason} for t in state.trials if isinstance(t, (Failed, Infeasible))
            ],
            "verified": sum(v.reason is None for v in state.verified.values()),
            "samples": state.samples,
            "spent_s": state.spent_s,
            "core_seconds": state.core_seconds,
            "seconds": dict(state.seconds),
            "hypervolume": front["hypervolume"],
            "picks": front["picks"],
            "n_points": sum(p["on_front"] and p["kind"] == "mixed" for p in front["points"]),
            "searcher": state.searcher,
            "notes": state.notes,
        }

    def explain(self, point_id: str) -> list[dict[str, Any]]:
        """Return a row for each group of a point: its spec, its costs, its savings, and its sensitivity.

        A removable structure has a row as well, with the bytes that it saves. Bytes and MACs that remain are in the
        rows of the layers. Sensitivity is the divergence with this group alone at its level; None if the table has no
        such row. Raises `InputError` for an unknown point.
        """
        trial = self.trial(point_id)
        facts = self.facts()
        bytes_of, macs_of = facts.costs["bytes"], facts.costs["macs"]
        rows = []
        for g, (group, level) in enumerate(zip(facts.space.groups, trial.candidate.levels, strict=True)):
            spec, is_set = group.levels[level], is_structural(group.name)
            rows.append(
                {
                    "group": group.name,
                    "layers": list(group.layers),
                    "spec": spec.to_dict(),
                    "label": "whole" if is_set and spec.is_neutral else spec.label(),
                    "weight_bytes": None if is_set else int(bytes_of[g][level]),
                    "bytes_saved": int(facts.original_bytes[g] - bytes_of[g][level]),
                    "macs": None if is_set else int(macs_of[g][level]),
                    "sensitivity": 0.0 if spec.is_neutral else self.state.rows.get((g, level)),
                    "weight_error": facts.weight_error[g][level],
                    "runs_as": facts.runs_as[g][level],
                }
            )
        return rows


def open_run(path: Path | str) -> Run:
    """Open a run's folder. The run of a running or killed search can be opened at any time.

    Raises `InputError` for a folder without a run, and `IntegrityError` for a ledger that cannot be read.
    """
    stored = read_run(path)
    return Run(stored.path, stored.task, stored.state)
