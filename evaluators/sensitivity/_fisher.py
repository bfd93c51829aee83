"""Estimate of the whole sensitivity table from one forward and a few backward passes.

What it does   divergence of (layer, level) ~ 1/2 mean_i <d<v, z_i>/dy_i, layer(x_i; compressed) - y_i>^2, where v is
               drawn so that E[v v'] is the Hessian of the divergence at the original's outputs z_i
Paper          the Gauss-Newton (Fisher) quadratic form: Hassibi & Stork 1993; sampled: Martens & Grosse 2015;
               AutoQuantize (ModelOpt) ranks formats by the sum of g^2 dy^2
We differ      the layer's own outputs are compared, activation quantization included, and the product is summed over
               the layer before it is squared, so that errors within a layer may cancel
Cost           one forward pass, about two more for each draw, and each layer once for each of its levels
Does not help  in place of the table: it is right to second order only, and orders the rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...compressors import (
    Calibration,
    LayerSpec,
    Variant,
    activation_quantizer,
    forward,
    module_at,
    preserved,
    weight_at,
)
from ...compressors.anatomy import FUSED_KINDS, kind_at, output_masks
from ...compressors.calibration import differentiable
from ...errors import InputError
from ..quality import OutputDistance, checked_divergence
from ..values import Split
from ._calls import Forward, moved_to, wrapped

Groups = Sequence[tuple[Sequence[str], Sequence[LayerSpec]]]
"""Decision groups, each with its layers and its levels."""
Variants = Callable[[str, LayerSpec], Variant]


@dataclass(frozen=True, slots=True, kw_only=True)
class FisherTable:
    """Estimated sensitivity table.

    values    per group, per level: the estimated divergence; 0 for the neutral level, never negative
    elements  the same with every element of the outputs squared by itself, before the sum: errors within a layer do
              not cancel. It is no better on average, but its noise is far less on few samples
    passes    cost, in samples passed forward through the whole model
    """

    values: tuple[tuple[float, ...], ...]
    elements: tuple[tuple[float, ...], ...]
    passes: float


@dataclass(slots=True, eq=False)
class _Seen:
    """Call `n` (from 0) of a layer in a pass. `probe` is a zero added to its output; its gradient is the output's."""

    fqn: str
    n: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    probe: Tensor
    gradients: list[Tensor] = field(default_factory=list)


def fisher_table(
    model: nn.Module,
    split: Split,
    groups: Groups,
    variants: Variants,
    *,
    calibration: Calibration | None = None,
    divergence: str = "kl",
    variance: float = 1.0,
    class_axis: int | None = -1,
    distance: OutputDistance | None = None,
    draws: int = 2,
    batch_size: int = 16,
    seed: int = 0,
) -> FisherTable:
    """Estimate for every group and level, on all of `split`. The model may have no parameter that requires grad.

    divergence  "kl" or "mse"; variance: of all the original's outputs (`ReferenceOutputs.variance`), for "mse"
    class_axis  axis of the outputs on which the classes lie, for "kl"; None: not known
    distance    distance of the outputs, instead of the three above; a model of several outputs needs it
    draws       vectors v for each sample
    batch_size  samples in one backward pass, whose activations are all in memory

    Layers that share a tensor or are called several times count as one. Raises `MetricError` for outputs that are no
    logits where "kl" is asked for, and whatever torch raises where the model cannot be differentiated.
    """
    names = [fqn for fqns, _ in groups for fqn in fqns]
    fused = {fqn: weight_at(model, fqn) for fqn in names if kind_at(model, fqn) in FUSED_KINDS}
    layers = {fqn: module_at(model, fqn) for fqn in names if fqn not in fused}
    totals = [[0.0] * len(levels) for _, levels in groups]
    elements = [[0.0] * len(levels) for _, levels in groups]
    generator = torch.Generator().manual_seed(seed)
    if distance is None:
        distance = OutputDistance.of_one(checked_divergence(divergence), class_axis=class_axis)
    for inputs, _ in split.batches(batch_size):
        seen, inside, n = _backward(model, inputs, layers, fused, (distance, variance, split.mask), draws, generator)
        with preserved(model):
            for g, (fqns, levels) in enumerate(groups):
                calls = [call for call in seen if call.fqn in fqns]
                weights = {fqn: fused[fqn] for fqn in fqns if fqn in inside}
                for i, spec in enumerate(levels):
                    if not spec.is_neutral and (calls or weights):
                        found = _inside(weights, inside, spec, variants, n)
                        squared, apart = _squares(calls, layers, spec, variants, calibration, n, found)
                        totals[g][i] += squared
                        elements[g][i] += apart
    n_samples = len(split)
    values, alone = (
        tuple(tuple(total / (2.0 * draws * n_samples) for total in row) for row in rows) for rows in (totals, elements)
    )
    n_levels = max((sum(not spec.is_neutral for spec in levels) for _, levels in groups), default=0)
    return FisherTable(values=values, elements=alone, passes=float(n_samples * (1 + 2 * draws + n_levels)))


