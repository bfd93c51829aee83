"""The model and the metric of a task. Weights are safetensors: nothing here unpickles.

A model comes in eval mode, on the CPU, in FP32 (half precision is widened: what is searched starts from FP32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import InputError, MissingExtra, TaskError
from ._user_code import call, load_file, loaded_user_modules, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...evaluators import Metric
    from ._task import Task

_SHOWN = 4
_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def load_task_model(task: Task) -> nn.Module:
    """The model of [model]: eval mode, CPU, FP32, finite. The same in any process that has the task and its `base_dir`.

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
            _load_weights(model, task.path(section.weights))
    elif section.huggingface is not None:
        model = _from_huggingface(section.huggingface, section.args, task)
    else:
        from ._load_export import load_export

        model = load_export(task.path(str(section.export)))
    return _with_kv_cache(_prepared(model), section.kv_cache_bits)


def _with_kv_cache(model: nn.Module, bits: int | None) -> nn.Module:
    from ...evaluators import KvCacheSpec, with_kv_cache

    if bits is None:
        return model
    try:
        return with_kv_cache(model, KvCacheSpec(bits=bits))
    except InputError as error:
        raise TaskError(f"model.kv_cache_bits = {bits}: {error}") from error


def load_task_metric(task: Task) -> Metric:
    """The metric of [quality]: a registered one, or the user's function. Raises `TaskError`."""
    from ...evaluators import METRICS, MetricError, get_metric, metric_from_callable
    from ._rules import nearest

    section = task.quality
    if ":" not in section.metric:
        if section.metric not in METRICS:
            raise TaskError(
                f"quality.metric = {section.metric!r} is not a known "
                f"metric{nearest(section.metric, tuple(sorted(METRICS)))} "
                "(your own: 'file.py:function' with maximise = true or false)"
            )
        metric = get_metric(section.metric)
        if section.maximise is not None and section.maximise != metric.maximise:
            direction = "maximised" if metric.maximise else "minimised"
            raise TaskError(
                f"quality.maximise = {str(section.maximise).lower()}, but {metric.name} is {direction}; leave "
                f"maximise out"
            )
        return metric if section.class_axis is None else replace(metric, class_axis=section.class_axis)
    function = resolve(section.metric, base_dir=task.base_dir, key="quality.metric")
    if not callable(function):
        raise TaskError(
            f"quality.metric = {section.metric!r} must name a function of (outputs, targets), got {_kind(function)}"
        )
    try:
        own = metric_from_callable(function, task.metric_name, bool(section.maximise))
    except MetricError as error:
        raise TaskError(f"quality.metric = {section.metric!r}: {error}") from error
    return replace(own, class_axis=section.class_axis)


def user_modules(task: Task) -> list[ModuleType]:
    """The modules of the task's own code that another process may be unable to import: to be sent there by value."""
    for key, reference in task.code_references().items():
        load_file(task.path(reference.rpartition(":")[0]), where=f"{key} = {reference!r}")
    return loaded_user_modules()


