"""The task that a person writes: model, data, metric, device, space, objectives, limits, budget. One checked value.

The smallest task names a model, its data and a metric; every other key has a default that serves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ...errors import TaskError
from ._field_types import PluginNames
from ._plugins import Plugins
from ._rules import check_limit, check_names, check_throughput, per_sample
from ._section import Section
from ._sections import (
    CARBON,
    COSTS,
    MORE_COSTS,
    THROUGHPUT,
    BudgetSection,
    DataSection,
    HardwareSection,
    Limit,
    MlflowSection,
    ModelSection,
    ObjectivesSection,
    PrepareSection,
    QualitySection,
    RepairSection,
    SearchSection,
)
from ._space_section import SpaceSection, follow_axes
from ._toml import explain, merge_overrides, read_toml
from ._user_code import is_file_reference


class Task(Section):
    """A search, described. Made by `Task.load` (a TOML file) or `Task.from_dict`; frozen.

    Paths in it are relative to `base_dir`. `(task.to_dict(), task.base_dir)` is all that another process needs.
    """

    model: ModelSection | None = Field(
        default=None, description="where the model comes from; may be left out where Python hands a model over"
    )
    data: DataSection = Field(description="where the data comes from")
    quality: QualitySection = Field(default_factory=QualitySection, description="what makes a model good")
    hardware: HardwareSection = Field(default_factory=HardwareSection, description="where the model will run")
    space: SpaceSection = Field(default_factory=SpaceSection, description="what may be done to each layer")
    prepare: PrepareSection = Field(
        default_factory=PrepareSection, description="what is done to the model before anything is compressed"
    )
    repair: RepairSection = Field(
        default_factory=RepairSection, description="what is made good after compression, without training"
    )
    objectives: ObjectivesSection = Field(
        default_factory=ObjectivesSection, description="what the front is spread over"
    )
    limits: dict[str, Limit] = Field(default_factory=dict, description="metric or cost -> what a point must keep to")
    search: SearchSection = Field(default_factory=SearchSection, description="how candidates are proposed")
    budget: BudgetSection = Field(default_factory=BudgetSection, description="when to stop")
    mlflow: MlflowSection = Field(default_factory=MlflowSection, description="what is mirrored to MLflow")
    plugins: PluginNames = Field(
        default=(),
        description="code that registers methods, metrics, runtimes or searchers when it is imported, which every "
        "process of the run does first: 'file.py' (relative to the task file) or 'module'",
    )

    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _names_and_limits(self) -> Self:
        known = self.known_metrics
        check_names(self.objective_names(), known=known, where="objectives.names")
        if not {self.metric_name, "divergence"} & set(self.objective_names()):
            raise ValueError(
                f"objectives.names: must have {self.metric_name!r} or 'divergence' among them; "
                "a cost alone is best at nothing"
            )
        check_names(tuple(self.limits), known=known, where="limits")
        if CARBON in {*self.objective_names(), *self.limits} and self.hardware.grid_g_per_kwh is None:
            raise ValueError(
                f"{CARBON}: needs hardware.grid_g_per_kwh, the grams of CO2 that your grid emits for a kilowatt-hour"
            )
        if self.model is not None and self.model.kv_cache_bits is not None and self.hardware.runtime != "torch":
            raise ValueError(
                f"model.kv_cache_bits: only the runtime 'torch' has such a cache, and hardware.runtime is "
                f"{self.hardware.runtime!r}"
            )
        if THROUGHPUT in self.limits:
            check_throughput(self.limits[THROUGHPUT], others=tuple(self.limits))
        for name, limit in self.limits.items():
            check_limit(name, limit.model_dump(), metric=self.metric_name, costs=(*COSTS, *MORE_COSTS))
        return self

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """A task from a TOML file. Raises `TaskError`: no such file, no TOML (with the line), a bad key."""
        path = Path(path)
        text, data = read_toml(path)
        return cls._checked(data, base_dir=path.resolve().parent, source=str(path), text=text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], base_dir: Path | str | None = None) -> Task:
        """A task from a mapping of the same shape as the TOML file (`base_dir` defaults to the working directory).

        Functions may stand where their names do, if they are defined at the top of a module. Raises `TaskError`: an
        unknown key (with the nearest known one), a wrong type, a value out of its range, sections that contradict each
        other.
        """
        return cls._checked(
            data, base_dir=Path.cwd() if base_dir is None else Path(base_dir).resolve(), source="task", text=""
        )

    @classmethod
    def _checked(cls, data: Mapping[str, Any], *, base_dir: Path, source: str, text: str) -> Task:
        if not isinstance(data, Mapping):
            raise TaskError(f"a task must be a mapping of sections, got {type(data).__name__}")
        cls._follow_axes()
        try:
            task = cls.model_validate(dict(data))
        except ValidationError as error:
            plugins = data.get("plugins")
            if not _has_unknown_axis(error) or not isinstance(plugins, (list, tuple)) or not plugins:
                raise explain(error, schema=cls, source=source, text=text) from error
            Plugins(references=tuple(map(str, plugins)), base_dir=base_dir).load()  # an axis of theirs, perhaps
            if not cls._follow_axes():
                raise explain(error, schema=cls, source=source, text=text) from error
            return cls._checked(data, base_dir=base_dir, source=source, text=text)
        task._base_dir = base_dir
        return task

    @classmethod
    def _follow_axes(cls) -> bool:
        """Know the keys of [space] that plugins have registered or taken back; tell whether anything changed."""
        changed = follow_axes()
        if changed:
            Task.model_rebuild(force=True)
        return changed

    def with_overrides(self, overrides: Sequence[str]) -> Task:
        """A copy with `table.key=value` applied, in order (what the command line calls `-o`).

        A value is TOML; a bare word (`evolution`, `30m`) is taken as a string. Raises `TaskError`.
        """
        if not overrides:
            return self
        merged = merge_overrides(self.model_dump(mode="json", exclude_unset=True), overrides, schema=type(self))
        return self._checked(merged, base_dir=self._base_dir, source=f"-o {' '.join(overrides)}", text="")

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value as JSON, paths as written. `from_dict` with the `base_dir` is the inverse."""
        return self.model_dump(mode="json")

    @property
    def base_dir(self) -> Path:
        """Absolute folder of the task file, at which relative paths start."""
        return self._base_dir

    def path(self, name: str) -> Path:
        """A path of the task, made absolute."""
        return self._base_dir / Path(name).expanduser()

    @property
    def digest(self) -> str:
        """sha256 that identifies a run: it covers every key except the budget and the mirror, and not `base_dir`."""
        return _digest({key: value for key, value in self.to_dict().items() if key not in ("budget", "mlflow")})

    @property
    def metric_name(self) -> str:
        """The metric's short name, as in objectives and limits: of `file.py:top5`, `top5`."""
        return self.quality.metric.rpartition(":")[2].replace(".", "_")

    @property
    def known_metrics(self) -> tuple[str, ...]:
        """Names that objectives and limits may use."""
        return tuple(dict.fromkeys((self.metric_name, "divergence", *COSTS, *MORE_COSTS, THROUGHPUT)))

    def objective_names(self, metric: str | None = None) -> tuple[str, ...]:
        """Objectives of the task; by default the metric (under the name `metric`, if it is given) and bytes."""
        return self.objectives.names or (metric or self.metric_name, "bytes")

    @property
    def profile(self) -> str:
        """The hardware profile as `load_profile` takes it: a name, or an absolute path if there is such a file."""
        return self.profiles[0]

    @property
    def profiles(self) -> tuple[str, ...]:
        """Every hardware profile, as `load_profile` takes it. The first leads the search."""
        return tuple(str(self.path(n)) if self.path(n).is_file() else n for n in self.hardware.profile_names)

    @property
    def cost_limits(self) -> dict[str, Limit]:
        """Limits on costs of which less is better: a throughput of at least 500 becomes 2 ms a sample at most."""
        return {
            ("ms_per_sample" if name == THROUGHPUT else name): per_sample(limit) if name == THROUGHPUT else limit
            for name, limit in self.limits.items()
        }

    def code_references(self) -> dict[str, str]:
        """Key -> reference, for each piece of the user's code that the task names by file."""
        named = {
            "model.factory": self.model.factory if self.model else None,
            "data.factory": self.data.factory,
            "quality.metric": self.quality.metric,
        }
        return {key: reference for key, reference in named.items() if reference and is_file_reference(reference)}


def task_schema() -> dict[str, Any]:
    """JSON Schema of a task file: every key with its description and default."""
    Task._follow_axes()
    return Task.model_json_schema()


def _has_unknown_axis(error: ValidationError) -> bool:
    return any(p["type"] == "extra_forbidden" and p["loc"][0] == "space" for p in error.errors(include_url=False))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def as_task(task: Task | Mapping[str, Any] | Path | str) -> Task:
    """Return a task as it is, or make one of a dict or of the path of a TOML file."""
    if isinstance(task, Task):
        return task
    return Task.from_dict(task) if isinstance(task, Mapping) else Task.load(task)
