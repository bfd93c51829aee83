"""Repairs of a compressed model without training: corrected biases and recalibrated batch norms.

What it does   bias correction: a layer whose weight became W + D has outputs shifted by D E[x] on average; that is
               subtracted from its bias, or from the running mean of the batch norm behind it. Batch-norm recalibration:
               running statistics are moved by as much as compression has moved the statistics of the inputs on
               calibration data
Paper          bias: Nagel et al. 2019, "Data-Free Quantization", 4.2, with means from calibration (Nagel et al. 2021,
               3.5). Batch norm: as Sun et al. 2019, "Hybrid 8-bit Floating Point Training and Inference", tune them
               again
We differ      bias: by the original's means, so that each layer's correction depends on its own variant alone and is
               computed once. Batch norm: the change of the statistics is used, not the statistics themselves. It is
               measured in the same way on the same samples before and after; where nothing changed, nothing is touched,
               bit for bit
Cost           no stored byte: the numbers were stored before. bias: a product with a vector for each variant. Batch
               norm: a pass over the calibration samples for each model
Did not help   a layer that has neither a bias nor a batch norm behind it has no place for the correction
               (`without_place`)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..anatomy import (
    Anatomy,
    LayerInfo,
    forward,
    masked_batch,
    module_at,
    preserved,
    real_rows,
    rounded_to_source,
    same_tensor,
    source_dtypes,
    temporary_hooks,
)
from ..calibration import Moments
from ..values import LayerSpec, weight_name
from ..variants import CompressedModel, Variant

if TYPE_CHECKING:
    from ..structure import Removal

Values = Mapping[str, Tensor]
"""Name in the state_dict -> new value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Parameter or buffer that can absorb a shift of a layer's outputs.

    sign  -1 where the value is subtracted from the outputs
    """

    name: str
    sign: float


class Repairs:
    """Computes corrected biases and statistics for an assignment; it changes nothing itself (see `installed`).

    resident  holds the model with its original weights whenever a method here is called
    means     means of the layers' inputs, for `corrected_biases`; None: there are no corrections
    batches   calibration inputs, for `recalibrated_norms`; the first of them finds the batch norms behind the layers
    mask      name of the mask among the inputs (`anatomy.positions`); what it hides counts in no statistic
    """

    def __init__(
        self, resident: CompressedModel, means: Moments | None, batches: Sequence[object], mask: str | None = None
    ) -> None:
        self.resident = resident
        self.means = means
        self.batches = tuple(batches)
        self.mask = mask
        self._places = _places(resident.model, resident.anatomy, self.batches[0]) if self.batches else {}
        self._shifts: dict[tuple[str, LayerSpec], Tensor | None] = {}
        self._before: dict[str, tuple[Tensor, Tensor]] | None = None

    @property
    def without_place(self) -> tuple[str, ...]:
        """Layers whose shift no parameter can absorb."""
        layers = self.resident.anatomy.layers
        return tuple(x.fqn for x in layers if x.kind != "embedding" and x.fqn not in self._places)

    @property
    def has_norms(self) -> bool:
        """Tell whether the model has batch norms with running statistics."""
        return bool(_norms(self.resident.model))

    def corrected_biases(
        self, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant], removal: Removal | None = None
    ) -> dict[str, Tensor]:
        """Biases and running means that restore the mean of each layer's outputs.

        removal  parts that are masked as well; variants then have the whole shape, with zeros in removed positions
        """
        state: dict[str, Tensor] = {}
        own = self.resident.model.state_dict()
        kept = {} if removal is None else kept_positions(self.resident.model, removal)
        for layer in self.resident.anatomy.layers:
            spec = assignment.get(layer.fqn, LayerSpec()).weight_only
            place = self._places.get(layer.fqn)
            axes = kept.get(weight_name(layer.fqn), {})
            if place is None or not (spec.changes_weight or axes) or (removal and _is_skipped(layer.fqn, removal)):
                continue
            variant = variants[layer.fqn] if spec.changes_weight else None
            if removal is not None:  # rows and columns differ for every removal: nothing to cache
                shift = self._shift(layer, variant, axes)
            else:
                key = (layer.fqn, spec)
                if key not in self._shifts:
                    self._shifts[key] = self._shift(layer, variant, axes)
                shift = self._shifts[key]
            if shift is not None:
                old = state.get(place.name, own[place.name])
                state[place.name] = (old.double() + place.sign * shift.to(old.device)).to(old.dtype)
        return _masked_values(state, own, kept)

    def recalibrated_norms(
        self,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        given: Values,
        removal: Removal | None = None,
    ) -> dict[str, Tensor]:
        """`given`, with running statistics moved like their inputs' under `assignment`, `given` and `removal`.

        Statistics of removed parts are not moved. `removal` as in `corrected_biases`.
        """
        model = self.resident.model
        norms = _norms(model)
        if not norms or not self.batches or (removal is None and all(spec.is_neutral for spec in assignment.values())):
            return dict(given)
        if self._before is None:
            self._before = _statistics(model, norms, self.batches, self.mask)
        kept = {} if removal is None else kept_positions(model, removal)
        with self.resident.apply(assignment, variants), _masked(model, removal), installed(model, given):
            after = _statistics(model, norms, self.batches, self.mask)
        state, found = model.state_dict(), dict(given)
        for name, (old_mean, old_variance) in self._before.items():
            if name not in after:  # its block is skipped
                continue
            mean, variance = after[name]
            # the measured change includes a shift that `given` put into the running mean, so it replaces that
            running = state[f"{name}running_mean"]
            found[f"{name}running_mean"] = (running.double() + (mean - old_mean)).to(running.dtype)
            running = state[f"{name}running_var"]
            ratio = torch.where(old_variance > 0, variance / old_variance.clamp(min=1e-30), 1.0)
            found[f"{name}running_var"] = (running.double() * ratio).to(running.dtype)
        return _masked_values(found, state, kept)

    def _shift(self, layer: LayerInfo, variant: Variant | None, axes: Mapping[int, tuple[int, ...]]) -> Tensor | None:
        """Average loss (out,) float64 of the outputs."""
        mean = None if self.means is None else self.means.mean(layer.fqn)
        if mean is None:
            return None
        weight = self.resident.weight(layer.fqn).cpu().double()
        left = weight if variant is None else variant.effective.double()
        if axes:
            from ..structure import mask_of

            left = left * mask_of(tuple(left.shape), axes, left)
        matrix = (weight - left).reshape(layer.groups, -1, layer.matrix_shape[1])
        return (matrix @ mean.double()[..., None]).reshape(-1)


def _masked(model: nn.Module, removal: Removal | None) -> Any:
    if removal is None:
        return nullcontext(model)
    from ..structure import masked

    return masked(model, removal)


def _is_skipped(fqn: str, removal: Removal) -> bool:
    return any(fqn == block or fqn.startswith(f"{block}.") for block in removal.skipped)


def kept_positions(model: nn.Module, removal: Removal) -> dict[str, dict[int, tuple[int, ...]]]:
    """Name of each tensor that is cut, all its names -> axis -> positions kept."""
    from ..structure import cut_tensors

    axes = {id(tensor): kept for tensor, kept in cut_tensors(model, removal)}
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return {name: axes[id(tensor)] for name, tensor in tensors.items() if id(tensor) in axes}


def _masked_values(
    values: dict[str, Tensor], own: Values, kept: Mapping[str, Mapping[int, tuple[int, ...]]]
) -> dict[str, Tensor]:
    """Values with a mask's numbers in removed positions: zero, and for a variance its old value."""
    if not kept:
        return values
    from ..structure import mask_of

    found = dict(values)
    for name, value in values.items():
        if axes := kept.get(name):
            mask = mask_of(tuple(value.shape), axes, value).bool()
            rest = own[name].to(value) if name.endswith("running_var") else torch.zeros_like(value)
            found[name] = torch.where(mask, value, rest)
    return found