def load_safetensors(path: Path, *, key: str = "model.weights") -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `TaskError`: no such file, a pickle, one that is cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_tensors

    if path.is_dir():
        raise TaskError(f"{key} must be a safetensors file, got the folder {path}; name the file in it")
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
        hint = (
            f"; the folder has {', '.join(near[:_SHOWN])}"
            if near
            else "; a relative path starts at the task file's folder"
        )
        raise TaskError(f"{key}: there is no file {path}{hint}")
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(_PICKLE_MAGIC) and head[8:] != b"{":  # the length of a safetensors header may look like one
        raise TaskError(
            f"{key}: {path.name} is a pickle (a PyTorch checkpoint), and loading one can run code; expected "
            f"safetensors. Convert it once, if you "
            "trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )
    try:
        return load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        suffix = f" ({path.suffix} files are usually pickles)" if path.suffix in _PICKLE_SUFFIXES else ""
        raise TaskError(
            f"{key}: {path.name} is not a whole safetensors file{suffix}: {_one_line(error)}; write it again "
            f"with safetensors.torch.save_file"
        ) from error


def _load_weights(model: nn.Module, path: Path) -> None:
    """Strict, but for keys that say nothing new: another name of a tensor that is there, batch norm's step counter."""
    import torch

    found = load_safetensors(path)
    expected = model.state_dict()
    shared = _names_by_storage(expected)
    missing = [
        key
        for key in expected
        if key not in found
        and not key.endswith("num_batches_tracked")
        and not any(other in found for other in shared[_address(expected[key])])
    ]
    unexpected = [key for key in found if key not in expected]
    if missing or unexpected:
        raise TaskError(
            f"model.weights: {path.name} does not fit the model: "
            f"{_keys_that_differ(missing, unexpected, found, expected)}"
        )
    shapes = [
        f"{key} is {_shape(found[key])} in the file and {_shape(expected[key])} in the model"
        for key in found
        if found[key].shape != expected[key].shape
    ]
    if shapes:
        raise TaskError(
            f"model.weights: {path.name} does not fit the model: {_some(shapes, '; ')}; check the arguments in "
            f"[model.args]"
        )
    for key, tensor in found.items():
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise TaskError(
                f"model.weights: {key} is {tensor.dtype} in {path.name} and {expected[key].dtype} in the model; "
                f"save it as the model has it"
            )
    for names in shared.values():
        present = [name for name in names if name in found]
        for other in present[1:]:
            if not torch.equal(found[present[0]], found[other]):
                raise TaskError(
                    f"model.weights: {present[0]} and {other} are one tensor in the model and differ in "
                    f"{path.name}; keep one of them"
                )
    model.load_state_dict(found, strict=False)


def _keys_that_differ(
    missing: Sequence[str], unexpected: Sequence[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> str:
    parts = []
    if missing:
        parts.append(f"missing {_some(missing)}")
    if unexpected:
        parts.append(f"unexpected {_some(unexpected)}")
    hint = "check that the factory builds the model that these weights are of"
    prefix = next((key.partition(".")[0] + "." for key in found if key not in expected), "")
    if prefix and all(key.startswith(prefix) and key.removeprefix(prefix) in expected for key in unexpected):
        hint = f"take the prefix {prefix!r} off the keys and save it again"
    return f"{'; '.join(parts)}; {hint}"


def _from_huggingface(name: str, arguments: Mapping[str, Any], task: Task) -> nn.Module:
    try:
        import transformers  # type: ignore[import-not-found,unused-ignore]  # an extra, often not installed
    except ImportError as error:
        raise MissingExtra(
            "model.huggingface needs transformers, which is not installed; run: pip install 'paredown[huggingface]'"
        ) from error
    if "trust_remote_code" in arguments:
        raise TaskError(
            "model.args has trust_remote_code, which runs code from the model's repository; "
            "write a factory that does what you want to run"
        )
    local = task.path(name)
    if not local.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise TaskError(
            f"model.huggingface: there is no folder {local}; a relative path starts at the task file's folder"
        )
    source = str(local) if local.is_dir() else name
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        architecture = (config.architectures or ["AutoModel"])[0]
        model_class = getattr(transformers, architecture, transformers.AutoModel)
        model: nn.Module = model_class.from_pretrained(source, **{"use_safetensors": True, **arguments})
    except Exception as error:
        raise TaskError(
            f"model.huggingface = {name!r} cannot be loaded: {type(error).__name__}: {_one_line(error)}"
        ) from error
    return model


def _prepared(model: nn.Module) -> nn.Module:
    import torch

    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if tensor.is_meta:
            raise TaskError(
                f"the model's {name} is on the meta device, without values; build it on the CPU, and give "
                f"[model] weights"
            )
    if any(tensor.device.type != "cpu" for _, tensor in tensors):
        model = model.cpu()
    if any(tensor.dtype in (torch.float16, torch.bfloat16, torch.float64) for _, tensor in tensors):
        model = model.float()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if (
            tensor.is_floating_point()
            and not math.isfinite(float(tensor.detach().sum()))
            and not bool(torch.isfinite(tensor).all())
        ):
            if name in dict(model.named_buffers()) and not bool(torch.isnan(tensor).any()):
                continue  # an attention mask of -inf is meant so
            raise TaskError(
                f"the model's {name} holds NaN or infinity; compression would spread it. Load weights that are finite"
            )
    return model.eval()


def _names_by_storage(state: Mapping[str, Tensor]) -> dict[tuple[int, ...], list[str]]:
    names: dict[tuple[int, ...], list[str]] = {}
    for key, tensor in state.items():
        names.setdefault(_address(tensor), []).append(key)
    return names


def _address(tensor: Tensor) -> tuple[int, ...]:
    """Two tensors with the same address are one; an empty tensor has none and is told by its identity."""
    return (tensor.data_ptr(), *tensor.shape, -1, *tensor.stride()) if tensor.numel() else (id(tensor),)


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _some(items: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
