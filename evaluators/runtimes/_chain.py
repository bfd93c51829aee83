"""Forms of low rank that run as a chain of convolutions: 1 x 1 and k x k, k x 1 and 1 x k, or Tucker-2's three.

The module stays where it is, and what it computes is replaced (`_conv_forward`, so that a subclass that pads by itself
still does): every exporter then sees two or three ordinary convolutions. All in FP32, as the factors of a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._base import ExportError

if TYPE_CHECKING:
    from ...compressors import Variant

FORMS = ("input", "spatial", "tucker2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """Chain of parts. form, one of `FORMS`; parts: prefix -> matrix (out, in * kernel); the last meets the input."""

    form: str
    parts: dict[str, Tensor]


def chain_of(variant: Variant) -> Chain | None:
    """Chain of a weight; None for a whole weight, two factors, or a residual (which runs as the one weight that it adds
    up to).
    """
    spec = variant.spec
    if spec.rank >= 1.0 or spec.rank_form not in FORMS:
        return None
    return Chain(form=spec.rank_form, parts=variant.parts())


def run_as_chain(module: nn.Module, chain: Chain) -> None:
    """Make a convolution run as its parts from now on. Raises `ExportError` for anything but a convolution of one
    group.
    """
    if not isinstance(module, nn.Conv1d | nn.Conv2d) or module.groups != 1:
        raise ExportError(f"a {chain.form} chain needs a convolution of one group, got {module}")
    convolve = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d
    steps = _steps(module, chain)
    for i, (weight, _) in enumerate(steps):
        module.register_parameter(f"part{i}", nn.Parameter(weight, requires_grad=False))
    pads, mode = list(module._reversed_padding_repeated_twice), module.padding_mode

    def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if any(pads) and (mode != "zeros" or module.padding == "same"):
            x = functional.pad(x, pads, mode="constant" if mode == "zeros" else mode)
        for i, (_, how) in enumerate(steps):
            last = i + 1 == len(steps)
            x = convolve(x, getattr(module, f"part{i}"), bias if last else None, **how)
        return x

    vars(module)["_conv_forward"] = conv_forward


def _steps(module: nn.Conv1d | nn.Conv2d, chain: Chain) -> list[tuple[Tensor, dict[str, Any]]]:
    """(weight, stride, padding and dilation) of each convolution, in the order in which they run."""
    kernel, n = tuple(module.kernel_size), len(module.kernel_size)
    ones, none = (1,) * n, (0,) * n
    inside = module.padding if isinstance(module.padding, tuple) and module.padding_mode == "zeros" else none
    whole = {"stride": tuple(module.stride), "padding": tuple(inside), "dilation": tuple(module.dilation)}
    plain = {"stride": ones, "padding": none, "dilation": ones}
    if chain.form == "spatial":
        v, u = (_shaped(chain.parts[p], sides) for p, sides in (("v.", (kernel[0], 1)), ("u.", (1, kernel[1]))))
        down = {key: (pair[0], plain[key][1]) for key, pair in whole.items()}
        across = {key: (plain[key][0], pair[1]) for key, pair in whole.items()}
        return [(v, down), (u, across)]
    parts = [p for p in ("v.", "c.", "u.") if p in chain.parts]
    wide = "u." if chain.form == "input" else "c."
    return [(_shaped(chain.parts[p], kernel if p == wide else ones), whole if p == wide else plain) for p in parts]


def _shaped(matrix: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Reshape (out, in * kernel) to the weight of a convolution."""
    return matrix.reshape(matrix.shape[0], -1, *kernel).to(torch.float32).contiguous()