@contextmanager
def installed(model: nn.Module, values: Values) -> Iterator[None]:
    """Give these parameters and buffers these values inside the block; restore them afterwards, without a copy.

    The values are rounded to the types of the model's source, in which they are stored.
    """
    sources = source_dtypes(model)
    state: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    state.update(model.named_buffers(remove_duplicate=False))
    kept = [(state[name], state[name].data) for name in values]
    try:
        for (tensor, _), (name, value) in zip(kept, values.items(), strict=True):
            rounded = rounded_to_source(value, sources.get(name, ""))
            tensor.data = rounded.to(device=tensor.device, dtype=tensor.dtype)
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _places(model: nn.Module, anatomy: Anatomy, inputs: object) -> dict[str, _Place]:
    """fqn -> the layer's own bias, or the running mean of the batch norm that reads its output."""
    places: dict[str, _Place] = {}
    biases = [
        None if layer.is_fused else module_at(model, layer.fqn)._parameters.get("bias") for layer in anatomy.layers
    ]
    keys = [same_tensor(bias) for bias in biases if bias is not None]
    behind = _norms_behind(model, anatomy, inputs)
    for layer, bias in zip(anatomy.layers, biases, strict=True):
        prefix = f"{layer.fqn}." if layer.fqn else ""
        if layer.kind == "embedding" or layer.is_transposed or layer.is_fused:
            continue
        if bias is not None and bias.is_floating_point() and keys.count(same_tensor(bias)) == 1:
            places[layer.fqn] = _Place(name=f"{prefix}bias", sign=1.0)
        elif bias is None and layer.fqn in behind:
            places[layer.fqn] = _Place(name=f"{behind[layer.fqn]}running_mean", sign=-1.0)
    return places


