"""Every score against random channels, at equal MACs, after batch-norm re-estimation."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from paredown.compressors.structure import SCORES, keep_above, keep_uniform, removal_of, remove, score
from paredown.errors import SpecError

from .subjects import Prunable, macs, reestimated, right

ALLOCATIONS = {"uniform": keep_uniform, "threshold": keep_above}
_PEER = "torch-pruning"
_PEERS: Mapping[str, Callable[[Any], Any]] = {
    "magnitude": lambda tp: tp.importance.GroupMagnitudeImportance(p=2),
    "bn scale": lambda tp: tp.importance.BNScaleImportance(),
    "lamp": lambda tp: tp.importance.LAMPImportance(),
}
_METHODS = tuple(method for method in SCORES if method not in ("random", "entropy"))


class Budget(Protocol):
    """Time that may be up, and a place for what is done (`pieces.Pieces`)."""

    @property
    def spent(self) -> bool: ...

    def save(self) -> None: ...


def quality(
    prunable: Prunable, found: dict[str, Any], budget: Budget, *, speed_up: float, seeds: int,
    say: Callable[[str], None],
) -> bool:  # fmt: skip
    """Rows of (score, allocation) into `found`: accuracy, and what it is above the mean of the random draws at the same
    MACs. What `found` has is left as it is; whether all of it is there now."""
    target = prunable.anatomy.macs / speed_up
    if "original" not in found:
        found |= {"original": float(right(prunable, prunable.model).mean()), "target_macs": target, "rows": []}
    draws = found.setdefault("random", {"accuracies": [], "macs": [], "right": []})
    for seed in range(len(draws["right"]), seeds):
        if budget.spent:
            return False
        scores = {s.name: score(prunable.model, s, "random", seed=seed) for s in prunable.sets}
        correct, n_macs = _pruned(prunable, scores, "uniform", target)
        draws["accuracies"].append(float(correct.mean()))
        draws["macs"].append(n_macs)
        draws["right"].append(_packed(correct))
        budget.save()
    say(f"  random     {_shown(draws['accuracies'])}")
    baseline = torch.stack([_unpacked(line, len(prunable.subject.report)) for line in draws["right"]])
    known = {(row["score"], row.get("allocation")) for row in found["rows"]}
    for method, allocation in _cases():
        if (method, allocation) in known or (method, None) in known:
            continue
        if budget.spent:
            return False
        try:
            correct, n_macs = _case(prunable, method, allocation, target)
        except SpecError as error:
            found["rows"].append({"score": method, "skipped": str(error)})
            known.add((method, None))
            continue
        found["rows"].append({"score": method, "allocation": allocation, **_row(correct, n_macs, baseline)})
        say(f"  {method:17}{allocation:14} {_told(found['rows'][-1])}")
        budget.save()
    return True


def _cases() -> Iterator[tuple[str, str]]:
    yield from ((method, allocation) for method in _METHODS for allocation in ALLOCATIONS)
    yield from ((f"{name} {where}", _PEER) for name in _PEERS for where in ("local", "global"))


def _case(prunable: Prunable, method: str, allocation: str, target: float) -> tuple[Tensor, int]:
    if allocation == _PEER:
        name, _, where = method.rpartition(" ")
        return _peer(prunable, name, target, is_global=where == "global")
    scores = {s.name: score(prunable.model, s, method, evidence=prunable.evidence[s.name]) for s in prunable.sets}
    return _pruned(prunable, scores, allocation, target)


def _packed(correct: Tensor) -> str:
    """Ones and zeros, four a digit."""
    return np.packbits(correct.bool().numpy()).tobytes().hex()


def _unpacked(line: str, n: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(line), np.uint8))[:n].astype(np.float64))


def _row(correct: Tensor, n_macs: int, baseline: Tensor) -> dict[str, Any]:
    """The gain over random is paired on the samples; its error has that of the samples and that of the draws."""
    gain = correct - baseline.mean(dim=0)
    error = math.sqrt(float(gain.var()) / len(gain) + float(baseline.mean(dim=1).var()) * (1.0 + 1.0 / len(baseline)))
    z = float(gain.mean()) / max(error, 1e-12)
    return {
        "accuracy": float(correct.mean()), "macs": n_macs, "gain": float(gain.mean()), "error": error,
        "low": float(gain.mean()) - 1.96 * error, "high": float(gain.mean()) + 1.96 * error,
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


def _peer(prunable: Prunable, name: str, target: float, *, is_global: bool) -> tuple[Tensor, int]:
    """torch-pruning's own importance and its own pruner; what is left alone here is left out there too.

    Raises `SpecError` where it does not get down to the target.
    """
    import torch_pruning as tp

    # Its pruner leaves a whole group alone for one layer that is to be ignored: a depthwise one only hands on.
    makers = {m.tensor.rpartition(".")[0] for s in prunable.sets for m in s.members if m.role != "reads"}
    best: tuple[nn.Module, int] | None = None
    low, high = 0.0, 0.95
    for _ in range(8):
        ratio = (low + high) / 2
        model = copy.deepcopy(prunable.model).requires_grad_(True)
        ignored = [
            module
            for fqn, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear)) and fqn not in makers
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tp.pruner.BasePruner(
                model, prunable.subject.calibration[:1], importance=_PEERS[name](tp), global_pruning=is_global,
                pruning_ratio=ratio, max_pruning_ratio=0.9, ignored_layers=ignored,
            ).step()  # fmt: skip
        n = macs(model, prunable.subject.calibration)
        if n <= target:
            best, high = (model.eval(), n), ratio
        else:
            low = ratio
    if best is None:
        raise SpecError(f"torch-pruning's {name} does not get down to {target:g} MACs")
    return right(prunable, reestimated(best[0], prunable.subject.calibration)), best[1]


def _shown(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
    return f"{100 * mean:.2f} % ± {100 * spread:.2f} ({len(values)} draws)"


def _told(row: Mapping[str, Any]) -> str:
    mark = "beats random" if row["p"] <= 0.05 else "not beyond noise"
    return f"{100 * row['accuracy']:.2f} %  {100 * row['gain']:+.2f} ± {100 * row['error']:.2f}  {mark}"
