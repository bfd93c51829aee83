"""The three splits: what calibrates, what candidates are compared on, what is reported. No sample is in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, TaskError
from ...evaluators import Inputs, Split
from ._user_code import call, told

if TYPE_CHECKING:
    from ._sections import DataSection
    from ._task import Task

NAMES = ("calibration", "search", "report")
_DEFAULT_CALIBRATION = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Disjoint. `dropped` says how many samples were left out because they occurred more than once."""

    calibration: Split
    search: Split
    report: Split
    dropped: int = 0

    def facts(self) -> dict[str, dict[str, Any]]:
        """Split -> its digest and length: what an artifact says of the samples behind its figures."""
        return {name: {"sha256": (split := getattr(self, name)).digest, "n": len(split)} for name in NAMES}


def load_task_data(task: Task) -> Splits:
    """Call [data] factory and make three disjoint splits of what it returns.

    The factory returns the three splits, as a mapping or a tuple (calibration, search, report), or one data set. A
    split or data set is (inputs, targets), inputs alone, a mapping {"inputs", "targets"}, a `Split`, or a map-style
    torch Dataset of (input, target). Inputs are a tensor, a tuple of tensors or a mapping of tensors, numpy arrays or
    nested lists; axis 0 is the sample. Floating point becomes FP32.

    Raises `TaskError`: the factory fails, returns something else, a split is empty or holds NaN, targets are missing
    where the metric needs them, sizes do not add up, or splits overlap (see `data.overlap`).
    """
    from ._load_model import load_task_metric

    section = task.data
    found = call(section.factory, section.args, base_dir=task.base_dir, key="data.factory")
    where = f"data.factory = {section.factory!r}"
    given = _three(found, where)
    if given is None:
        splits = _divide(_split("data", found, where, section.mask), section, where)
    else:
        splits = _separate([_split(name, given[name], where, section.mask) for name in NAMES], section, where)
    metric = load_task_metric(task)
    for split in (splits.search, splits.report):
        try:
            metric.targets_of(split)
        except InputError as error:
            raise TaskError(f"{where}: {error}") from error
    return splits


def _three(found: Any, where: str) -> Mapping[str, Any] | None:
    """The three splits by name; None if `found` is one data set."""
    if isinstance(found, Mapping):
        if set(found) == set(NAMES):
            return found
        named = [str(key) for key in found if key in NAMES]
        if named:
            missing = [name for name in NAMES if name not in found]
            odd = [str(key) for key in found if key not in NAMES]
            problem = f"has no {' and no '.join(missing)}" if missing else f"has also {', '.join(odd)}"
            raise TaskError(
                f"{where} must return the splits calibration, search and report; what it returned {problem}"
            )
        return None
    if (
        isinstance(found, (tuple, list))
        and len(found) == len(NAMES)
        and not all(isinstance(part, (int, float)) for part in found)
    ):
        return dict(zip(NAMES, found, strict=True))
    return None


def _split(name: str, found: Any, where: str, mask: str | None = None) -> Split:
    """One split out of whatever a factory may return for it."""
    inputs, targets = _parts(found, name, where)
    mask = mask if mask is not None or not isinstance(found, Split) else found.mask
    if isinstance(inputs, Mapping):
        converted: Inputs = {
            str(key): _tensor(value, f"inputs[{key!r}] of {name}", where) for key, value in inputs.items()
        }
    elif isinstance(inputs, tuple):
        converted = tuple(_tensor(value, f"inputs[{index}] of {name}", where) for index, value in enumerate(inputs))
    else:
        converted = _tensor(inputs, f"inputs of {name}", where)
    target = None if targets is None else _tensor(targets, f"targets of {name}", where)
    if target is not None and not target.is_floating_point():
        target = target.long()
    try:
        split = Split(name, converted, target, mask)
        split.output_positions()  # a mask that is not there, or of another form, is told now
        return split
    except InputError as error:
        raise TaskError(f"{where}: {error}") from error


def _parts(found: Any, name: str, where: str) -> tuple[Any, Any]:
    """(inputs, targets or None)."""
    if isinstance(found, Split):
        return found.inputs, found.targets
    if isinstance(found, Mapping):
        if "inputs" in found:
            if odd := [str(key) for key in found if key not in ("inputs", "targets")]:
                raise TaskError(
                    f"{where}: the {name} mapping has {odd[0]!r} beside inputs and targets; put model arguments "
                    f"into inputs"
                )
            return found["inputs"], found.get("targets")
        return found, None
    if isinstance(found, (tuple, list)):
        if len(found) == 2:
            return found[0], found[1]
        raise TaskError(
            f"{where} must return (inputs, targets) for {name}, got a {type(found).__name__} of {len(found)}; "
            "several inputs go into one tuple: ((a, b), targets)"
        )
    if isinstance(found, torch.utils.data.Dataset):
        return _stacked(found, name, where)
    return found, None


