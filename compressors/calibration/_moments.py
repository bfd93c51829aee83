"""Means and second moments of the inputs of each layer, from one streaming pass.

For a layer y = W x (a convolution: x is a patch) an error D in W costs E|D x|^2 = trace(D H D'), H = E[x x'], so H is
all that a layer-wise method needs to know of the data, at every width and in every format. Grouped and depthwise
convolutions have one H for each group. An embedding has none: its inputs are one-hot, so H is the identity. Weights
inside an LSTM, a GRU or an `nn.MultiheadAttention` have one too (queries, keys and values together: that of all three),
but for the projection of an LSTM's states.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..anatomy import Anatomy, LayerInfo, layer_inputs, module_at, real_rows, real_windows, runs_in
from ..values import sees_inputs
from ._statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

LARGEST = 2**27
"""Largest number of entries in one layer's moments: a gigabyte while they are summed. Larger layers get none."""
_MEAN = "mean:"
"""Prefix of a layer's name for its mean, in the file of the moments."""
_PATCHES = 2**22
"""Numbers of patches unfolded in one step, which bounds the memory of the pass beside the moments themselves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerMoments:
    """Moments of one layer: second (groups, n, n) float32, E[x x'] of the inputs that a row of the weight meets, n = in
    / groups * kernel.
    """

    second: Tensor
    digest: str


class Moments(Statistics):
    """Mapping fqn -> `LayerMoments`. Layers that share a weight share their moments, summed over all their inputs.

    Each layer has means of its own.
    """

    FORMAT = "paredown.moments"
    WHAT = "moments of inputs"

    def get(self, fqn: str) -> LayerMoments | None:
        """Moments of a layer; None where nothing was seen. Raises `IntegrityError` if the file is damaged or gone."""
        found = self._find(fqn)
        return None if found is None else LayerMoments(second=found[0], digest=found[1])

    def mean(self, fqn: str) -> Tensor | None:
        """Mean input (groups, n) float32, E[x], that a row of the weight meets. Otherwise as `get`."""
        self._load()
        return self._tensors.get(_MEAN + fqn)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that have second moments."""
        return tuple(name for name in super().names if not name.startswith(_MEAN))


def affordable(anatomy: Anatomy) -> tuple[str, ...]:
    """Names of layers whose second moments take a gigabyte together at most (`LARGEST` numbers): small ones first."""
    left, names = LARGEST, list[str]()
    for layer in sorted(anatomy.layers, key=_n_moments):
        left -= _n_moments(layer)
        if left < 0:
            break
        names.append(layer.fqn)
    return tuple(names)


def _n_moments(layer: LayerInfo) -> int:
    return 0 if layer.kind == "embedding" else layer.groups * layer.matrix_shape[1] ** 2


class MomentCollector:
    """Watches the layers of a model while it runs; `result` gives the moments of all inputs seen.

    Memory: for each layer groups * n^2 doubles, for any length of the run, and a bounded number of patches. Of layers
    that `second` does not name (True: all of them; False: none) it keeps n doubles, the means alone.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy, *, second: bool | Collection[str] = True) -> None:
        self._modules = {
            layer.fqn: (layer, module_at(model, layer.fqn))
            for layer in anatomy.layers
            if layer.kind != "embedding" and not layer.is_transposed and not layer.is_fused
        }
        self._around: dict[nn.Module, list[LayerInfo]] = {}
        for layer in anatomy.layers:
            if layer.is_fused and sees_inputs(layer.fqn):
                self._around.setdefault(runs_in(model, layer), []).append(layer)
        self._squared = {
            layer.fqn
            for layer in anatomy.layers
            if (second if isinstance(second, bool) else layer.fqn in second) and _n_moments(layer) <= LARGEST
        }
        self._totals: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._not_finite: set[str] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count every call of the layers inside the block. The modules are restored afterwards."""
        with ExitStack() as stack:
            for layer, module in self._modules.values():
                stack.enter_context(self._watch(layer, module))
            for module, layers in self._around.items():
                handle = module.register_forward_pre_hook(self._see_inside(layers), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _see_inside(self, layers: Sequence[LayerInfo]) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for layer, x in layer_inputs(module, layers, args, kwargs):
                if x.is_floating_point() and x.numel() > 0:
                    self._add_rows(layer.fqn, x)

        return before

    @contextmanager
    def _watch(self, layer: LayerInfo, module: nn.Module) -> Iterator[None]:
        if not isinstance(module, nn.Conv1d | nn.Conv2d):

            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                x = args[0] if args else kwargs.get("input")
                if isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 0:
                    self._add_rows(layer.fqn, x)

            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()
            return
        # A subclass may pad in its own `forward`: what matters is what reaches the convolution itself.
        original = module._conv_forward
        had = "_conv_forward" in vars(module)

        def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            output: Tensor = original(x, weight, bias)
            for patches in _patches(x.detach(), module, real_windows(x, output, module)):
                self._add(layer.fqn, patches)
            return output

        vars(module)["_conv_forward"] = forward
        try:
            yield
        finally:
            if had:
                vars(module)["_conv_forward"] = original
            else:
                del vars(module)["_conv_forward"]

    def _add_rows(self, fqn: str, x: Tensor) -> None:
        """Add the real rows of x (…, n)."""
        self._add(fqn, real_rows(x.detach()).reshape(1, -1, x.shape[-1]))

    def _add(self, fqn: str, x: Tensor) -> None:
        """Add x (groups, m, n), m more inputs."""
        if fqn in self._not_finite or x.shape[1] == 0:
            return
        x = x.float()
        total = x.sum(dim=1, dtype=torch.float64).cpu()
        self._totals[fqn] = self._totals[fqn] + total if fqn in self._totals else total
        self._counts[fqn] = self._counts.get(fqn, 0) + x.shape[1]
        squared = fqn in self._squared
        product = (x.transpose(1, 2) @ x).double().cpu() if squared else total
        if not bool(torch.isfinite(product).all()):
            self._not_finite.add(fqn)
        if squared and fqn in self._sums:
            self._sums[fqn] += product
        elif squared:
            self._sums[fqn] = product

    def result(self, anatomy: Anatomy) -> Moments:
        """Moments of every layer whose inputs are finite, and not all zero."""
        for fqn in self._not_finite:
            self._sums.pop(fqn, None)
            self._totals.pop(fqn, None)
        self._sums = {fqn: total for fqn, total in self._sums.items() if bool(total.any())}
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        aliases: dict[str, str] = {}
        for layer in anatomy.layers:
            first = next(fqn for fqn in anatomy.fqns if fqn == layer.fqn or fqn in layer.tied_to)
            if first != layer.fqn:
                aliases[layer.fqn] = first
            if layer.fqn in self._sums:
                seen = self._sums[layer.fqn]
                sums[first] = sums[first] + seen if first in sums else seen
                counts[first] = counts.get(first, 0) + self._counts[layer.fqn]
        means = {name: (total / counts[name]).float().contiguous() for name, total in sums.items()}
        for fqn, total in self._totals.items():
            means[_MEAN + fqn] = (total / self._counts[fqn]).float().contiguous()
        return Moments(means, aliases)


def _patches(x: Tensor, module: nn.Conv1d | nn.Conv2d, real: Tensor | None) -> Iterator[Tensor]:
    """Patches (groups, positions, in / groups * kernel) of a few samples at a time, as the convolution sees them.

    real  (N, positions) those that count; None: all
    """
    batched = x.dim() == len(module.kernel_size) + 2
    x = x if batched else x[None]
    pad = list(module._reversed_padding_repeated_twice)
    if any(pad):
        x = functional.pad(x, pad, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    if isinstance(module, nn.Conv1d):
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    size = max(1, _PATCHES // max(1, x[0].numel() * kernel[0] * kernel[1] // (stride[0] * stride[1])))
    for start, part in zip(range(0, max(1, len(x)), size), x.split(size), strict=True):
        columns = functional.unfold(part.float(), kernel, dilation=dilation, stride=stride)
        n, _, positions = columns.shape
        grouped = columns.reshape(n, module.groups, -1, positions).permute(1, 0, 3, 2)
        patches = grouped.reshape(module.groups, n * positions, -1)
        yield patches if real is None else patches[:, real[start : start + size].reshape(-1)]