def _norms(model: nn.Module) -> dict[str, nn.Module]:
    """Prefix of the name ("bn1.") -> each batch norm that has running statistics and uses them."""
    return {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    }


def _norms_behind(model: nn.Module, anatomy: Anatomy, inputs: object) -> dict[str, str]:
    """fqn of a layer that runs once -> prefix of the batch norm, also run once, that reads its output."""
    norms = _norms(model)
    outputs: dict[str, Tensor] = {}
    entered: dict[str, list[Tensor]] = {name: [] for name in norms}
    plain = [layer for layer in anatomy.layers if layer.kind != "embedding" and not layer.is_fused]
    once = [layer.fqn for layer in plain if layer.n_calls == 1]
    with temporary_hooks() as hooks, preserved(model):
        hooks.extend(module_at(model, fqn).register_forward_hook(_record_output(outputs, fqn)) for fqn in once)
        hooks.extend(norm.register_forward_pre_hook(_record_input(entered[name])) for name, norm in norms.items())
        forward(model, inputs)
    lone = {name: seen[0] for name, seen in entered.items() if len(seen) == 1}
    return {fqn: name for fqn, output in outputs.items() for name, seen in lone.items() if seen is output}


def _record_output(outputs: dict[str, Tensor], fqn: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor):
            outputs[fqn] = output

    return hook


def _record_input(entered: list[Tensor]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        entered.extend(x for x in args[:1] if isinstance(x, Tensor))

    return hook


def _statistics(
    model: nn.Module, norms: Mapping[str, nn.Module], batches: Sequence[object], mask: str | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Prefix -> mean and variance, float64, of the inputs of each batch norm that runs.

    As in training, each norm uses the statistics of the batch itself, so that a later one is measured on normalised
    inputs. The modules stay in eval mode: a hook normalises their inputs, and adds the running statistics, which the
    module then removes again.
    """
    sums: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            x = args[0]
            real = real_rows(x, 1)
            axes = [axis for axis in range(real.dim()) if axis != 1]
            n = real.numel() // max(1, real.shape[1])
            if n < 2:
                return None
            mean, variance = real.double().mean(axes), real.double().var(axes, unbiased=False)
            known = sums.setdefault(name, [torch.zeros((), dtype=torch.float64)] * 3)
            sums[name] = [known[0] + n, known[1] + n * mean, known[2] + n * (variance + mean.square())]
            shape = [1, -1, *[1] * (x.dim() - 2)]
            gain = ((module.running_var.double() + module.eps) / (variance + module.eps)).sqrt()
            offset = module.running_mean.double() - mean * gain
            return (x * gain.to(x.dtype).reshape(shape) + offset.to(x.dtype).reshape(shape), *args[1:])

        return hook

    with temporary_hooks() as hooks, preserved(model):
        hooks.extend(norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items())
        for inputs in batches:
            with masked_batch(model, inputs, mask):
                forward(model, inputs)
    found = {}
    for name, (n, first, second) in sums.items():
        mean = first / n
        found[name] = (mean, (second / n - mean.square()).clamp(min=0.0))
    return found
