"""Forms into which a weight of lower rank is split: shapes, products, and the inputs of each part.

A weight is (O, I) or (O, I, kh, kw); n = I * K, K = kh * kw. Each part is the matrix (out, in * kernel) of a real
layer:

    channel   v (r, I K) then u (O, r): the old kernel with r outputs, then 1 x 1    r of min(O, I K)
    input     v (r, I) then u (O, r K): 1 x 1, then the old kernel on r inputs       r of min(O K, I)
    spatial   v (r, I kh) then u (O, r kw): kh x 1, then 1 x kw                      r of min(O kw, I kh)
    tucker2   v (s, I), c (r, s K), u (O, r): 1 x 1, the old kernel, 1 x 1           r of min(O, I K), s of min(I, O K)
    residual  u v + w: two factors beside what they leave over, w (O, I K)           r of min(O, I K)

Denton et al. 2014 (channel, input), Jaderberg et al. 2014, scheme 2 (spatial), Kim et al. 2016 (Tucker-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._svd import kept_rank

if TYPE_CHECKING:
    from ..anatomy import LayerInfo

Parts = Mapping[str, Tensor]

PARTS = {
    "channel": ("u.", "v."),
    "input": ("u.", "v."),
    "spatial": ("u.", "v."),
    "tucker2": ("u.", "c.", "v."),
    "residual": ("u.", "v.", "w."),
}
"""Prefixes of the stored parts; the last of a chain meets the layer's input."""


def full_rank(form: str, shape: tuple[int, ...]) -> int:
    """Full rank that a rank share refers to; for Tucker-2 on the side of the outputs."""
    out, inputs, (kh, kw) = shape[0], shape[1], kernel_of(shape)
    sides = {"input": (out * kh * kw, inputs), "spatial": (out * kw, inputs * kh)}
    return min(sides.get(form, (out, inputs * kh * kw)))


