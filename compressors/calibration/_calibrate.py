"""Calibration of a model in one pass over real data: ranges of activations and, on request, moments of the inputs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from ...errors import InputError
from .. import quantization  # noqa: F401  (registers the built-in activation methods)
from ..anatomy import (
    Anatomy,
    forward,
    has_other_positions,
    hook_each_call,
    hook_scores,
    masked_batch,
    module_at,
    preserved,
    real_entries,
    real_rows,
    real_scores,
    temporary_hooks,
)
from ..registry import ACTIVATION
from ._calibration import (
    DEFAULT_BITS,
    DEFAULT_METHOD,
    ActivationRange,
    Calibration,
    output_key,
    ranges_key,
    scores_key,
)
from ._moments import MomentCollector

_SAMPLE = 32768


def calibrate(
    model: nn.Module,
    batches: Iterable[object],
    anatomy: Anatomy,
    *,
    bits: Sequence[int] = (DEFAULT_BITS,),
    moments: bool | Collection[str] = False,
    means: bool = False,
    tensors: bool = False,
    products: bool = False,
    mask: str | None = None,
) -> Calibration:
    """Run `model` once on every batch (see `forward`) and choose ranges for the input of each layer.

    The pass keeps the extremes of each layer's values, and an even sample of at most 32768 of them. The model is
    left as it was. Of a layer that runs several times, each call that every batch makes has ranges of its own too
    (`LayerInfo.n_ranges` of them at most). A layer whose input holds NaN or infinity, or is one and the same number,
    gets no range, and `Calibration.missing` says so. Raises `InputError` if there is no batch.

    bits      widths to choose ranges for, always with 8; by every registered method
    tensors   also choose ranges for inputs of sums, which `activation_scope` tensor needs
    products  also choose ranges for factors of attention products, which `activation_scope` product needs
    moments   also collect the inputs' second moments, which methods such as "gptq" need (see `_moments.py`); names of
              layers: theirs alone
    means     also collect their means, which are cheap and come with the moments anyway
    mask      name of the mask among the inputs (`anatomy.positions`); what it hides counts nowhere
    """
    collector = MomentCollector(model, anatomy, second=moments) if moments or means else None
    places = {
        x.fqn: (x.shared_input, x.residual_output)
        for x in anatomy.layers
        if tensors and (x.shared_input or x.residual_output)
    }
    factors = {x.fqn: (x.product, x.product_in) for x in anatomy.layers if products and x.product}
    n_batches = 0
    with temporary_hooks() as hooks:
        watchers = _watch(model, anatomy, places, factors, hooks)
        by_call = _watch_calls(model, anatomy, hooks)
        with preserved(model), nullcontext() if collector is None else collector.watching():
            for inputs in batches:
                with masked_batch(model, inputs, mask):
                    forward(model, inputs)
                n_batches += 1
    if n_batches == 0:
        raise InputError("calibration needs at least one batch, got none; is the calibration split empty?")
    settings = [(name, width) for width in dict.fromkeys((DEFAULT_BITS, *bits)) for name in ACTIVATION.names]
    by_method = {
        ranges_key(*setting): {fqn: one.range(*setting) for fqn, one in watchers.items() if one.missing is None}
        for setting in settings
    }
    return Calibration(
        ranges=by_method.pop(DEFAULT_METHOD),
        others=by_method,
        calls=_ranges_of_calls(by_call, watchers, settings, n_batches),
        moments=None if collector is None else collector.result(anatomy),
        places=places,
        products=factors,
        unmasked=tuple(fqn for fqn, watcher in watchers.items() if watcher.is_unmasked),
        missing={key: watcher.missing for key, watcher in watchers.items() if watcher.missing is not None},
    )


def _watch(
    model: nn.Module,
    anatomy: Anatomy,
    places: Mapping[str, tuple[str, str]],
    factors: Mapping[str, tuple[str, str]],
    hooks: list[RemovableHandle],
) -> dict[str, RangeWatcher]:
    """Install a watcher for every range, and return them by the key of the range; their handles go to `hooks`."""
    watchers = {
        layer.fqn: RangeWatcher(needs_spread=True)
        for layer in anatomy.layers
        if layer.kind != "embedding" and not layer.is_fused
    }
    for fqn, watcher in watchers.items():
        hooks.append(module_at(model, fqn).register_forward_pre_hook(watcher, with_kwargs=True))
    for fqn, (_, after) in places.items():
        if after:
            relu = anatomy[fqn].relu_before_mean
            watchers[output_key(fqn)] = output = RangeWatcher(positive=relu)
            hooks.append(module_at(model, after).register_forward_hook(output.see_output))
    for fqn, (product, inside) in factors.items():
        watchers[output_key(fqn)] = output = RangeWatcher()
        hooks.append(module_at(model, fqn).register_forward_hook(output.see_output))
        if product == "value":
            watchers[scores_key(fqn)] = scores = RangeWatcher()
            hooks += hook_scores(module_at(model, inside), scores.see_scores)
    return watchers


def _ranges_of_calls(
    by_call: Mapping[str, tuple[RangeWatcher, ...]],
    watchers: Mapping[str, RangeWatcher],
    settings: Sequence[tuple[str, int]],
    n_batches: int,
) -> dict[str, dict[str, tuple[ActivationRange, ...]]]:
    """Choose the ranges of each call; one that a batch did not make has the layer's range."""
    return {
        ranges_key(*setting): {
            fqn: tuple((one if one.n_seen == n_batches else watchers[fqn]).range(*setting) for one in watched)
            for fqn, watched in by_call.items()
            if watchers[fqn].missing is None
        }
        for setting in (settings if by_call else ())
    }


