"""A run: its folder, its ledger, and the state that the ledger spells out."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compressors import LayerSpec
from ..errors import InputError, IntegrityError, ParedownError
from ._ledger import Ledger, read, write_atomic
from ._space import Group, SearchSpace
from ._state import State
from ._structure import is_structural
from ._trial import Completed, Dominated, Failed, Infeasible, Screened, Trial

if TYPE_CHECKING:
    from ._result import Front
    from ._task import Task

LEDGER = "ledger.log"
TASK = "task.json"
SCHEMA_VERSION = 1


class Run:
    """A run's folder, for reading. The driver alone writes (`Run.create`, `Run.ledger`)."""

    def __init__(self, path: Path, task: Task, state: State) -> None:
        self.path, self.task, self.state = path, task, state

    @property
    def trials(self) -> list[Trial]:
        return self.state.trials

    @property
    def space(self) -> SearchSpace:
        facts = self._facts()
        return space_from_dict(facts["space"], facts.get("spec_version", 1))

    def _facts(self) -> dict[str, Any]:
        if not self.state.facts:
            raise InputError(f"{self.path} has not got as far as its first trial; run `paredown resume {self.path}`")
        return self.state.facts

    def front(self, all: bool = False, *, profile: str | Path | None = None) -> Front:
        """The front so far; with `all`, every completed trial as a point.

        profile  another device, by the name of one of the task's profiles, or by name or path of any
        """
        from ._points import front_of

        return front_of(self, everything=all, profile=profile)

    def status(self) -> dict[str, Any]:
        """What it is doing, what is spent, how the trials went, and the picks so far."""
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
            self.front().to_dict() if state.facts and state.trials else {"points": [], "picks": {}, "hypervolume": None}
        )
        return {
            "run": str(self.path),
            "phase": phase,
            "ended": state.ended,
            "trials": {
                "budget": self.task.budget.trials,
                "mixed": state.n_mixed,
                "completed": sum(isinstance(t, Completed) for t in state.trials),
                "dominated": sum(isinstance(t, Dominated) for t in state.trials),
                "screened": sum(isinstance(t, Screened) for t in state.trials),
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

    @property
    def is_locked(self) -> bool:
        """Whether a driver is at work in this folder now."""
        import fcntl

        with (self.path / LEDGER).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def explain(self, point_id: str) -> list[dict[str, Any]]:
        """Each layer of a point: what it got, what it costs, what it saves, how sensitive it is. What can be removed
        whole has a row as well, which saves bytes; those that are left, and the MACs, are the layers'.

        sensitivity  divergence with this group alone at its level; None where the table has no such row
        """
        trial = self.trial(point_id)
        facts, space = self._facts(), self.space
        bytes_of, macs_of = facts["costs"]["bytes"], facts["costs"]["macs"]
        rows = []
        for g, (group, level) in enumerate(zip(space.groups, trial.candidate.levels, strict=True)):
            spec, is_set = group.levels[level], is_structural(group.name)
            rows.append(
                {
                    "group": group.name,
                    "layers": list(group.layers),
                    "spec": spec.to_dict(),
                    "label": "whole" if is_set and spec.is_neutral else spec.label(),
                    "weight_bytes": None if is_set else int(bytes_of[g][level]),
                    "bytes_saved": int(facts["original_bytes"][g] - bytes_of[g][level]),
                    "macs": None if is_set else int(macs_of[g][level]),
                    "sensitivity": 0.0 if spec.is_neutral else self.state.rows.get((g, level)),
                    "weight_error": facts["weight_error"][g][level],
                    "runs_as": facts["runs_as"][g][level],
                }
            )
        return rows

    def trial(self, point_id: str) -> Completed:
        for trial in self.state.trials:
            if f"t{trial.number}" == point_id:
                if isinstance(trial, Completed):
                    return trial
                raise InputError(
                    f"{point_id} did not complete ({trial.reason}), so there is nothing to look at or export"
                )
        raise InputError(f"no point {point_id!r} in {self.path}; `paredown front {self.path}` lists them")


def open_run(path: Path | str) -> Run:
    """Read a run's folder. A running or killed search may be read at any time."""
    path = Path(path)
    task = stored_task(path)
    return Run(path, task, _replay(path, read(_ledger_of(path))[0]))


def create_run(path: Path, task: Task) -> tuple[Run, Ledger]:
    """A new run in `path`, or the one of this very task that is there already, to go on with.

    Raises `InputError` if the folder belongs to another task, or holds something else.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, and a run needs a folder; choose another --out")
    if (path / TASK).exists():
        before = stored_task(path)
        if before.digest != task.digest and _has_begun(path):
            raise InputError(
                f"{path} belongs to another task ({_difference(before, task)}); choose another --out, or resume it"
            )
    elif path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty and holds no run; choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(path / LEDGER)
    write_atomic(path / TASK, json.dumps({"task": task.to_dict(), "base_dir": str(task.base_dir)}, indent=2) + "\n")
    try:
        return Run(path, task, _replay(path, ledger.records)), ledger
    except ParedownError:
        ledger.close()
        raise


def _ledger_of(path: Path) -> Path:
    if not (path / LEDGER).is_file():
        raise IntegrityError(f"{path} has a {TASK} but no {LEDGER}, which holds its trials; put back a copy of it")
    return path / LEDGER


def _replay(path: Path, records: Sequence[Mapping[str, Any]]) -> State:
    try:
        return State.replay(records)
    except (KeyError, TypeError, ValueError) as error:  # whole, by its checksums, but not what this version writes
        raise IntegrityError(
            f"{path / LEDGER} holds a record that this version of paredown cannot read ({type(error).__name__}: "
            f"{error}); use the version that wrote it, or start a new run in another folder"
        ) from None


def _has_begun(path: Path) -> bool:
    """Whether there is anything to lose: a run that failed while it loaded leaves its folder to the corrected task."""
    ledger = path / LEDGER
    return ledger.exists() and bool(_replay(path, read(ledger)[0]).facts)


def new_run_path(task: Task, root: Path = Path("runs")) -> Path:
    """`runs/<name>-<date>-<n>`, the first that is free."""
    stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^\w.-]+", "-", task.base_dir.name) or "run"
    path = root / f"{name}-{stamp}"
    n = 1
    while path.exists():
        n += 1
        path = root / f"{name}-{stamp}-{n}"
    return path


def stored_task(path: Path) -> Task:
    from ._task import Task

    if not (path / TASK).is_file():
        raise InputError(f"no run at {path}: expected a folder with {TASK}, as made by `paredown search`")
    try:
        data = json.loads((path / TASK).read_text(encoding="utf-8"))
        return Task.from_dict(data["task"], base_dir=Path(data["base_dir"]))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path / TASK} cannot be read ({error}); put back a copy of it") from None


def _difference(before: Task, after: Task) -> str:
    old, new = before.to_dict(), after.to_dict()
    sections = [key for key in new if old.get(key) != new[key] and key not in ("budget", "mlflow")]
    return f"[{sections[0]}] differs" if sections else "its folder differs"


def space_to_dict(space: SearchSpace) -> list[dict[str, Any]]:
    return [
        {"name": g.name, "layers": list(g.layers), "levels": [spec.to_dict() for spec in g.levels]}
        for g in space.groups
    ]


def space_from_dict(data: Sequence[Mapping[str, Any]], version: int) -> SearchSpace:
    """`version` is the `SPEC_VERSION` that it was written with."""
    return SearchSpace(
        groups=tuple(
            Group(
                name=g["name"],
                layers=tuple(g["layers"]),
                levels=tuple(LayerSpec.from_dict(s, version=version) for s in g["levels"]),
            )
            for g in data
        )
    )