def unfolded(form: str, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Matrix (O, n) reshaped to the one whose rank is lowered."""
    out, inputs, (kh, kw) = shape[0], shape[1], kernel_of(shape)
    if form == "input":
        return matrix.reshape(out, inputs, kh * kw).transpose(1, 2).reshape(out * kh * kw, inputs)
    if form == "spatial":
        return matrix.reshape(out, inputs * kh, kw).transpose(1, 2).reshape(out * kw, inputs * kh)
    return matrix


def kernel_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Kernel (kh, kw) of a weight: 1 x k for one dimension, 1 x 1 for a matrix."""
    sides = (1, 1, *shape[2:])
    return sides[-2], sides[-1]


def part_shapes(form: str, share: float, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Prefix -> (rows, columns) of each part."""
    out, inputs, (kh, kw) = shape[0], shape[1], kernel_of(shape)
    whole = (out, inputs * kh * kw)
    rank = kept_rank(share, whole)
    if form == "input":
        rank = kept_rank(share, (out * kh * kw, inputs))
        return {"u.": (out, rank * kh * kw), "v.": (rank, inputs)}
    if form == "spatial":
        rank = kept_rank(share, (out * kw, inputs * kh))
        return {"u.": (out, rank * kw), "v.": (rank, inputs * kh)}
    if form == "tucker2":
        inner = kept_rank(share, (inputs, out * kh * kw))
        return {"u.": (out, rank), "c.": (rank, inner * kh * kw), "v.": (inner, inputs)}
    two = {"u.": (out, rank), "v.": (rank, whole[1])}
    return {**two, "w.": whole} if form == "residual" else two


def part_kernels(form: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Prefix -> positions of the part's kernel."""
    kh, kw = kernel_of(shape)
    return {
        "channel": {"u.": 1, "v.": kh * kw},
        "input": {"u.": kh * kw, "v.": 1},
        "spatial": {"u.": kw, "v.": kh},
        "tucker2": {"u.": 1, "c.": kh * kw, "v.": 1},
        "residual": {"u.": 1, "v.": kh * kw, "w.": kh * kw},
    }[form]


def misfit(form: str, shape: tuple[int, ...]) -> str | None:
    """Reason why a weight of this shape cannot be split so, as a clause; None if it can."""
    if form in ("channel", "residual"):
        return None
    kh, kw = kernel_of(shape)
    if kh * kw == 1:
        return f"the form {form!r} is for convolutions with a kernel; for this layer it is 'channel'"
    if form == "spatial" and (kh == 1 or kw == 1):
        return f"the form 'spatial' splits a kernel into its two directions, and this one is {kh} x {kw}"
    return None


def product(form: str, parts: Parts, shape: tuple[int, ...]) -> Tensor:
    """Matrix (rows of u, n) that the parts stand for, in their dtype.

    `shape` is the weight's; u may have other rows than the weight (see `basis`).
    """
    u, inputs, (kh, kw) = parts["u."], shape[1], kernel_of(shape)
    if form == "channel":
        return u @ parts["v."]
    if form == "residual":
        return u @ parts["v."] + parts["w."]
    rows = u.shape[0]
    if form == "spatial":
        split = u.reshape(rows, -1, kw), parts["v."].reshape(-1, inputs, kh)
        return torch.einsum("orx,riy->oiyx", *split).reshape(rows, -1)
    if form == "tucker2":
        u = (u @ parts["c."]).float().to(u.dtype)  # rounded here too: no order of the sums shows
    return torch.einsum("ork,ri->oik", u.reshape(rows, -1, kh * kw), parts["v."]).reshape(rows, -1)


def basis(form: str, prefix: str, parts: Parts, shape: tuple[int, ...]) -> Tensor:
    """Matrix B (columns of that part, n) float64, such that the part's matrix times B is the product of the chain
    without its later parts.

    Defined for all parts of a chain but its first.
    """
    form = "channel" if form == "residual" else form  # its rest is beside the chain
    columns = part_columns(form, prefix, parts, shape)
    eye = torch.eye(columns, dtype=torch.float64)
    known = {name: part.double() for name, part in parts.items()}
    after = {"u.": eye, "c.": eye} if prefix == "c." else {"u.": eye}
    return product(form, {**known, **after}, shape)


def part_columns(form: str, prefix: str, parts: Parts, shape: tuple[int, ...]) -> int:
    """Number of columns of the part, derived from the parts before it in the chain."""
    if form == "tucker2" and prefix == "u.":
        return parts["c."].shape[0]
    return parts["v."].shape[0] * part_kernels(form, shape)[prefix]


def input_moments(form: str, prefix: str, parts: Parts, second: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Second moments (m, m) float64 of the inputs of a part (out, m), from those of the layer's inputs (n, n).

    parts  those before it in the chain, as they are stored

    The first part of a chain gets the mean over the kernel positions that it does not see.
    """
    second = second.double()
    if form in ("channel", "residual") and prefix != "u.":
        return second
    if prefix != "v.":
        through = basis(form, prefix, parts, shape)
        return through @ second @ through.T
    return reduced_moments(form, second, shape)


def reduced_moments(form: str, second: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Reduce moments (n, n) to those of the rows that "input" and "tucker2" (I) or "spatial" (I kh) begin with."""
    inputs, (kh, kw) = shape[1], kernel_of(shape)
    if form == "spatial":
        split = second.reshape(inputs * kh, kw, inputs * kh, kw)
        return split.diagonal(dim1=1, dim2=3).mean(dim=-1)
    split = second.reshape(inputs, kh * kw, inputs, kh * kw)
    return split.diagonal(dim1=1, dim2=3).mean(dim=-1)


def part_macs(form: str, share: float, layer: LayerInfo) -> dict[str, int]:
    """Prefix -> multiply-accumulates for one sample.

    A part that does not stride (or pad) along an axis has the input's length there. Where the anatomy does not know the
    input's shape, the output's is used.
    """
    shapes = part_shapes(form, share, layer.weight_shape)
    if layer.macs == 0:
        return dict.fromkeys(shapes, 0)
    positions = layer.macs // layer.n_weights
    at_input = at_half = positions
    sides = len(layer.weight_shape) - 2
    if sides > 0 and len(layer.input_shape) == len(layer.output_shape) == sides + 1:
        before, after = layer.input_shape[1:], layer.output_shape[1:]
        at_input = positions * prod(before) // max(1, prod(after))
        at_half = positions * before[-1] // max(1, after[-1])
    where = {"u.": positions, "c.": positions, "w.": positions, "v.": positions}
    if form in ("input", "tucker2"):
        where["v."] = at_input
    if form == "spatial":
        where["v."] = at_half
    return {name: where[name] * rows * columns for name, (rows, columns) in shapes.items()}
