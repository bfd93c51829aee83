"""The model and the metric of a task. Weights are safetensors: nothing here unpickles.

A model comes in eval mode, on the CPU, and computes in FP32. It remembers the number types of its source
(`source_dtypes`), in which what is left alone is counted and stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from ...errors import InputError, TaskError
from ._load_huggingface import load_huggingface
from ._load_weights import load_weights
from ._user_code import call, load_file, loaded_user_modules, resolve
from ._weight_files import stored_types, stored_types_in

if TYPE_CHECKING:
    from torch import nn

    from ...evaluators import Metric
    from ._task import Task


def load_task_model(task: Task, *, plain: bool = True) -> nn.Module:
    """The model of [model]: eval mode, CPU, FP32. The same in any process that has the task and its `base_dir`.

    plain  fold weights that are computed from other parameters (`fold_weights`)

    Raises `TaskError` for a source that cannot be used, `MissingExtra` for a Hugging Face model without transformers.
    """
    import torch

    section = task.model
    if section is None:
        raise TaskError(
            "the task has no [model]; name a factory, a Hugging Face model or an export, or hand one in from Python"
        )
    if section.factory is not None:
        model = call(section.factory, section.args, base_dir=task.base_dir, key="model.factory")
        if not isinstance(model, torch.nn.Module):
            raise TaskError(
                f"model.factory = {section.factory!r} must return a torch.nn.Module, got "
                f"{_kind(model)}{_uncalled(model)}"
            )
        if section.weights is not None:
            load_weights(model, task.path(section.weights), unused=section.unused_weights)
    elif section.huggingface is not None:
        model = load_huggingface(
            section.huggingface, task.path(section.huggingface), section.args, unused=section.unused_weights
        )
    else:
        from ._load_export import load_export

        model = load_export(task.path(str(section.export)))
    model = _with_kv_cache(_prepared(model, _stored_types(task)), section.kv_cache_bits)
    if plain:
        from ...compressors.anatomy import fold_weights

        fold_weights(model)
    return model


def widened(model: nn.Module) -> nn.Module:
    """A model that was handed over as an object, in FP32: itself, or a copy where it has tensors of another type."""
    from ...compressors.anatomy import copied, is_widened, widen

    return model if is_widened(model) else widen(copied(model))


def _stored_types(task: Task) -> dict[str, str]:
    """Name -> number type in the safetensors files that the model's weights come from; empty where there are none."""
    section = task.model
    if section is None:
        return {}
    if section.weights is not None:
        return stored_types(task.path(section.weights))
    if section.huggingface is not None:
        folder = task.path(section.huggingface) / str(section.args.get("subfolder", ""))
        return stored_types_in(folder, variant=section.args.get("variant"))
    return {}


def _with_kv_cache(model: nn.Module, bits: int | None) -> nn.Module:
    from ...evaluators import KvCacheSpec, with_kv_cache

    if bits is None:
        return model
    try:
        return with_kv_cache(model, KvCacheSpec(bits=bits))
    except InputError as error:
        raise TaskError(f"model.kv_cache_bits = {bits}: {error}") from error


def load_task_metric(task: Task) -> Metric:
    """The metric of [quality]: a registered one, or the user's function or object. Raises `TaskError`."""
    from ...evaluators.quality import MetricError, token_targets

    section = task.quality
    metric = _registered_metric(task) if ":" not in section.metric else _own_metric(task)
    if section.targets != "auto":
        if metric.targets_from is not token_targets:
            raise TaskError(
                f"quality.targets = {section.targets!r} is for perplexity, which compares tokens; leave it out "
                f"for {section.metric}"
            )
        metric = replace(metric, targets_from=partial(token_targets, form=section.targets))
    try:
        return metric if section.class_axis is None else replace(metric, class_axis=section.class_axis)
    except MetricError as error:
        raise TaskError(f"quality.metric = {section.metric!r}: {error}") from error


def _registered_metric(task: Task) -> Metric:
    from ...evaluators.quality import METRICS, MetricError, get_metric, known_metric
    from ._rules import nearest

    section = task.quality
    if not known_metric(section.metric):
        raise TaskError(
            f"quality.metric = {section.metric!r} is not a known "
            f"metric{nearest(section.metric, tuple(sorted(METRICS)))} "
            "(your own: 'file.py:function' with maximise = true or false)"
        )
    try:
        metric = get_metric(section.metric, section.args)
    except MetricError as error:
        raise TaskError(f"quality.args: {error}") from error
    if section.maximise is not None and section.maximise != metric.maximise:
        direction = "maximised" if metric.maximise else "minimised"
        raise TaskError(
            f"quality.maximise = {str(section.maximise).lower()}, but {metric.name} is {direction}; leave maximise out"
        )
    return metric


def _own_metric(task: Task) -> Metric:
    """The user's function, or object with update, compute and reset, or class of such."""
    from ...evaluators.quality import MetricError, is_stateful, metric_from_callable, metric_from_object

    section, name = task.quality, task.metric_name
    found = resolve(section.metric, base_dir=task.base_dir, key="quality.metric")
    try:
        if is_stateful(found):
            if isinstance(found, type):
                found = call(section.metric, section.args, base_dir=task.base_dir, key="quality.metric")
            elif section.args:
                raise TaskError(
                    f"quality.args: {section.metric} is an object already; name its class, or leave args out"
                )
            return metric_from_object(found, name, bool(section.maximise))
        if not callable(found):
            raise TaskError(
                f"quality.metric = {section.metric!r} must name a function of (outputs, targets), or a class with "
                f"update, compute and reset, got {_kind(found)}"
            )
        function = partial(found, **section.args) if section.args else found
        return metric_from_callable(function, name, bool(section.maximise))
    except MetricError as error:
        raise TaskError(f"quality.metric = {section.metric!r}: {error}") from error


def user_modules(task: Task) -> list[ModuleType]:
    """The modules of the task's own code that another process may be unable to import: to be sent there by value."""
    for key, reference in task.code_references().items():
        load_file(task.path(reference.rpartition(":")[0]), where=f"{key} = {reference!r}")
    return loaded_user_modules()


def _prepared(model: nn.Module, stored: Mapping[str, str]) -> nn.Module:
    import torch

    from ...compressors.anatomy import widen

    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if tensor.is_meta:
            raise TaskError(
                f"the model's {name} is on the meta device, without values; build it on the CPU, and give "
                f"[model] weights"
            )
    if any(tensor.device.type != "cpu" for _, tensor in tensors):
        model = model.cpu()
    model = widen(model, stored)
    for name, tensor in model.named_buffers():  # an attention mask of -inf is meant so
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise TaskError(f"the model's {name} holds NaN. Load buffers that are finite")
    return model.eval()


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _uncalled(value: object) -> str:
    return (
        "; the class itself came back: return an instance"
        if isinstance(value, type)
        else "; does it end with `return model`?"
        if value is None
        else ""
    )