def _backward(
    model: nn.Module, inputs: Any, layers: dict[str, nn.Module], fused: dict[str, nn.Parameter],
    distance: tuple[OutputDistance, float, str | None], draws: int, generator: torch.Generator,
) -> tuple[list[_Seen], dict[str, list[Tensor]], int]:  # fmt: skip
    """Run backward for each draw, and return every call of the layers with the gradients of <v, outputs>.

    Also returns fqn -> gradients by the weight, for the used layers in `fused`, and the number of samples.
    """
    seen: list[_Seen] = []
    inside: dict[str, list[Tensor]] = {}
    names = {module: fqn for fqn, module in reversed(layers.items())}

    def probe(module: nn.Module, original: Forward) -> Forward | None:
        if module not in names:
            return None

        def probed(*args: Any, **kwargs: Any) -> Tensor:
            output: Tensor = original(*args, **kwargs)
            zero = torch.zeros_like(output, requires_grad=True)
            args, kwargs = _detached(args, kwargs)
            n = sum(call.fqn == names[module] for call in seen)
            seen.append(_Seen(names[module], n, args, kwargs, output.detach().clone(), zero))
            return output + zero

        return probed

    root = _Root(model)
    with preserved(root), differentiable(list(fused.values())), torch.enable_grad(), wrapped(root, probe):
        outputs = forward(root, moved_to(inputs, model))
        real = output_masks(outputs, inputs, distance[2], model=model)
        for draw in range(draws):
            product = distance[0].drawn(outputs, generator, distance[1], real)
            gradients = torch.autograd.grad(
                product, [*(call.probe for call in seen), *fused.values()], retain_graph=draw + 1 < draws,
                allow_unused=True,
            )  # fmt: skip
            for fqn, gradient in zip(fused, gradients[len(seen) :], strict=True):
                if gradient is not None:
                    inside.setdefault(fqn, []).append(gradient)
            for call, gradient in zip(seen, gradients, strict=False):
                call.gradients.append(torch.zeros_like(call.output) if gradient is None else gradient)
    if not seen and not inside:
        raise InputError("none of the layers ran")
    return seen, inside, len(Split("fisher", inputs))


class _Root(nn.Module):
    """Module around the model, so that the `forward` of a model that is itself a layer is wrapped too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


def _detached(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Detached copies, as the model may write into a layer's inputs."""

    def copy(value: Any) -> Any:
        return value.detach().clone() if isinstance(value, Tensor) else value

    return tuple(copy(value) for value in args), {key: copy(value) for key, value in kwargs.items()}


def _squares(
    calls: Sequence[_Seen], layers: dict[str, nn.Module], spec: LayerSpec, variants: Variants,
    calibration: Calibration | None, n: int, products: Tensor | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Sum over samples and draws of (`products` + the sum over the calls of <gradient, change of the output>)^2.

    The second sum is of the squares of all elements of `products` and of gradient times change.
    """
    apart = 0.0 if products is None else float(products.square().sum())
    for call, changed in _changed(calls, layers, spec, variants, calibration):
        change = changed - call.output
        for gradient in call.gradients:
            apart += float((gradient * change).double().square().sum())
        mine = torch.stack([_per_sample(gradient * change, n) for gradient in call.gradients])
        products = mine if products is None else products + mine
    return (0.0 if products is None else float(products.square().sum())), apart


def _inside(
    weights: dict[str, nn.Parameter], gradients: dict[str, list[Tensor]], spec: LayerSpec, variants: Variants, n: int
) -> Tensor | None:
    """Sums (draws, n) of <gradient, change of the weight>, whose sample is unknown (see `_per_sample`)."""
    products: Tensor | None = None
    for fqn, weight in weights.items():
        change = variants(fqn, spec).effective.to(weight) - weight
        mine = torch.stack([_of_all((gradient * change).double(), n) for gradient in gradients[fqn]])
        products = mine if products is None else products + mine
    return products


def _changed(
    calls: Sequence[_Seen], layers: dict[str, nn.Module], spec: LayerSpec, variants: Variants,
    calibration: Calibration | None,
) -> Iterator[tuple[_Seen, Tensor]]:  # fmt: skip
    """Change of each call's output when its layer is treated."""
    for call in calls:
        module = layers[call.fqn]
        weight = module._parameters["weight"]
        args, kwargs, weights = call.args, call.kwargs, {}
        if spec.changes_weight and weight is not None:
            weights = {"weight": variants(call.fqn, spec).effective.to(device=weight.device, dtype=weight.dtype)}
        if spec.changes_activation and calibration is not None:
            quantizer = activation_quantizer(calibration, call.fqn, spec, call.n)
            args, kwargs = quantizer(module, args, kwargs)
        yield call, functional_call(module, weights, args, kwargs)


def _per_sample(products: Tensor, n: int) -> Tensor:
    """Sums over all axes but the samples (n,), in float64.

    Where axis 0 is not the sample, everything is in the first sum: the draws of different samples are independent, so
    that the squares still add up to the same on average.
    """
    products = products.double()
    if products.dim() and products.shape[0] % n == 0:
        return products.reshape(n, -1).sum(dim=1)
    return _of_all(products, n)


def _of_all(products: Tensor, n: int) -> Tensor:
    sums = torch.zeros(n, dtype=torch.float64, device=products.device)
    sums[0] = products.sum()
    return sums
