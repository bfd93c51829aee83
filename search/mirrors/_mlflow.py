"""The run as MLflow shows it: a parent run to read, a child for each point. MLflow is imported here and nowhere else.

Only the driver writes, in synchronous batches: asynchronous logging loses metrics when the process is killed.
`RUN/mlflow.json` remembers which parts have been logged. Without that file, or without the store, a new parent run is
made from the ledger.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ..report import PAGE, PICTURE, TABLE, trial_rows
from ..run import collector_off, front_hypervolume, write_atomic
from ..task import environment
from ..values import Completed, EarlyStopped, Failed, Infeasible, SearchSpace, Trial
from ._mlflow_children import Child, axes_of, children_of
from ._mlflow_page import MAX_NOTE, front_tags
from ._store_uri import same_store, sqlite_file

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    from ..front import Front

STATE = "mlflow.json"
SCHEMA_VERSION = 1
FILES = ("task.toml", "task.json", "front.json", PICTURE, PAGE, TABLE)
"""Files of the run's folder that are copied when they appear and whenever they change."""

_TRIALS_TABLE = "trials.json"
_TABLE_TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": _TRIALS_TABLE, "type": "table"}])}
_MAX_CURVE = 200
_BATCH = {"metrics": 800, "params": 100, "tags": 100}
"""Most items of each kind in one call: MLflow allows a thousand in all."""
_MAX_TAG, _MAX_PARAM = MAX_NOTE, 6000
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag that makes the UI show its pages for models, not those for language-model applications."""
_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

_T = TypeVar("_T")
Children = Literal["pareto", "all", "none"]
Status = Literal["FINISHED", "FAILED", "KILLED"]


class TaskLike(Protocol):
    """A task, as far as the mirror uses it."""

    def to_dict(self) -> dict[str, Any]: ...


class MlflowMirror:
    """Copy of a run in MLflow. Each call of `sync` logs the parts that are not logged yet.

    tracking_uri  address of the store; a missing SQLite file is made, with the artifacts in `mlartifacts` beside it
    experiment    name of the experiment; made if missing
    run_dir       the run's folder; its name is the name of the parent run
    children      points that get a run of their own: "pareto" (the front and the baselines, when the search has ended),
                  "all" (every trial, when it has ended), "none"

    MLflow's telemetry is switched off for this process. Errors of MLflow or its store are raised: the caller decides.
    """

    def __init__(self, tracking_uri: str, experiment: str, run_dir: Path, children: Children) -> None:
        self._uri, self._experiment, self._run_dir, self._children = tracking_uri, experiment, run_dir, children
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._state: dict[str, Any] = {}

    def connect(self) -> None:
        """Import MLflow, and open the store (a new one gets its tables) and the experiment.

        It takes a second or two and needs no trial, so it can be done while workers start. Otherwise `sync` does it.
        """
        if self._client is not None:
            return
        os.environ.update(_OFF)  # before the import: MLflow looks at them then
        with warnings.catch_warnings(), collector_off():
            warnings.simplefilter("ignore", DeprecationWarning)  # of MLflow's own mappings, by SQLAlchemy 2.1
            from mlflow.tracking import MlflowClient

            for name in ("alembic", "mlflow.store.db.utils"):  # dozens of lines on how tables are made
                logging.getLogger(name).setLevel(logging.WARNING)
            with _locked(self._lock_path()):  # processes that first open one SQLite file together break it
                client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                self._experiment_id = self._experiment_of(client)
        self._client = client

    def sync(
        self,
        task: TaskLike,
        space: SearchSpace,
        trials: Sequence[Trial],
        front: Front | None,
        *,
        timings: Callable[[], Mapping[str, float]],
        final: bool,
        status: Status = "FINISHED",
        spent_s: float = 0.0,
    ) -> None:
        """Bring the store up to date.

        trials   in the order of the ledger
        final    whether the search has ended

        timings  gives purpose -> seconds; it is called late, so that the logging before it counts
        status   status of the parent run at the end; until then it is RUNNING
        spent_s  seconds that the run has taken so far
        """
        began = time.monotonic()
        client = self._open(task, spent_s)
        run_id: str = self._state["run_id"]
        if self._children == "all" or (self._children == "pareto" and final):
            for child in children_of(trials, space, front, everything=self._children == "all"):
                self._log_child(client, child, space)
        if len(trials) > self._state["n_trials"]:
            self._log_trials_table(client, run_id, trials, space)
        self._log_files(client, run_id)
        seconds = timings()
        tags = {
            **front_tags(front, seconds, spent_s + time.monotonic() - began),
            **(_TABLE_TAG if trials else {}),
        }
        metrics: dict[tuple[str, int], float] = {}  # in the order in which the run's page lists them
        if front is not None and front.points:
            metrics |= _pick_metrics(front, len(trials))
        metrics |= _trial_metrics(trials, self._state["n_trials"], front)
        metrics[("trial/failed", len(trials))] = float(sum(isinstance(t, Failed) for t in trials))
        metrics[("trial/dominated", len(trials))] = float(sum(isinstance(t, EarlyStopped) for t in trials))
        passes = sum(t.samples for t in trials if not isinstance(t, Infeasible))
        metrics[("trial/samples", len(trials))] = float(passes)
        metrics |= {(f"seconds/{_key(name)}", len(trials)): spent for name, spent in seconds.items()}
        self._log(run_id, metrics=metrics, tags=tags)
        self._state["n_trials"] = len(trials)
        self._save()
        if final:
            client.set_terminated(run_id, status=status)

    # ── the store and the parent run ───────────────────────────────────────────────────────────

    def _open(self, task: TaskLike, spent_s: float) -> MlflowClient:
        """The client. The first call connects, and finds or makes the parent run."""
        self.connect()
        client = self._client
        if client is None:
            raise RuntimeError("the mirror must be connected before it logs")
        if not self._state:
            self._state = self._remembered(client) or self._fresh(client, self._experiment_id, task, spent_s)
            client.update_run(self._state["run_id"], status="RUNNING")
        return client

    def _lock_path(self) -> Path:
        database = sqlite_file(self._uri)
        if database is None:
            return self._run_dir / "mlflow.lock"
        database.parent.mkdir(parents=True, exist_ok=True)
        return database.with_name(f"{database.name}.lock")

    def _experiment_of(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            database = sqlite_file(self._uri)
            location = None if database is None else (database.resolve().parent / "mlartifacts").as_uri()
            return str(client.create_experiment(self._experiment, artifact_location=location, tags=_KIND))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _remembered(self, client: MlflowClient) -> dict[str, Any] | None:
        """The state of an earlier session, if its parent run is still in this store."""
        from mlflow.exceptions import MlflowException

        path = self._run_dir / STATE
        if not path.is_file():
            return None
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError):
            return None  # treated as missing: it can be made again from the ledger
        if (
            not isinstance(state, dict)
            or state.get("schema_version") != SCHEMA_VERSION
            or not same_store(str(state["tracking_uri"]), self._uri)
        ):
            return None
        try:
            run = client.get_run(state["run_id"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return state if run.info.lifecycle_stage == "active" else None

    def _fresh(self, client: MlflowClient, experiment_id: str, task: TaskLike, spent_s: float) -> dict[str, Any]:
        run = client.create_run(
            experiment_id,
            start_time=round(1000 * (time.time() - spent_s)),
            run_name=self._run_dir.resolve().name,
            tags={
                "mlflow.source.name": "paredown",
                "mlflow.source.type": "LOCAL",
                "paredown.run": str(self._run_dir.resolve()),
            },
        )
        run_id = str(run.info.run_id)
        here = environment()
        params = {_key(name): value for name, value in _flat(task.to_dict())}
        params |= {f"machine.{name}": str(here[name]) for name in ("processor", "usable_cores", "platform", "python")}
        self._log(run_id, params=params)
        client.log_dict(run_id, here, "environment.json")
        self._state = {
            "schema_version": SCHEMA_VERSION,
            "tracking_uri": self._uri,
            "experiment_id": experiment_id,
            "run_id": run_id,
            "n_trials": 0,
            "children": {},
            "files": {},
        }
        self._save()
        return self._state

    def _save(self) -> None:
        write_atomic(self._run_dir / STATE, json.dumps(self._state, indent=1) + "\n")

    # ── what is logged ─────────────────────────────────────────────────────────────────────────

    def _log_trials_table(self, client: MlflowClient, run_id: str, trials: Sequence[Trial], space: SearchSpace) -> None:
        """Write the table of trials anew, in the format of MLflow's `log_table`, which would append to it."""
        columns, rows = trial_rows(trials, space)
        client.log_dict(run_id, {"columns": columns, "data": rows}, _TRIALS_TABLE)

    def _log_files(self, client: MlflowClient, run_id: str) -> None:
        for name in FILES:
            path = self._run_dir / name
            if not path.is_file():
                continue
            stamp = [path.stat().st_size, path.stat().st_mtime_ns]
            if self._state["files"].get(name) != stamp:
                client.log_artifact(run_id, str(path))
                self._state["files"][name] = stamp
                self._save()

    def _log_child(self, client: MlflowClient, child: Child, space: SearchSpace) -> None:
        known = self._state["children"].setdefault(child.id, {})
        if known.get("digest") == child.digest:
            return
        is_new = "digest" not in known  # a child that a kill interrupted is logged again
        if "run_id" not in known:
            run = client.create_run(
                self._state["experiment_id"],
                run_name=child.name,
                tags={
                    "mlflow.parentRunId": self._state["run_id"],
                    "mlflow.source.name": "paredown",
                    "paredown.point": child.id,
                },
            )
            known["run_id"] = str(run.info.run_id)
            self._save()
        params = {_key(name): value for name, value in child.params(axes_of(space), space).items()} if is_new else {}
        if is_new:
            client.log_dict(known["run_id"], dict(child.config), "config.json")
        metrics = {(_key(name), 0): value for name, value in child.metrics.items()}
        self._log(known["run_id"], metrics=metrics, params=params, tags=child.tags)
        client.set_terminated(known["run_id"], status="FAILED" if child.failed else "FINISHED")
        known["digest"] = child.digest
        self._save()

    def _log(
        self,
        run_id: str,
        *,
        metrics: Mapping[tuple[str, int], float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in synchronous batches of the sizes that MLflow allows. `metrics` is (name, step) -> value."""
        from mlflow.entities import Metric, Param, RunTag

        client, now = self._client, int(time.time() * 1000)
        if client is None:
            raise RuntimeError("the mirror must be connected before it logs")
        all_metrics: list[Metric] = [Metric(name, value, now, step) for (name, step), value in (metrics or {}).items()]
        all_params: list[Param] = [Param(name, value[:_MAX_PARAM]) for name, value in (params or {}).items()]
        all_tags: list[RunTag] = [RunTag(name, value[:_MAX_TAG]) for name, value in (tags or {}).items()]
        for some_metrics, some_params, some_tags in zip_longest(
            _chunks(all_metrics, _BATCH["metrics"]),
            _chunks(all_params, _BATCH["params"]),
            _chunks(all_tags, _BATCH["tags"]),
            fillvalue=(),
        ):
            client.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)


def _trial_metrics(trials: Sequence[Trial], known: int, front: Front | None) -> dict[tuple[str, int], float]:
    """(name, step) -> value for the new trials. The step counts finished trials, in the order of the ledger.

    `trial/<objective>` is logged for each trial, and `front/hypervolume` for at most about `_MAX_CURVE` steps.
    """
    metrics: dict[tuple[str, int], float] = {}
    if front is None or not front.objectives:
        return metrics
    steps = range(known + 1, len(trials) + 1)
    stride = max(1, len(steps) // _MAX_CURVE)
    volume, at = None, 0
    for step in steps:
        trial = trials[step - 1]
        if isinstance(trial, Completed):
            metrics |= {
                (f"trial/{_key(o.name)}", step): trial.metrics[o.name].value
                for o in front.objectives
                if o.name in trial.metrics
            }
        if step % stride == 0 or step == len(trials):
            if at == 0 or any(isinstance(t, Completed) for t in trials[at:step]):  # nothing else changes it
                volume = front_hypervolume(trials[:step], front.objectives, front.limits)
            at = step
            if volume is not None:
                metrics["front/hypervolume", step] = volume
    return metrics


def _pick_metrics(front: Front, step: int) -> dict[tuple[str, int], float]:
    """Metrics of the picks, (`pick/knee.accuracy`, step) -> value, so that parent runs can be compared in one table.

    MLflow makes a section of each prefix and a chart of each name, so these are only the metrics that decide.
    """
    names = dict.fromkeys([*(o.name for o in front.objectives), "bytes", "latency_ms", "speedup"])
    return {
        (f"pick/{_key(pick)}.{_key(name)}", step): front[point_id].metrics[name].value
        for pick, point_id in front.picks.items()
        for name in names
        if name in front[point_id].metrics
    }


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested keys: `{"budget": {"trials": 150}}` gives ("budget.trials", "150"). None is left out."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and value != {}:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    """The name with only the characters that MLflow allows, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
