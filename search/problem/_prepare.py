"""From a task to a bench: the model, its anatomy, the calibration, the space, and what the original gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors.anatomy._trace import trace_anatomy
from ...errors import ParedownError, TaskError
from ..devices import Device, devices_of, is_here
from ..space import removes_something
from ..values import Objective, SearchSpace, reason
from ._context import EvaluationContext, judge

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

    from ...compressors import Anatomy, LayerSpec
    from ...evaluators import Measurement, Split
    from ...hardware_profiles import HardwareProfile
    from ..space import Structured
    from ..task import RepairSection, Splits, Task

SAME_OUTPUTS = 1e-4
"""Mean divergence, in nats, below which a search tells no two candidates apart: ten thousand samples would have to be
seen before they speak for the original by one nat."""
_WIDE = 64
"""Samples that show which layers run at all, where one does not show all of them."""

Specs = Callable[["Anatomy"], Iterable["LayerSpec"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything that stands before the first trial.

    objectives  what the task asks for, the quality first
    guide       what the searcher is told: the same, with the divergence for the quality unless the task says otherwise
    quality     the original's, on the search split
    devices     one for each profile that the task names; the search is led by the first
    model_source  how a fresh process builds the model; None if the model was handed over as an object
    """

    task: Task
    context: EvaluationContext
    quality: Mapping[str, Measurement]
    splits: Splits
    calibration_inputs: Any
    devices: tuple[Device, ...]
    objectives: tuple[Objective, ...]
    guide: tuple[Objective, ...]
    modules: Sequence[ModuleType]
    model_source: Mapping[str, Any] | None
    model_digest: str

    @property
    def report(self) -> Split:
        return self.splits.report

    @property
    def anatomy(self) -> Anatomy:
        return self.context.anatomy

    @property
    def space(self) -> SearchSpace:
        return self.context.space

    @property
    def profile(self) -> HardwareProfile:
        return self.devices[0].profile

    @property
    def times_here(self) -> bool:
        """Whether a latency measured on this machine is one of the device that the search is for."""
        from ..task import environment

        return self.task.hardware.profile is None or is_here(self.profile, environment())


def prepare(task: Task, *, store: Path, model: nn.Module | None = None, specs: Specs | None = None) -> Problem:
    """Import the plugins, load, trace, calibrate, and run the original once over the search split.

    specs  gives those that will be asked for beside those of the task's space; calibration collects what they need too
    Raises `TaskError` (or another `InputError`) for whatever the task names that cannot be used.
    """
    from ...compressors import calibrate, model_digest, needs_gradients, needs_moments
    from ...evaluators import ReferenceOutputs, loss_gradients, resolve_divergence
    from ...hardware_profiles import load_profile
    from ..space import build_space, weights_of
    from ..task import Plugins, load_task_data, load_task_metric, load_task_model, user_modules

    plugins = Plugins.of(task)
    plugins.load()
    _check_registered(task)
    given = model is not None
    if model is None:
        model = load_task_model(task)
    model = model.eval().requires_grad_(False)
    splits = load_task_data(task)
    metric = load_task_metric(task)
    batch = task.data.batch_size
    anatomy = _traced(model, splits, batch)
    profiles = [load_profile(name) for name in task.profiles]
    # before scaling, which norms of weights would follow
    structured = _structured(task, model, splits.calibration, profiles)
    repair = _repair(task)
    digest = model_digest(model)
    if task.prepare.scaling != "off":
        model = _scaled(task, model, anatomy, splits.calibration)
    space = build_space(task, anatomy, weights=weights_of(model), structured=structured, profiles=profiles)
    wanted = [*(specs(anatomy) if specs else ()), *(spec for group in space.groups for spec in group.levels)]
    calibration = calibrate(
        model, (inputs for inputs, _ in splits.calibration.batches(batch)), anatomy,
        bits=sorted({spec.activation_bits for spec in wanted if spec.needs_range}),
        moments=any(needs_moments(spec) for spec in wanted), means=task.repair.bias,
        tensors=any(spec.rounds_tensors for spec in wanted),
        products=any(spec.rounds_products for spec in wanted),
    )  # fmt: skip
    if calibration.moments is not None:
        calibration = replace(calibration, moments=calibration.moments.save(store / "moments"))
    if any(needs_gradients(spec) for spec in wanted):
        gradients = loss_gradients(model, splits.calibration, anatomy, metric)
        calibration = replace(calibration, gradients=gradients.save(store / "gradients"))
    search = _in_random_order(splits.search, task.search.samples, task.data.seed)
    reference = ReferenceOutputs.compute(model, search, batch)
    context = EvaluationContext(
        model=model,
        anatomy=anatomy,
        calibration=calibration,
        space=space,
        split=search,
        reference=reference,
        metric=metric,
        divergence=resolve_divergence(task.quality.divergence, metric),
        store=store,
        batch_size=batch,
        plugins=plugins,
        repair=repair,
        repair_inputs=_repair_inputs(task, repair, splits.calibration),
        structured=structured,
    )
    objectives = _objectives(task, metric.name, metric.maximise)
    guided = task.quality.guide == "divergence"
    indifference_threshold = _good_enough(task, context.divergence)
    guide = tuple(_led_by(o, metric.name, guided, indifference_threshold) for o in objectives)
    return Problem(
        task=task,
        context=context,
        quality=original_quality(context, len(search)),
        splits=splits,
        calibration_inputs=splits.calibration.take(1).inputs,
        devices=_devices(task, profiles, context),
        objectives=objectives,
        guide=guide,
        modules=user_modules(task),
        model_source=None if given else {"task": task.to_dict(), "base_dir": str(task.base_dir)},
        model_digest=digest,
    )


