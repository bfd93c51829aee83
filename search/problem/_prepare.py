"""The way from a task to a problem: load, trace, build the space, calibrate, run the original, name the objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ..devices import Device, devices_of
from ..space import describe_without_moments, narrowed, parameter_places, removes_something
from ..values import SearchSpace
from ._compared import Compared, compared_outputs
from ._context import EvaluationContext
from ._finite import check_finite, sample_outputs
from ._folded import describe_folded, folded_model
from ._objectives import guide_of, objectives_of
from ._problem import Problem
from ._quality import original_quality
from ._source import describe_source
from ._user_errors import user_errors

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration, LayerSpec
    from ...evaluators import Metric, OutputDistance, Split
    from ...hardware_profiles import HardwareProfile
    from ..space import Structured
    from ..task import Plugins, RepairSection, Splits, Task

_WIDE = 64
"""Number of samples to trace where one sample does not run every layer."""

Specs = Callable[["Anatomy"], Iterable["LayerSpec"]]
"""Anatomy -> specs that will be asked for beside those of the space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """Everything that the task names, loaded.

    folded  weights that were computed from other parameters, and are plain now -> what computed them
    """

    plugins: Plugins
    model: nn.Module
    folded: Mapping[str, str]
    splits: Splits
    metric: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """The traced model and its space.

    model   the model, scaled if the task asks for it
    digest  digest of the weights before scaling
    metric  the task's metric, which knows its output and class axis
    distance  distance of the outputs that are compared
    batch_size  samples of one pass: the task's, or fewer where the outputs are large
    notes   lines on these outputs
    """

    model: nn.Module
    digest: str
    anatomy: Anatomy
    profiles: Sequence[HardwareProfile]
    structured: Structured | None
    space: SearchSpace
    metric: Metric
    distance: OutputDistance
    batch_size: int
    notes: tuple[str, ...]


def prepare(task: Task, *, store: Path, model: nn.Module | None = None, specs: Specs | None = None) -> Problem:
    """Import the plugins, load, trace, calibrate, and run the original once over the search split.

    store  folder for the moments and gradients of the calibration
    model  the model, if it is handed over as an object
    specs  gives the specs that will be asked for beside those of the task's space; calibration serves them too

    Raises `TaskError` (or another `InputError`) for anything that the task names and that cannot be used.
    """
    from ..space import weights_of
    from ..task import user_modules

    loaded = _load(task, model)
    with user_errors(task.data.batch_size):
        built = _build(task, loaded)
        extra = specs(built.anatomy) if specs else ()
        wanted = [*extra, *(spec for group in built.space.groups for spec in group.levels)]
        calibration = _calibrate(task, loaded, built, wanted, store)
        space, notes = narrowed(built.space, built.anatomy, calibration, weights_of(built.model))
        notes += describe_without_moments(space, built.anatomy, calibration)
        built = replace(built, space=space)
        context = _context(task, loaded, built, calibration, store)
    metric = context.metric
    objectives = objectives_of(task, metric.name, metric.maximise)
    return Problem(
        task=task,
        context=context,
        guide=guide_of(task, objectives, metric.name, context.divergence),
        quality=original_quality(context, len(context.split)),
        splits=loaded.splits,
        calibration_inputs=loaded.splits.calibration.take(1).inputs,
        devices=_devices(task, built.profiles, context),
        objectives=objectives,
        modules=user_modules(task),
        model_source=None if model is not None else {"task": task.to_dict(), "base_dir": str(task.base_dir)},
        model_digest=built.digest,
        places=tuple(parameter_places(built.model, built.anatomy, space, task.space.leave)),
        notes=(*describe_source(built.model), *describe_folded(loaded.folded), *built.notes, *notes),
    )


def _load(task: Task, model: nn.Module | None) -> _Loaded:
    """Import the plugins, check the names that are needed only later, and load model, data and metric."""
    from ...compressors.anatomy import check_runs
    from ..task import Plugins, load_task_data, load_task_metric, load_task_model, widened

    plugins = Plugins.of(task)
    plugins.load()
    _check_registered(task)
    raw = load_task_model(task, plain=False) if model is None else widened(model)
    splits = load_task_data(task)
    with user_errors(task.data.batch_size):
        sample = splits.search.take(1).inputs
        check_runs(raw, sample)
        plain = folded_model(raw, sample, is_ours=raw is not model)
        check_finite(plain.model, sample_outputs(plain.model, sample))
    plain.model.eval().requires_grad_(False)
    metric = load_task_metric(task)
    return _Loaded(plugins=plugins, model=plain.model, folded=plain.folded, splits=splits, metric=metric)


