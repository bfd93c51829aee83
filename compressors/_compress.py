"""A weight and a spec in, a variant out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SpecError
from . import _registry
from ._anatomy import LayerInfo
from ._moments import LARGEST, LayerMoments
from ._spec import FLOAT_BITS, LayerSpec
from ._variant import FACTORS, WHOLE, Variant, decode
from .lowrank import kept_rank
from .quantization._grid import CASTS, Grid
from .quantization._problem import WeightProblem
from .quantization._solve import knows, solve
from .sparsity import n_zeros
from .storage._parts import load_matrix, store_coded, store_values

_BLOCK = 2**19
"""Weights that are looked at together."""

__all__ = ["applicable", "check_finite", "compress", "decode", "needs_moments"]


def applicable(spec: LayerSpec, layer: LayerInfo) -> str | None:
    """Why this treatment makes no sense for this layer, in a clause; None if it does."""
    if spec.changes_structure:
        return "keep is for coupled sets of channels, heads or neurons; this is a layer"
    if spec.rank < 1.0:
        if layer.kind == "embedding":
            return "low rank is for linear layers and convolutions; this is an embedding"
        if layer.groups != 1:
            return f"low rank needs a convolution of one group; this one has {layer.groups}"
        rows, columns = layer.matrix_shape
        rank = kept_rank(spec.rank, (rows, columns))
        if rank * (rows + columns) >= rows * columns:
            return f"rank {rank} of a {rows} x {columns} matrix saves nothing: the factors are not smaller"
    if spec.weight_bits != FLOAT_BITS:
        if not knows(spec.weight_method, spec.weight_format):
            return f"the weight method {spec.weight_method!r} does not know the format {spec.weight_format!r}"
        shared = isinstance(spec.group_size, int) and spec.group_size > 0
        if spec.weight_format in CASTS and (spec.group_size, spec.scale_bits) != (0, 32):
            return f"{spec.weight_format} has no scales, so group_size and scale_bits say nothing of it"
        if shared and spec.rank >= 1.0 and int(spec.group_size) >= layer.matrix_shape[1]:
            return (
                f"group_size {spec.group_size} is no less than the {layer.matrix_shape[1]} weights of a row: "
                f"that is group_size 0"
            )
    if spec.sparsity > 0.0 and n_zeros(spec.sparsity, layer.n_weights) == 0:
        return f"sparsity {spec.sparsity:g} of {layer.n_weights} weights is less than one weight"
    if spec.changes_activation and layer.kind == "embedding":
        return "the input of an embedding is whole numbers; its activation cannot be quantized"
    return None


def needs_moments(spec: LayerSpec) -> bool:
    """Whether the layer's treatment depends on its inputs (an embedding's has none, and does not)."""
    if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
        return False
    return spec.weight_format == "adaptive" or _registry.WEIGHT.needs(spec.weight_method) == "moments"


def compress(weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, moments: LayerMoments | None = None) -> Variant:
    """`weight` under `spec`. Pure and deterministic; `weight` is left alone and shares no memory with the result.

    The order is rank, sparsity, bits (see `LayerSpec`); the neutral spec is an exact no-op. The activation's part of
    the spec is ignored. Raises `SpecError` if the treatment does not apply to the layer, if the weight holds NaN or
    infinity, if it needs `moments` (of the layer's inputs) and has none, or if a registered method breaks its protocol.
    """
    weight = weight.detach().cpu()
    if tuple(weight.shape) != layer.weight_shape:
        raise SpecError(f"the weight of {layer.fqn} should be {layer.weight_shape}, got {tuple(weight.shape)}")
    spec = spec.weight_only
    if (reason := applicable(spec, layer)) is not None:
        raise SpecError(f"{spec.label()} does not apply to {layer.fqn}: {reason}")
    check_finite(weight, layer.fqn)
    if not spec.changes_weight:
        whole = weight.clone(memory_format=torch.contiguous_format)
        return Variant(spec=spec, effective=whole, tensors={"values": whole.reshape(-1)})

    second = _second(spec, layer, moments)
    matrix = weight.reshape(layer.matrix_shape).clone(memory_format=torch.contiguous_format)
    tensors: dict[str, Tensor] = {}
    parts = _parts(matrix, spec)
    try:
        for prefix in reversed(parts):  # what meets the input first
            stored = _stored(parts[prefix], spec, second)
            tensors |= {prefix + name: tensor.contiguous() for name, tensor in stored.items()}
            if second is not None and prefix == FACTORS[1]:
                v = load_matrix(stored, (parts[prefix].shape[0], parts[prefix].shape[1]), spec)
                second = (v.double() @ second.double() @ v.double().T).float()  # the inputs of the other factor
    except SpecError as error:
        raise SpecError(f"{layer.fqn}: {error}") from error
    effective = decode(spec, layer.weight_shape, tensors)
    check_finite(effective, layer.fqn, f"the weight after {spec.label()}")
    return Variant(spec=spec, effective=effective, tensors=tensors, weight_error=_relative_error(weight, effective))


def check_finite(tensor: Tensor, fqn: str, what: str = "the weight") -> None:
    if not bool(torch.isfinite(tensor).all()):
        n_bad = int((~torch.isfinite(tensor)).sum())
        raise SpecError(
            f"{what} of {fqn} holds {n_bad} values that are NaN or infinite, of {tensor.numel()}; "
            f"check the file that the weights come from, or leave the layer alone"
        )


def _parts(matrix: Tensor, spec: LayerSpec) -> dict[str, Tensor]:
    """The matrices that are stored: the weight itself, or its two factors."""
    if spec.rank >= 1.0:
        return {WHOLE[0]: matrix}
    rank = kept_rank(spec.rank, (matrix.shape[0], matrix.shape[1]))
    u, v = _registry.RANK[spec.rank_method](matrix.float(), rank)
    expected = ((matrix.shape[0], rank), (rank, matrix.shape[1]))
    if (tuple(u.shape), tuple(v.shape)) != expected:
        raise SpecError(
            f"the rank method {spec.rank_method!r} must give factors of shapes {expected[0]} and {expected[1]}, "
            f"got {tuple(u.shape)} and {tuple(v.shape)}"
        )
    return {FACTORS[0]: u.to(matrix.dtype), FACTORS[1]: v.to(matrix.dtype)}


def _second(spec: LayerSpec, layer: LayerInfo, moments: LayerMoments | None) -> Tensor | None:
    """(groups, n, n) second moments of the inputs, checked; None where the method does not look at them."""
    if not needs_moments(spec):
        return None
    if moments is None:
        if layer.kind == "embedding":
            return None  # one-hot inputs: the identity
        by = spec.weight_method if spec.weight_format != "adaptive" else "adaptive"
        if layer.groups * layer.matrix_shape[1] ** 2 > LARGEST:
            raise SpecError(
                f"{layer.fqn}: {by!r} needs the moments of the layer's inputs, and of {layer.matrix_shape[1]} inputs "
                f"they are too large (at most {LARGEST} entries are kept); use a method such as 'affine' for this layer"
            )
        raise SpecError(
            f"{layer.fqn}: {spec.label()} looks at the layer's inputs ({by!r} needs moments), and none were collected; "
            f"calibrate with moments=True on data in which the layer runs, or use a method such as 'affine'"
        )
    groups, n = (layer.groups, layer.matrix_shape[1])
    if tuple(moments.second.shape) != (groups, n, n):
        raise SpecError(
            f"{layer.fqn}: the moments of its inputs should be {(groups, n, n)}, got {tuple(moments.second.shape)}; "
            f"they belong to another model"
        )
    return moments.second


def _mask(matrix: Tensor, spec: LayerSpec) -> Tensor | None:
    """(out, n) bool, True where a weight survives; None where all do."""
    if spec.sparsity == 0.0:
        return None
    mask = _registry.SPARSITY[spec.sparsity_method](matrix.float(), spec.sparsity)
    n_dropped = n_zeros(spec.sparsity, matrix.numel())
    if mask.shape != matrix.shape or mask.dtype != torch.bool or int((~mask).sum()) != n_dropped:
        raise SpecError(
            f"the sparsity method {spec.sparsity_method!r} must give a bool mask of shape {tuple(matrix.shape)} with "
            f"{n_dropped} False, got {mask.dtype} of shape {tuple(mask.shape)} with {int((mask == 0).sum())} zeros"
        )
    return mask


def _stored(matrix: Tensor, spec: LayerSpec, second: Tensor | None) -> dict[str, Tensor]:
    """What is stored of a matrix: made sparse, and quantized, if the spec says so."""
    mask = _mask(matrix, spec)
    if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
        kept = matrix if mask is None else torch.where(mask, matrix, torch.zeros_like(matrix))
        return store_values(kept if spec.weight_bits == FLOAT_BITS else kept.to(CASTS[spec.weight_format]))
    problem = WeightProblem(matrix=matrix.float(), grid=Grid.of(spec, matrix.shape[1]), mask=mask, moments=second)
    coded = solve(problem, spec.weight_method, lambda found: sum(t.nbytes for t in store_coded(found, spec).values()))
    return store_coded(coded, spec)


def _relative_error(weight: Tensor, effective: Tensor) -> float:
    """‖W - Ŵ‖² / ‖W‖² in double precision, a block at a time: whole, it would take eight times the layer's memory."""
    energy = error = 0.0
    for old, new in zip(weight.reshape(-1).split(_BLOCK), effective.reshape(-1).split(_BLOCK), strict=True):
        exact = old.double()
        energy += float(exact.square().sum())
        error += float(exact.sub_(new).square().sum())
    return error / energy if energy > 0.0 else 0.0