def _traced(model: nn.Module, splits: Splits, batch: int) -> Anatomy:
    """From one sample; where layers did not run on it, from more of them: an expert runs on the tokens that ask it."""

    anatomy = trace_anatomy(model, splits.search.take(1).inputs)
    if not anatomy.unused:
        return anatomy
    wider = trace_anatomy(model, splits.calibration.take(min(batch, _WIDE, len(splits.calibration))).inputs)
    return wider if len(wider.unused) < len(anatomy.unused) else anatomy


def _structured(
    task: Task, model: nn.Module, calibration: Split, profiles: Sequence[HardwareProfile]
) -> Structured | None:
    """Raises `TaskError` for what cannot be removed, or does not go together with it."""
    from ..devices import wanted
    from ..space import find_structure, refuse_with_structure

    if not removes_something(task.space):
        return None
    batches = [inputs for inputs, _ in calibration.batches(16)]
    refuse_with_structure(task, wanted(task))
    return find_structure(task, model, batches, profiles)


def _scaled(task: Task, model: nn.Module, anatomy: Anatomy, calibration: Split) -> nn.Module:
    """A copy with other numbers and the same outputs."""
    import copy

    from ...compressors import calibrate, scale_channels

    how, batch, ready = task.prepare.scaling, task.data.batch_size, copy.deepcopy(model)
    batches = (inputs for inputs, _ in calibration.batches(batch))
    moments = calibrate(ready, batches, anatomy, moments=True).moments if how == "awq" else None
    scale_channels(
        ready, calibration.take(2).inputs, how, anatomy=anatomy, moments=moments, bits=task.prepare.bits
    )  # fmt: skip
    return ready


def _repair(task: Task) -> RepairSection:
    """With what is asked for where nothing is said: statistics that do not follow make every removal look far worse
    than it is."""
    section = task.repair
    if section.batch_norm is not None:
        return section
    return section.model_copy(update={"batch_norm": "trials" if removes_something(task.space) else "off"})


def _repair_inputs(task: Task, repair: RepairSection, calibration: Split) -> tuple[Any, ...]:
    """A few samples where they only show how the layers are joined."""
    import torch

    if repair.batch_norm == "off" and not repair.bias:
        return ()
    n = min(2 if repair.batch_norm == "off" else repair.samples, len(calibration))
    chosen = calibration.select(torch.linspace(0, len(calibration) - 1, n).long())  # data sets come sorted
    return tuple(inputs for inputs, _ in chosen.batches(min(task.data.batch_size, 64)))


def _devices(task: Task, profiles: Sequence[HardwareProfile], context: EvaluationContext) -> tuple[Device, ...]:
    """Raises `InputError` for a profile that cannot be used, or a model whose memory cannot be foreseen."""
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


def _led_by(objective: Objective, metric: str, guided: bool, indifference_threshold: float) -> Objective:
    """What the search minimises for an objective."""
    if objective.name == "throughput":
        return Objective(name="ms_per_sample")
    return (
        Objective(name="divergence", indifference_threshold=indifference_threshold)
        if guided and objective.name == metric
        else objective
    )


def _good_enough(task: Task, divergence: str) -> float:
    """`SAME_OUTPUTS`, or what the task asks for where that is less. Only nats mean the same in every model."""
    if divergence != "kl":
        return -math.inf
    limit = task.cost_limits.get("divergence")
    return SAME_OUTPUTS if limit is None or limit.max is None else min(SAME_OUTPUTS, limit.max)


def _in_random_order(split: Split, n: int | None, seed: int) -> Split:
    """`n` samples of the split, or all: racing and the table look at the first few, and data sets come sorted."""
    import torch

    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.select(order[:n])


def _check_registered(task: Task) -> None:
    """What is needed only hours later must be known now."""
    from ...evaluators.runtimes import get_runtime
    from ..searchers import check_searcher

    get_runtime(task.hardware.runtime)
    check_searcher(task.search.searcher, task.search.params)


def original_quality(context: EvaluationContext, n: int) -> dict[str, Measurement]:
    """On the first n samples of the search split, from the reference outputs, which are at hand. A metric that cannot
    judge the original itself is refused here."""
    import torch

    from ...evaluators import Scores, evaluate_outputs

    try:
        scores = evaluate_outputs(
            context.metric, context.split.take(n), context.reference.outputs[:n], context.reference
        )
    except ParedownError:
        raise
    except Exception as error:  # the metric may be the user's own code
        raise TaskError(
            f"quality.metric {context.metric.name} raised on the original model: {reason(error)}"
        ) from error
    return judge(context, Scores(metric=scores, divergence=torch.zeros_like(scores)))


def _objectives(task: Task, metric: str, maximise: bool) -> tuple[Objective, ...]:
    """The quality first, whatever the order in the task."""
    names = task.objective_names(metric)
    quality = [name for name in names if name in (metric, "divergence")]
    if not quality:
        raise TaskError(f"[objectives] names must have {metric!r} or 'divergence' among them, got {', '.join(names)}")
    ordered = [*quality, *(name for name in names if name not in quality)]
    return tuple(
        Objective(name=name, maximise=(maximise and name == metric) or name == "throughput") for name in ordered
    )
