"""A run on disk: its folder, its task, its ledger, and the state that the ledger builds up.

`create_run` opens a run for writing, `read_run` opens one for reading.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._command import command
from ...errors import InputError, IntegrityError, ParedownError
from ..task import TASK, stored_task
from ..values import Completed, SearchSpace, Trial
from ._facts import RunFacts
from ._ledger import Ledger, read, write_atomic
from ._schema import SCHEMA_VERSION, schema_version
from ._state import State

if TYPE_CHECKING:
    from ..task import Task

LEDGER = "ledger.log"


class StoredRun:
    """Folder, task and state of a run, for reading. Only a `LedgerRecorder` writes to the ledger of a run."""

    def __init__(self, path: Path, task: Task, state: State) -> None:
        self.path, self.task, self.state = path, task, state

    @property
    def trials(self) -> list[Trial]:
        """Trials of the run, in the order of their end."""
        return self.state.trials

    @property
    def space(self) -> SearchSpace:
        """The space that the run searches. Raises `InputError` for a run that has no facts yet."""
        return self.facts().space

    def facts(self) -> RunFacts:
        """The facts of the run. Raises `InputError` for a run that has none yet."""
        if self.state.facts is None:
            raise InputError(f"{self.path} has not got as far as its first trial; run `{command('resume', self.path)}`")
        return self.state.facts

    @property
    def is_locked(self) -> bool:
        """True while a process is writing to this run."""
        import fcntl

        with (self.path / LEDGER).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def trial(self, point_id: str) -> Completed:
        """The completed trial of a point such as "t7". Raises `InputError` if there is none."""
        for trial in self.state.trials:
            if f"t{trial.number}" == point_id:
                if isinstance(trial, Completed):
                    return trial
                raise InputError(
                    f"{point_id} did not complete ({trial.reason}), so there is nothing to look at or export"
                )
        raise InputError(f"no point {point_id!r} in {self.path}; `{command('front', self.path)}` lists them")


def read_run(path: Path | str) -> StoredRun:
    """Read a run's folder. A running or killed search may be read at any time.

    Raises `InputError` where there is no run, `IntegrityError` for a ledger that is damaged, or that a newer version
    of paredown wrote.
    """
    path = Path(path)
    task = stored_task(path)
    return StoredRun(path, task, _replay(path, read(_ledger_of(path))[0]))


def create_run(path: Path, task: Task) -> tuple[StoredRun, Ledger]:
    """Make a new run in `path`, or open the one of this very task that is there, to go on with it.

    The ledger is open for appending; the caller closes it. Raises `InputError` if the folder belongs to another task,
    holds something else, or is in use by another process.
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
    """Build the state of a run. Ledgers of this and of older versions of the format are read."""
    newest = max(map(schema_version, records), default=SCHEMA_VERSION)
    if newest > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path / LEDGER} was written by a newer paredown: its format has version {newest}, and this paredown "
            f"reads up to version {SCHEMA_VERSION}; update paredown, or start a new run in another folder"
        )
    try:
        return State.replay(records)
    except (KeyError, TypeError, ValueError) as error:  # whole, by its checksums, but not what this version writes
        raise IntegrityError(
            f"{path / LEDGER} holds a record that this version of paredown cannot read ({type(error).__name__}: "
            f"{error}); use the version that wrote it, or start a new run in another folder"
        ) from None


def _has_begun(path: Path) -> bool:
    """True if there is something to lose. A run that failed while it loaded leaves its folder to the corrected task."""
    ledger = path / LEDGER
    return ledger.exists() and _replay(path, read(ledger)[0]).facts is not None


def new_run_path(task: Task, root: Path = Path("runs")) -> Path:
    """Return the first free folder among `runs/<name>-<date>` and `runs/<name>-<date>-<n>`."""
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
