"""The facts of a run: everything that is known before the first trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from ...compressors import SPEC_VERSION, Anatomy
from ...errors import InputError
from ...evaluators import ActivationGraph
from ..values import Candidate, Limits, Objective, SearchSpace, space_from_dict, space_to_dict
from ._schema import SCHEMA_VERSION, schema_version

Costs: TypeAlias = Mapping[str, tuple[tuple[float, ...], ...]]
"""Metric -> one row for each group, one value for each level."""

_ENVELOPE = frozenset({"type", "schema_version", "spent_s"})
"""Keys of the record that are no facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts of a run, as the ledger keeps them in its record "facts".

    The limits are empty at first. They are bound once the original is known, and the facts are recorded again. Rows
    have one entry for each group of the space, and in it one value for each level.

    model         digest of the model's weights
    search_data   digest of the validation ("search") split
    report_data   digest of the test ("report") split
    objectives    objectives of the task, the quality first
    guide         objectives that the searcher is told, with their indifference thresholds
    quality       name of the task's metric
    quality_is    how its figure comes from the samples, where that is more than the mean over them; "" else
    outputs       names of the compared outputs, where the model has several
    limits        metric -> (least or None, most or None), in absolute figures
    costs         metric -> rows; metrics on a further device bear its name
    fixed         metric -> cost that every candidate pays
    original_bytes  stored bytes of each group when it is left alone
    weight_error  rows of the relative squared error of the weights, of each group's worst layer
    runs_as       rows of the kernels that a layer's levels run in, or of the units that a set keeps
    profile       name of the first device's profile
    profiles      names of all devices' profiles, the first included
    baselines     uniform settings and threshold settings with their labels; None in a ledger that does not list them
    activations   activations of the model, from which peak memory is worked out; None where the profile has no memory
    unused        layers that never run
    anatomy       anatomy of the model; None in a ledger that does not keep it
    repair        repairs of every candidate: "bias", "batch_norm" and "samples", as in [repair]; None in a ledger that
                  does not keep them, whose task names them
    """

    model: str
    search_data: str
    report_data: str
    space: SearchSpace
    objectives: tuple[Objective, ...]
    guide: tuple[Objective, ...]
    quality: str
    limits: Limits
    costs: Costs
    fixed: Mapping[str, float]
    original_bytes: tuple[float, ...]
    weight_error: tuple[tuple[float, ...], ...]
    runs_as: tuple[tuple[str, ...], ...]
    profile: str
    profiles: tuple[str, ...]
    baselines: tuple[tuple[Candidate, str], ...] | None
    activations: ActivationGraph | None
    unused: tuple[str, ...]
    anatomy: Anatomy | None
    quality_is: str = ""
    outputs: tuple[str, ...] = ()
    repair: Mapping[str, Any] | None = None

    def to_record(self) -> dict[str, Any]:
        """Return the ledger's record "facts", in the current version of the format."""
        return {
            "type": "facts",
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "search_data": self.search_data,
            "report_data": self.report_data,
            "space": space_to_dict(self.space),
            "spec_version": SPEC_VERSION,
            "objectives": [_objective_to_dict(o) for o in self.objectives],
            "guide": [_objective_to_dict(o) for o in self.guide],
            "quality": self.quality,
            "quality_is": self.quality_is,
            "outputs": list(self.outputs),
            "limits": {name: [low, high] for name, (low, high) in self.limits.items()},
            "costs": {name: _to_lists(rows) for name, rows in self.costs.items()},
            "fixed": dict(self.fixed),
            "original_bytes": list(self.original_bytes),
            "weight_error": _to_lists(self.weight_error),
            "runs_as": _to_lists(self.runs_as),
            "profile": self.profile,
            "profiles": list(self.profiles),
            "baselines": None if self.baselines is None else [[list(c.levels), label] for c, label in self.baselines],
            "activations": None if self.activations is None else self.activations.to_dict(),
            "unused": list(self.unused),
            "anatomy": None if self.anatomy is None else self.anatomy.to_dict(),
            "repair": None if self.repair is None else dict(self.repair),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunFacts:
        """Read a record of this version of the format, or of an older one.

        A record of version 1 may lack `profiles`, `baselines`, `activations`, `unused`, `anatomy` and `spec_version`,
        and its other keys are ignored. One of version 2 lacks `quality_is` and `outputs`, one of version 3 `repair`.
        Raises `InputError` naming the key that a record of this version has too much or lacks.
        """
        data = {key: value for key, value in record.items() if key not in _ENVELOPE}
        if schema_version(record) < SCHEMA_VERSION:
            data = {**_defaults(data), **data}
        else:
            _check_keys(data)
        activations, anatomy, baselines = data["activations"], data["anatomy"], data["baselines"]
        return cls(
            model=data["model"],
            search_data=data["search_data"],
            report_data=data["report_data"],
            space=space_from_dict(data["space"], data["spec_version"]),
            objectives=tuple(map(_objective_from_dict, data["objectives"])),
            guide=tuple(map(_objective_from_dict, data["guide"])),
            quality=data["quality"],
            quality_is=data["quality_is"],
            outputs=tuple(data["outputs"]),
            limits={name: (low, high) for name, (low, high) in data["limits"].items()},
            costs={name: _to_tuples(rows) for name, rows in data["costs"].items()},
            fixed=dict(data["fixed"]),
            original_bytes=tuple(data["original_bytes"]),
            weight_error=_to_tuples(data["weight_error"]),
            runs_as=_to_tuples(data["runs_as"]),
            profile=data["profile"],
            profiles=tuple(data["profiles"]),
            baselines=None
            if baselines is None
            else tuple((Candidate(levels=tuple(levels)), label) for levels, label in baselines),
            activations=ActivationGraph.from_dict(activations) if activations else None,
            unused=tuple(data["unused"]),
            anatomy=None if anatomy is None else Anatomy.from_dict(anatomy),
            repair=data["repair"],
        )


def _defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for the keys that came to version 1 one after another."""
    return {
        "spec_version": 1, "profiles": [data["profile"]], "baselines": None, "activations": None, "unused": [],
        "anatomy": None, "quality_is": "", "outputs": [], "repair": None,
    }  # fmt: skip


def _check_keys(data: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(RunFacts)} | {"spec_version"}
    if unknown := sorted(set(data) - known):
        raise InputError(f"unknown key {unknown[0]!r} in the facts of a run; known are {', '.join(sorted(known))}")
    if missing := sorted(known - set(data)):
        raise InputError(f"the facts of a run lack the key {missing[0]!r}")


def _objective_to_dict(objective: Objective) -> dict[str, Any]:
    data: dict[str, Any] = {"name": objective.name, "maximise": objective.maximise}
    if math.isfinite(objective.indifference_threshold):
        data["good_enough"] = objective.indifference_threshold
    return data


def _objective_from_dict(data: Mapping[str, Any]) -> Objective:
    return Objective(
        name=data["name"], maximise=data["maximise"], indifference_threshold=data.get("good_enough", -math.inf)
    )


def _to_lists(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in rows]


def _to_tuples(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in rows)