def _stacked(dataset: Any, name: str, where: str) -> tuple[Any, Any]:
    """A map-style Dataset of (input, target), as two tensors."""
    if not hasattr(dataset, "__len__"):
        raise TaskError(f"{where} returned an iterable dataset for {name}; give one with a length, or tensors")
    if not len(dataset):
        raise TaskError(f"{where}: the {name} split is empty; it needs at least one sample")
    pairs = [_sample(dataset, index, name, where) for index in range(len(dataset))]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise TaskError(
            f"{where}: the {name} dataset must give (input, target) for each sample, got a {type(pairs[0]).__name__}"
        )
    try:
        inputs = torch.stack([torch.as_tensor(pair[0]) for pair in pairs])
        targets = torch.stack([torch.as_tensor(pair[1]) for pair in pairs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"{where}: the samples of the {name} dataset cannot be stacked: {' '.join(str(error).split())}; "
            f"give tensors of one shape"
        ) from error
    return inputs, targets


def _sample(dataset: Any, index: int, name: str, where: str) -> Any:
    try:
        return dataset[index]
    except Exception as error:  # the data set is the user's code, and may raise anything
        raise TaskError(
            f"{where}: sample {index} of the {name} dataset raised {told(error)}; correct the dataset, or leave that "
            f"sample out"
        ) from error


def _tensor(value: Any, what: str, where: str) -> Tensor:
    """A CPU tensor: floating point as FP32 and finite, integers that torch only half knows (uint16, …) as int64."""
    if value is None:
        raise TaskError(f"{where}: {what} is None; does the factory end with a return?")
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__len__") or isinstance(value, Tensor)):
        raise TaskError(f"{where}: {what} must be a tensor or an array, got a {type(value).__name__}")
    try:
        tensor = _as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"{where}: {what} cannot be made a tensor: {' '.join(str(error).split())}") from error
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
        if bool(torch.isnan(tensor).any()):
            sample = int(torch.isnan(tensor.reshape(len(tensor), -1)).any(dim=1).nonzero()[0]) if tensor.dim() else 0
            raise TaskError(f"{where}: {what} hold NaN, first in sample {sample}; leave such samples out")
    elif tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.long()
    return tensor


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        return torch.stack(list(value))
    return torch.from_numpy(np.require(value, requirements=["C", "W"]))  # a copy only of what is read-only or strided


def _separate(splits: Sequence[Split], section: DataSection, where: str) -> Splits:
    """Refuse splits that overlap, or drop the copies: what is in report leaves search, and both leave calibration."""
    calibration, search, report = splits
    kept_search, from_search = _without(search, [report], section, where)
    kept_calibration, from_calibration = _without(calibration, [report, search], section, where)
    return Splits(
        calibration=kept_calibration, search=kept_search, report=report, dropped=from_search + from_calibration
    )


def _without(split: Split, others: Sequence[Split], section: DataSection, where: str) -> tuple[Split, int]:
    digests = split.sample_digests()
    shared: set[int] = set()
    for other in others:
        places = {digest: index for index, digest in reversed(list(enumerate(other.sample_digests())))}
        both = [index for index, digest in enumerate(digests) if digest in places]
        if both and section.overlap == "refuse":
            raise TaskError(
                f"{where}: the splits {split.name} and {other.name} overlap: {len(both)} of {len(split)} "
                f"samples, the first is number {both[0]} of "
                f"{split.name} and {places[digests[both[0]]]} of {other.name}; separate them, "
                'or set data.overlap = "drop" to leave copies out'
            )
        shared.update(both)
    if not shared:
        return split, 0
    kept = [index for index in range(len(split)) if index not in shared]
    if not kept:
        raise TaskError(
            f"{where}: every sample of the {split.name} split is in "
            f"{' or '.join(other.name for other in others)} too; nothing is left of it"
        )
    return split.select(torch.tensor(kept)), len(shared)


def _divide(whole: Split, section: DataSection, where: str) -> Splits:
    """One data set into three, at random by `section.seed`; of samples that occur several times, one is kept."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(section.seed)).tolist()
    digests = whole.sample_digests()
    first: dict[bytes, int] = {}
    for index in order:
        first.setdefault(digests[index], index)
    unique = list(first.values())
    calibration, search, report = sizes(len(unique), section, where)
    parts = {}
    start = 0
    for name, count in zip(NAMES, (calibration, search, report), strict=True):
        chosen = whole.select(torch.tensor(unique[start : start + count]))
        parts[name] = Split(name, chosen.inputs, chosen.targets, chosen.mask)
        start += count
    return Splits(**parts, dropped=len(whole) - len(unique))


def sizes(n: int, section: DataSection, where: str = "[data]") -> tuple[int, int, int]:
    """Return the numbers of samples for calibration, search and report, out of `n` distinct ones.

    Raises `TaskError` where they do not suffice.
    """
    if n < len(NAMES):
        raise TaskError(f"{where}: {n} distinct samples are too few for three splits; give at least {len(NAMES)}")
    fixed_search, fixed_report = _count(section.search, n), _count(section.report, n)
    calibration = _count(section.calibration, n) or max(1, min(_DEFAULT_CALIBRATION, n // 5))
    left = n - calibration
    search = fixed_search or max(
        1, (left - fixed_report if fixed_report and left - fixed_report < left // 2 else left // 2)
    )
    report = fixed_report or left - search
    if report < 1 or calibration + search + report > n:
        raise TaskError(
            f"{where}: {n} distinct samples cannot be split into calibration {calibration}, search {search} and "
            f"report {max(report, 1)}; "
            "make [data] calibration, search or report smaller"
        )
    return calibration, search, report


def _count(size: float | None, n: int) -> int | None:
    return None if size is None else size if isinstance(size, int) else max(1, round(size * n))
