"""A run: its folder, its ledger, and the state that the ledger spells out."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, IntegrityError, ParedownError
from ..task import TASK, stored_task
from ..values import Completed, SearchSpace, Trial, space_from_dict
from ._ledger import Ledger, read, write_atomic
from ._state import State

if TYPE_CHECKING:
    from ..task import Task

LEDGER = "ledger.log"
SCHEMA_VERSION = 1


class StoredRun:
    """A run's folder, task and state, for reading. Only a `Recorder` writes to the ledger of a run."""

    def __init__(self, path: Path, task: Task, state: State) -> None:
        self.path, self.task, self.state = path, task, state

    @property
    def trials(self) -> list[Trial]:
        return self.state.trials

    @property
    def space(self) -> SearchSpace:
        facts = self.facts()
        return space_from_dict(facts["space"], facts.get("spec_version", 1))

    def facts(self) -> dict[str, Any]:
        """The facts of the run. Raises `InputError` for a run that has none yet."""
        if not self.state.facts:
            raise InputError(f"{self.path} has not got as far as its first trial; run `paredown resume {self.path}`")
        return self.state.facts

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

    def trial(self, point_id: str) -> Completed:
        for trial in self.state.trials:
            if f"t{trial.number}" == point_id:
                if isinstance(trial, Completed):
                    return trial
                raise InputError(
                    f"{point_id} did not complete ({trial.reason}), so there is nothing to look at or export"
                )
        raise InputError(f"no point {point_id!r} in {self.path}; `paredown front {self.path}` lists them")


def read_run(path: Path | str) -> StoredRun:
    """Read a run's folder. A running or killed search may be read at any time."""
    path = Path(path)
    task = stored_task(path)
    return StoredRun(path, task, _replay(path, read(_ledger_of(path))[0]))


def create_run(path: Path, task: Task) -> tuple[StoredRun, Ledger]:
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
        return StoredRun(path, task, _replay(path, ledger.records)), ledger
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


def _difference(before: Task, after: Task) -> str:
    old, new = before.to_dict(), after.to_dict()
    sections = [key for key in new if old.get(key) != new[key] and key not in ("budget", "mlflow")]
    return f"[{sections[0]}] differs" if sections else "its folder differs"
