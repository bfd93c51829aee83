"""Channel scaling between layers: the same function with other numbers, so that weights that share a scale are more
alike.

It runs before anything is compressed; the outputs change by float32's rounding alone.

equalize   rows of a layer and columns of the next get the same range, s = sqrt(r1 / r2), in turn until they have (Nagel
           et al. 2019, "Data-Free Quantization", 4.1)
awq        channels with large inputs get larger weights, s = (rms of the input)^alpha, alpha the best of a grid for the
           error of the next layers' outputs at `bits` (Lin et al. 2024, "AWQ", eq. 4 and 5)
We differ  equalize: norms between layers are left out (their gain is not quantized; "awq" is for them). awq: the
           output's error comes from the inputs' second moments; alpha = 0, no change, is in the grid; any chain of
           operations that keeps factors may stand between, and any number of layers behind
Cost       a trace (seconds), and for awq 11 roundings of each layer behind a pair
Did not help  equalize has nothing to do where norms stand between all layers, as in ResNets
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..anatomy import Anatomy, ChannelConsumer, EqualizablePair, find_equalizable_pairs, rescale_channels
from ..calibration import Moments
from ..quantization import code_range

SCALINGS = ("equalize", "awq")
_ROUNDS = 20
_SMALL = 1e-8
_LARGEST = 2.0**10
"""Largest factor for a channel: beyond it, float32 loses more than the scaling gains."""
_ALPHAS = tuple(i / 10 for i in range(11))


def scale_channels(
    model: nn.Module, inputs: object, how: str, *, anatomy: Anatomy, moments: Moments | None = None, bits: int = 4
) -> tuple[EqualizablePair, ...]:
    """Rescale the model's parameters in place and return the equalizable pairs that changed.

    inputs   for the trace
    moments  of the layers' inputs; needed by "awq"
    bits     planned width of the weights

    Raises `ConfigError` for an unknown name, or where moments are missing.
    """
    if how not in SCALINGS:
        raise ConfigError(f"channels are scaled by one of {', '.join(SCALINGS)}, got {how!r}")
    pairs = find_equalizable_pairs(model, inputs)
    if how == "equalize":
        return _equalize(model, [pair for pair in pairs if not pair.is_norm])
    if moments is None:
        raise ConfigError("'awq' looks at the layers' inputs; give scale_channels their moments")
    changed = []
    for pair in pairs:
        scale = _aware(model, pair, anatomy, moments, bits)
        if scale is not None:
            rescale_channels(model, pair, scale)
            changed.append(pair)
    return tuple(changed)


def _equalize(model: nn.Module, pairs: Sequence[EqualizablePair]) -> tuple[EqualizablePair, ...]:
    total = {pair: torch.ones(pair.channels, dtype=torch.float64) for pair in pairs}
    for _ in range(_ROUNDS):
        most = 0.0
        for pair in pairs:
            own = dict(model.named_parameters(remove_duplicate=False))
            first = own[pair.producers[0]].detach().double().flatten(1).abs().amax(dim=1)
            second = torch.stack(
                [_column_ranges(own[consumer.name].detach().double(), consumer) for consumer in pair.consumers]
            ).amax(0)
            scale = torch.where((first > _SMALL) & (second > _SMALL), (first / second.clamp(min=_SMALL)).sqrt(), 1.0)
            scale = (scale * total[pair]).clamp(1.0 / _LARGEST, _LARGEST) / total[pair]
            rescale_channels(model, pair, scale)
            total[pair] *= scale
            most = max(most, float((scale - 1.0).abs().max()))
        if most < 1e-3:
            break
    return tuple(pair for pair, scale in total.items() if bool((scale != 1.0).any()))


def _column_ranges(weight: Tensor, consumer: ChannelConsumer) -> Tensor:
    """Largest magnitude (channels,) of the weights that each channel is multiplied with."""
    if consumer.depthwise:
        return weight.flatten(1).abs().amax(dim=1)
    by_channel = weight.transpose(0, 1).reshape(weight.shape[1] // consumer.repeat, -1)
    return by_channel.abs().amax(dim=1)


def _aware(model: nn.Module, pair: EqualizablePair, anatomy: Anatomy, moments: Moments, bits: int) -> Tensor | None:
    """Scale of AWQ for a pair; None where no scale is better than none."""
    layers = []
    own = dict(model.named_parameters(remove_duplicate=False))
    for consumer in pair.consumers:
        fqn = consumer.name.removesuffix("weight").removesuffix(".")
        found = moments.get(fqn) if fqn in anatomy.fqns else None
        if found is None or consumer.depthwise:
            return None
        matrix = own[consumer.name].detach().double().reshape(anatomy[fqn].matrix_shape)
        layers.append((matrix, found.second[0].double(), pair.channels))
    energy = torch.stack([h.diagonal().reshape(c, -1).mean(dim=1) for _, h, c in layers]).mean(dim=0)
    rms = energy.sqrt()
    alive = rms > _SMALL
    if not bool(alive.any()):
        return None
    rms = torch.where(alive, rms, rms[alive].min())
    best, least = None, sum(_error(matrix, h, torch.ones(c, dtype=torch.float64), bits) for matrix, h, c in layers)
    for alpha in _ALPHAS[1:]:
        scale = rms**alpha
        scale = (scale / scale.log().mean().exp()).clamp(1.0 / _LARGEST, _LARGEST)
        error = sum(_error(matrix, h, scale, bits) for matrix, h, _ in layers)
        if error < least:
            best, least = scale, error
    return best


def _error(matrix: Tensor, second: Tensor, scale: Tensor, bits: int) -> float:
    """Output error with the columns scaled, rounded to nearest over the full range of each row, and scaled back."""
    by_column = scale.repeat_interleave(matrix.shape[1] // len(scale))
    scaled = matrix * by_column
    low, high = code_range(bits)
    step = (scaled.abs().amax(dim=1, keepdim=True) / high).clamp(min=1e-30)
    error = ((scaled / step).round().clamp(low, high) * step) / by_column - matrix
    return float(((error @ second) * error).sum())