def _watch_calls(
    model: nn.Module, anatomy: Anatomy, hooks: list[RemovableHandle]
) -> dict[str, tuple[RangeWatcher, ...]]:
    """Install a watcher for each call of a layer that runs several times; their handles go to `hooks`."""
    watchers = {
        layer.fqn: tuple(RangeWatcher() for _ in range(layer.n_ranges)) for layer in anatomy.layers if layer.n_ranges
    }
    for fqn, watched in watchers.items():
        hooks += hook_each_call(model, fqn, watched, lambda module, args, kwargs: None)
    return watchers


class RangeWatcher:
    """Forward pre-hook that keeps the extremes and an even sample of a layer's inputs.

    positive      take only the values that a ReLU lets pass
    needs_spread  one and the same number everywhere tells nothing of the range

    `n` is the number of values that were seen, `n_seen` that of the tensors. `is_unmasked` says that a mask hid
    something, and not here, as the positions are others.
    """

    def __init__(self, *, positive: bool = False, needs_spread: bool = False) -> None:
        self.positive, self.needs_spread = positive, needs_spread
        self.n = self.n_seen = 0
        self.is_finite = True
        self.is_unmasked = False
        self.low = math.inf
        self.high = -math.inf
        self.stride = 1
        self.sample = torch.empty(0)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return
        channels = 1 if isinstance(module, _ConvNd) else -1
        self.is_unmasked = self.is_unmasked or has_other_positions(x, channels)
        self._see(real_rows(x, channels))

    def see_output(self, module: nn.Module, args: object, output: object) -> None:
        """Forward hook that sees outputs in the same way."""
        self._see(real_entries(output, args) if isinstance(output, Tensor) else output)

    def see_scores(self, scores: Tensor) -> Tensor:
        """Observe attention's scores in the same way."""
        self._see(real_scores(scores))
        return scores

    def _see(self, x: object) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
            return
        x = x.detach().reshape(-1)
        x = x.clamp(min=0.0) if self.positive else x
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.is_finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        start = -self.n % self.stride
        self.sample = torch.cat([self.sample, x[start :: self.stride].float().cpu()])
        self.n += x.numel()
        self.n_seen += 1
        while self.sample.numel() > _SAMPLE:
            self.sample = self.sample[::2].clone()
            self.stride *= 2

    @property
    def missing(self) -> str | None:
        """Why there is no range, one of `MISSING`; None where there is one."""
        if not self.is_finite:
            return "not finite"
        if self.n == 0:
            return "never ran"
        return "constant" if self.needs_spread and self.low == self.high else None

    def range(self, method: str, bits: int) -> ActivationRange:
        low, high = ACTIVATION[method](self.sample, min(0.0, self.low), max(0.0, self.high), bits)
        return ActivationRange(low=min(0.0, float(low)), high=max(0.0, float(high)), n=self.n)
