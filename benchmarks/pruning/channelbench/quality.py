"""Every score against random channels, at equal MACs, after batch-norm re-estimation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paredown.compressors.structure import SCORES, keep_above, keep_uniform, removal_of, remove, score
from paredown.errors import SpecError

from .subjects import Prunable, macs, reestimated, right

ALLOCATIONS = {"uniform": keep_uniform, "threshold": keep_above}
_METHODS = tuple(method for method in SCORES if method not in ("random", "entropy"))


def quality(prunable: Prunable, *, speed_up: float, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows of (score, allocation): accuracy, and what it is above the mean of the random draws at the same MACs."""
    original = right(prunable, prunable.model)
    target = prunable.anatomy.macs / speed_up
    found: dict[str, Any] = {"original": float(original.mean()), "target_macs": target, "rows": []}
    draws = []
    for seed in range(seeds):
        scores = {s.name: score(prunable.model, s, "random", seed=seed) for s in prunable.sets}
        draws.append(_pruned(prunable, scores, "uniform", target))
    found["random"] = {"accuracies": [float(a.mean()) for a, _ in draws], "macs": [m for _, m in draws]}
    say(f"  random     {_shown([float(a.mean()) for a, _ in draws])}")
    baseline = torch.stack([a for a, _ in draws])
    for method in _METHODS:
        try:
            scores = {
                s.name: score(prunable.model, s, method, evidence=prunable.evidence[s.name]) for s in prunable.sets
            }
        except SpecError as error:
            found["rows"].append({"score": method, "skipped": str(error)})
            continue
        for allocation in ALLOCATIONS:
            correct, n_macs = _pruned(prunable, scores, allocation, target)
            found["rows"].append({"score": method, "allocation": allocation, **_row(correct, n_macs, baseline)})
            say(f"  {method:13}{allocation:10} {_told(found['rows'][-1])}")
    for name, correct, n_macs in peers(prunable, target):
        found["rows"].append({"score": name, "allocation": "torch-pruning", **_row(correct, n_macs, baseline)})
        say(f"  {name:23} {_told(found['rows'][-1])}")
    return found


def _row(correct: Tensor, n_macs: int, baseline: Tensor) -> dict[str, Any]:
    """The gain over random is paired on the samples; its error has that of the samples and that of the draws."""
    gain = correct - baseline.mean(dim=0)
    error = math.sqrt(float(gain.var()) / len(gain) + float(baseline.mean(dim=1).var()) * (1.0 + 1.0 / len(baseline)))
    z = float(gain.mean()) / max(error, 1e-12)
    return {
        "accuracy": float(correct.mean()), "macs": n_macs, "gain": float(gain.mean()), "error": error,
        "p": 0.5 * math.erfc(z / math.sqrt(2.0)),
    }  # fmt: skip


def _pruned(prunable: Prunable, scores: Mapping[str, Tensor], allocation: str, target: float) -> tuple[Tensor, int]:
    """The largest share whose MACs do not exceed the target, by bisection; then batch norm is estimated again."""
    small, n_macs = pruned_to(prunable, scores, allocation, target)
    return right(prunable, reestimated(small, prunable.subject.calibration)), n_macs


def pruned_to(
    prunable: Prunable, scores: Mapping[str, Tensor], allocation: str, target: float, *, round_to: int = 1
) -> tuple[nn.Module, int]:
    low, high = 0.1, 1.0
    best: tuple[nn.Module, int] | None = None
    for _ in range(9):
        share = (low + high) / 2
        kept = ALLOCATIONS[allocation](prunable.sets, scores, share, round_to=round_to)
        small = remove(prunable.model, removal_of(prunable.model, prunable.sets, kept))
        n = macs(small, prunable.subject.calibration)
        if n <= target:
            best, low = (small, n), share
        else:
            high = share
    if best is None:
        raise RuntimeError(f"{prunable.subject.name} cannot be cut to {target:g} MACs by its channels")
    return best


def peers(prunable: Prunable, target: float) -> Sequence[tuple[str, Tensor, int]]:
    """torch-pruning's own importance and its own pruner, local and global; its graph finds ResNet-20's padded shortcuts
    by itself or fails, and what it fails at is left out there as it is here."""
    import torch_pruning as tp

    found = []
    importances = {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn scale": lambda: tp.importance.BNScaleImportance(),
        "lamp": lambda: tp.importance.LAMPImportance(),
    }
    makers = {m.tensor.rpartition(".")[0] for s in prunable.sets for m in s.having("makes")}
    for name, make in importances.items():
        for is_global in (False, True):
            best: tuple[nn.Module, int] | None = None
            low, high = 0.0, 0.95
            for _ in range(8):
                import copy

                ratio = (low + high) / 2
                model = copy.deepcopy(prunable.model).requires_grad_(True)
                ignored = [
                    module for fqn, module in model.named_modules()
                    if isinstance(module, (nn.Conv2d, nn.Linear)) and fqn not in makers
                ]  # fmt: skip
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tp.pruner.BasePruner(
                        model, prunable.subject.calibration[:1], importance=make(), global_pruning=is_global,
                        pruning_ratio=ratio, max_pruning_ratio=0.9, ignored_layers=ignored,
                    ).step()  # fmt: skip
                n = macs(model, prunable.subject.calibration)
                if n <= target:
                    best, high = (model.eval(), n), ratio
                else:
                    low = ratio
            if best is not None:
                correct = right(prunable, reestimated(best[0], prunable.subject.calibration))
                found.append((f"{name} {'global' if is_global else 'local'}", correct, best[1]))
    return found


def _shown(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
    return f"{100 * mean:.2f} % ± {100 * spread:.2f} ({len(values)} draws)"


def _told(row: Mapping[str, Any]) -> str:
    mark = "beats random" if row["p"] <= 0.05 else "not beyond noise"
    return f"{100 * row['accuracy']:.2f} %  {100 * row['gain']:+.2f} ± {100 * row['error']:.2f}  {mark}"
