"""Frame of selected outputs, in which *the direction* of a change is recorded.

A divergence says how far the outputs moved. Two layers whose errors push the same way do more harm together than the
sum says, two that push against each other less; a frame keeps enough of the outputs to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._arrays import SingleArray
from ...compressors.anatomy import classes_last, real_logits
from ..quality import Divergence

MOST_VALUES = 1024
"""Numbers that a frame keeps of all outputs."""
MOST_BINS = 16
"""Classes of one site that are kept apart; of more, the likeliest, and all others together."""
FLOOR = -30.0
"""Least log-probability that counts: 10⁻¹³."""

Part = tuple[Tensor, Tensor | None]
"""Outputs (n, …) of some samples, and what is real of them (None: all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputFrame:
    """Sites spread evenly over the first samples and their positions, and the outputs kept at each of them.

    kind       "kl": log-probabilities of the classes; "mse": outputs over the reference's standard deviation
    n          samples that it looks at: the first n of the split
    sites      (n_sites,) where: sample * positions + position ("kl"), or the index into all outputs ("mse")
    classes    (n_sites, bins - 1) the classes that are told apart; None: all of them ("kl"), or not a matter of classes
    reference  (n_sites, bins) what the original says there; bins is 1 for "mse"
    scale      what outputs are divided by ("mse")
    class_axis axis of the outputs on which the classes lie ("kl"); positions are counted without it
    """

    kind: Divergence
    n: int
    sites: NDArray[np.int64]
    classes: NDArray[np.int64] | None
    reference: SingleArray
    scale: float = 1.0
    class_axis: int = -1

    @classmethod
    def of(
        cls, outputs: Tensor, kind: Divergence, *, variance: float = 1.0, most: int = MOST_VALUES,
        class_axis: int = -1, real: Tensor | None = None,
    ) -> OutputFrame:  # fmt: skip
        """Make a frame of the original's outputs (n, …) on the first n samples of a split, of at most `most` values.

        variance  of all outputs of the original on the split, as for the divergence "mse"
        real      bool that can be expanded to the outputs: sites lie only there. None: everywhere
        """
        return cls.of_parts(lambda: iter([(outputs, real)]), kind, variance=variance, most=most, class_axis=class_axis)

    @classmethod
    def of_parts(
        cls, parts: Callable[[], Iterator[Part]], kind: Divergence, *, variance: float = 1.0, most: int = MOST_VALUES,
        class_axis: int = -1,
    ) -> OutputFrame:  # fmt: skip
        """Make a frame like `of`, of outputs that come some samples at a time.

        parts  yields (outputs, real) in the order of the samples; called twice, for the sites and for their values
        """
        sites, n = _sites(parts(), kind, most, class_axis)
        if kind == "mse":
            scale = float(np.sqrt(variance)) if variance > 0 else 1.0
            kept = _picked((outputs.reshape(-1) for outputs, _ in parts()), sites).double() / scale
            return cls(kind=kind, n=n, sites=sites, classes=None, reference=_array(kept[:, None]), scale=scale)
        logits = (real_logits(outputs, real, class_axis)[0] for outputs, real in parts())
        chosen = _picked((part.reshape(-1, part.shape[-1]) for part in logits), sites).double()
        bins = min(chosen.shape[1], MOST_BINS)
        classes = None if chosen.shape[1] <= MOST_BINS else chosen.topk(bins - 1, dim=1).indices
        found = _bins(chosen, classes)
        return cls(
            kind=kind, n=n, sites=sites, classes=None if classes is None else classes.numpy(),
            reference=_array(found), class_axis=class_axis,
        )  # fmt: skip

    def shift(self, outputs: Tensor, start: int = 0) -> SingleArray:
        """Difference of outputs (b, …), for the samples from `start` on, from the reference at their sites: (values,).

        Values are in the order of the sites. Log-probabilities are exact up to a constant for each site.
        """
        if self.kind == "mse":
            size = outputs[0].numel() if len(outputs) else 1
            mine = self._between(start * size, outputs.numel())
            at = torch.from_numpy(self.sites[mine] - start * size)
            found = outputs.reshape(-1)[at].double()[:, None] / self.scale
        else:
            outputs = classes_last(outputs, self.class_axis)
            rows = outputs.reshape(-1, outputs.shape[-1])
            first = start * (len(rows) // len(outputs)) if len(outputs) else 0
            mine = self._between(first, len(rows))
            at = torch.from_numpy(self.sites[mine] - first)
            classes = None if self.classes is None else torch.from_numpy(self.classes[mine])
            found = _bins(rows[at].double(), classes)
        return np.asarray((_array(found) - self.reference[mine]).reshape(-1))

    def _between(self, first: int, count: int) -> slice:
        low, high = np.searchsorted(self.sites, [first, first + count])
        return slice(int(low), int(high))


def _sites(parts: Iterator[Part], kind: Divergence, most: int, class_axis: int) -> tuple[NDArray[np.int64], int]:
    """(sites, number of samples): spread over the values ("mse") or positions ("kl") of all parts that are real."""
    masks: list[Tensor] = []
    is_all_real, n, bins = True, 0, 1
    for outputs, real in parts:
        n += len(outputs)
        if kind == "mse":
            shape, where = outputs.shape, real
        else:
            logits, where = real_logits(outputs, real, class_axis)
            shape, bins = logits.shape[:-1], min(logits.shape[-1], MOST_BINS)
        is_all_real = is_all_real and where is None
        whole = torch.tensor(True) if where is None else where
        masks.append(whole.expand(shape).reshape(-1) if where is not None else whole.expand(shape.numel()))
    return _spread(sum(map(len, masks)), max(1, most // bins), None if is_all_real else torch.cat(masks)), n


def _picked(parts: Iterator[Tensor], sites: NDArray[np.int64]) -> Tensor:
    """Rows of all parts together at these sites, which rise."""
    found, first = [], 0
    for part in parts:
        low, high = np.searchsorted(sites, [first, first + len(part)])
        found.append(part[torch.from_numpy(sites[low:high] - first)])
        first += len(part)
    return torch.cat(found)


def _spread(n: int, most: int, where: Tensor | None) -> NDArray[np.int64]:
    """Choose at most `most` of 0 … n - 1, evenly spread, rising; only such as are True in `where`, if that is given."""
    if where is not None:
        real = np.flatnonzero(where.reshape(-1).cpu().numpy()).astype(np.int64)
        return np.asarray(real[_spread(len(real), most, None)])
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _bins(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Log-probabilities (sites, bins): of all classes, or of the chosen ones and, last, of all others together."""
    log_p = logits.log_softmax(dim=-1)
    if classes is None:
        return log_p.clamp_min(FLOOR)
    told = log_p.gather(1, classes)
    rest = log_p.scatter(1, classes, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([told, rest], dim=1).clamp_min(FLOOR)


def _array(values: Tensor) -> SingleArray:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)