def _check_registered(task: Task) -> None:
    """Raise `InputError` now for a runtime or searcher that is needed only hours later."""
    from ...evaluators.runtimes import get_runtime
    from ..searchers import check_searcher

    get_runtime(task.hardware.runtime)
    check_searcher(task.search.searcher, task.search.params)


def _build(task: Task, loaded: _Loaded) -> _Built:
    """Trace the model, find the removable structures, scale channels, and build the space."""
    from ...compressors import model_digest
    from ...hardware_profiles import load_profile
    from ..space import build_space, weights_of

    model, splits = loaded.model, loaded.splits
    compared = compared_outputs(task, model, splits, loaded.metric)
    distance, batch_size = compared.distance, compared.batch_size
    anatomy = _trace(model, splits, batch_size, distance.names or None)
    profiles = [load_profile(name) for name in task.profiles]
    # before scaling, because scaling changes the norms of the weights
    structured = _find_structure(task, model, splits.calibration, profiles, compared)
    digest = model_digest(model)
    if task.prepare.scaling != "off":
        model = _scaled(task, model, anatomy, splits.calibration, batch_size)
    space = build_space(task, anatomy, weights=weights_of(model), structured=structured, profiles=profiles)
    return _Built(
        model=model, digest=digest, anatomy=anatomy, profiles=profiles, structured=structured, space=space,
        metric=compared.metric, distance=distance, batch_size=batch_size, notes=compared.notes,
    )  # fmt: skip


def _trace(model: nn.Module, splits: Splits, batch: int, compared: Sequence[str] | None) -> Anatomy:
    """Trace the model on one sample, or on more if some layers did not run, or seem to influence nothing.

    The experts of a mixture run only on the tokens that are routed to them.
    """
    from ...compressors import trace_anatomy

    one = splits.search.take(1).inputs
    anatomy = trace_anatomy(model, one, compared=compared)
    if not anatomy.unused:
        return anatomy
    more = splits.calibration.take(min(batch, _WIDE, len(splits.calibration))).inputs
    wider = trace_anatomy(model, more, one, compared=compared)
    return wider if len(wider.unused) < len(anatomy.unused) else anatomy


def _find_structure(
    task: Task, model: nn.Module, calibration: Split, profiles: Sequence[HardwareProfile], compared: Compared
) -> Structured | None:
    """Return the removable structures; None if the task removes nothing.

    Raises `TaskError` for a structure that cannot be removed, and for options that do not go with removal.
    """
    from ..devices import wanted
    from ..space import find_structure, refuse_with_structure

    if not removes_something(task.space):
        return None
    batches = [inputs for inputs, _ in calibration.batches(min(16, compared.batch_size))]
    refuse_with_structure(task, wanted(task))
    return find_structure(task, model, batches, profiles, compared.distance, mask=calibration.mask)


def _scaled(task: Task, model: nn.Module, anatomy: Anatomy, calibration: Split, batch_size: int) -> nn.Module:
    """Return a copy of the model with scaled channels and the same outputs."""
    import copy

    from ...compressors import calibrate, scale_channels

    how, ready = task.prepare.scaling, copy.deepcopy(model)
    batches = (inputs for inputs, _ in calibration.batches(batch_size))
    calibrated = calibrate(ready, batches, anatomy, moments=True, mask=calibration.mask) if how == "awq" else None
    scale_channels(
        ready, calibration.take(2).inputs, how, anatomy=anatomy,
        moments=None if calibrated is None else calibrated.moments, bits=task.prepare.bits,
    )  # fmt: skip
    return ready


def _calibrate(task: Task, loaded: _Loaded, built: _Built, wanted: Sequence[LayerSpec], store: Path) -> Calibration:
    """Collect the statistics that the wanted specs and the repairs need; large ones go to the store."""
    from ...compressors import calibrate, needs_gradients
    from ...evaluators import loss_gradients

    split = loaded.splits.calibration
    calibration = calibrate(
        built.model, (inputs for inputs, _ in split.batches(built.batch_size)), built.anatomy,
        bits=sorted({spec.activation_bits for spec in wanted if spec.needs_range}),
        moments=_with_moments(wanted, built.anatomy), means=bool(task.repair.bias),
        tensors=any(spec.rounds_tensors for spec in wanted),
        products=any(spec.rounds_products for spec in wanted), mask=split.mask,
    )  # fmt: skip
    if calibration.moments is not None:
        calibration = replace(calibration, moments=calibration.moments.save(store / "moments"))
    if any(needs_gradients(spec) for spec in wanted):
        gradients = loss_gradients(built.model, split, built.anatomy, built.metric, scales=built.distance.scales)
        calibration = replace(calibration, gradients=gradients.save(store / "gradients"))
    return calibration


def _with_moments(wanted: Sequence[LayerSpec], anatomy: Anatomy) -> bool | tuple[str, ...]:
    """Return the layers of which the moments of inputs are collected: all where a spec needs them; where some only do
    better with them, those that take a gigabyte together at most.
    """
    from ...compressors import needs_moments, uses_moments
    from ...compressors.calibration import affordable

    if any(needs_moments(spec) for spec in wanted):
        return True
    return affordable(anatomy) if any(uses_moments(spec) for spec in wanted) else False


def _context(task: Task, loaded: _Loaded, built: _Built, calibration: Calibration, store: Path) -> EvaluationContext:
    """Run the original over the search split, and return what a worker needs."""
    from ...evaluators import reference_outputs

    split = _in_random_order(loaded.splits.search, task.search.samples, task.data.seed)
    repair = _repair(task)
    return EvaluationContext(
        model=built.model,
        anatomy=built.anatomy,
        calibration=calibration,
        space=built.space,
        split=split,
        reference=reference_outputs(built.model, split, built.batch_size),
        metric=built.metric,
        distance=built.distance,
        store=store,
        batch_size=built.batch_size,
        plugins=loaded.plugins,
        repair=repair,
        repair_inputs=repair_inputs_of(repair, loaded.splits.calibration, built.batch_size),
        structured=built.structured,
    )


def _in_random_order(split: Split, n: int | None, seed: int) -> Split:
    """Return n samples of the split, or all (None), in random order.

    Racing and the table look at the first samples, and data sets come sorted.
    """
    import torch

    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.select(order[:n])


def _repair(task: Task) -> RepairSection:
    """Return the repairs of the task; those that are not decided yet (`settle_repairs`) are off.

    Where something is removed, statistics that are not recalibrated make every removal look far worse than it is.
    """
    section = task.repair
    batch_norm = section.batch_norm
    if batch_norm in (None, "auto"):
        batch_norm = "trials" if removes_something(task.space) else "off"
    return section.model_copy(update={"batch_norm": batch_norm, "bias": section.bias is True})


def repair_inputs_of(repair: RepairSection, calibration: Split, batch_size: int) -> tuple[Any, ...]:
    """Return calibration batches for the repairs; two samples suffice to show how the layers are joined."""
    import torch

    if repair.batch_norm == "off" and not repair.bias:
        return ()
    n = min(2 if repair.batch_norm == "off" else repair.samples, len(calibration))
    chosen = calibration.select(torch.linspace(0, len(calibration) - 1, n).long())  # data sets come sorted
    return tuple(inputs for inputs, _ in chosen.batches(min(batch_size, 64)))


def _devices(task: Task, profiles: Sequence[HardwareProfile], context: EvaluationContext) -> tuple[Device, ...]:
    """Return a device for each profile.

    Raises `InputError` for a profile that cannot be used, and for a model whose memory cannot be predicted.
    """
    from ...evaluators import trace_activations
    from ..devices import wanted
    from ..values import MEMORY

    names = [profile.name for profile in profiles]
    if len(set(names)) < len(names):
        raise TaskError(f"hardware.profile: two of the profiles are named alike ({', '.join(names)}); rename one")
    graph = None
    if any(name in MEMORY for name in wanted(task)):
        graph = trace_activations(context.model, context.split.take(1).inputs, context.anatomy)
    return devices_of(task, profiles, graph)
