"""A weight and a spec in, a variant out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SpecError
from . import _registry
from ._anatomy import LayerInfo
from ._spec import FLOAT_BITS, LayerSpec
from ._variant import FACTORS, WHOLE, Variant, decode
from .lowrank import kept_rank
from .quantization import code_range
from .sparsity import n_zeros
from .storage._parts import store_codes, store_values

_BLOCK = 2**19
"""Weights that are looked at together."""

__all__ = ["applicable", "check_finite", "compress", "decode"]


def applicable(spec: LayerSpec, layer: LayerInfo) -> str | None:
    """Why this treatment makes no sense for this layer, in a clause; None if it does."""
    if spec.rank < 1.0:
        if layer.kind == "embedding":
            return "low rank is for linear layers and convolutions; this is an embedding"
        if layer.groups != 1:
            return f"low rank needs a convolution of one group; this one has {layer.groups}"
        rows, columns = layer.matrix_shape
        rank = kept_rank(spec.rank, (rows, columns))
        if rank * (rows + columns) >= rows * columns:
            return f"rank {rank} of a {rows} x {columns} matrix saves nothing: the factors are not smaller"
    if spec.sparsity > 0.0 and n_zeros(spec.sparsity, layer.n_weights) == 0:
        return f"sparsity {spec.sparsity:g} of {layer.n_weights} weights is less than one weight"
    if spec.changes_activation and layer.kind == "embedding":
        return "the input of an embedding is whole numbers; its activation cannot be quantized"
    return None


def compress(weight: Tensor, spec: LayerSpec, layer: LayerInfo) -> Variant:
    """`weight` under `spec`. Pure and deterministic; `weight` is left alone and shares no memory with the result.

    The order is rank, sparsity, bits (see `LayerSpec`); the neutral spec is an exact no-op. The activation's part of
    the spec is ignored. Raises `SpecError` if the treatment does not apply to the layer, if the weight holds NaN or
    infinity, or if a registered method breaks its protocol.
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

    matrix = weight.reshape(layer.matrix_shape).clone(memory_format=torch.contiguous_format)
    tensors: dict[str, Tensor] = {}
    for prefix, part in _parts(matrix, spec).items():
        stored = _stored(_sparse(part, spec), spec)
        tensors |= {prefix + name: tensor.contiguous() for name, tensor in stored.items()}
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


def _sparse(matrix: Tensor, spec: LayerSpec) -> Tensor:
    if spec.sparsity == 0.0:
        return matrix
    mask = _registry.SPARSITY[spec.sparsity_method](matrix.float(), spec.sparsity)
    n_dropped = n_zeros(spec.sparsity, matrix.numel())
    if mask.shape != matrix.shape or mask.dtype != torch.bool or int((~mask).sum()) != n_dropped:
        raise SpecError(
            f"the sparsity method {spec.sparsity_method!r} must give a bool mask of shape {tuple(matrix.shape)} with "
            f"{n_dropped} False, got {mask.dtype} of shape {tuple(mask.shape)} with {int((mask == 0).sum())} zeros"
        )
    return torch.where(mask, matrix, torch.zeros_like(matrix))


def _stored(matrix: Tensor, spec: LayerSpec) -> dict[str, Tensor]:
    """What is stored of a matrix, quantized if the spec says so."""
    if spec.weight_bits == FLOAT_BITS:
        return store_values(matrix)
    matrix = matrix.float()
    codes, scale = _registry.WEIGHT[spec.weight_method](matrix, spec.weight_bits)
    problem = _problem(codes, scale, matrix, spec.weight_bits)
    if problem is not None:
        raise SpecError(f"the weight method {spec.weight_method!r} at {spec.weight_bits} bits {problem}")
    return store_codes(codes, scale, spec.weight_bits)


def _problem(codes: Tensor, scale: Tensor, matrix: Tensor, bits: int) -> str | None:
    """What is wrong with the result of a weight method; None if nothing is."""
    rows = matrix.shape[0]
    low, high = code_range(bits)
    if codes.dtype != torch.int8 or codes.shape != matrix.shape:
        return f"must give int8 codes of shape {tuple(matrix.shape)}, got {codes.dtype} of {tuple(codes.shape)}"
    if scale.dtype != torch.float32 or tuple(scale.shape) != (rows,):
        return f"must give a float32 scale of shape ({rows},), got {scale.dtype} of {tuple(scale.shape)}"
    if int(codes.min()) < low or int(codes.max()) > high:
        return f"must give codes in [{low}, {high}], got some in [{int(codes.min())}, {int(codes.max())}]"
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        return "must give scales that are finite and positive"
    if bool((codes[matrix == 0] != 0).any()):
        return "must leave zeros zero: a dropped weight came back"
    return None


def _relative_error(weight: Tensor, effective: Tensor) -> float:
    """‖W - Ŵ‖² / ‖W‖² in double precision, a block at a time: whole, it would take eight times the layer's memory."""
    energy = error = 0.0
    for old, new in zip(weight.reshape(-1).split(_BLOCK), effective.reshape(-1).split(_BLOCK), strict=True):
        exact = old.double()
        energy += float(exact.square().sum())
        error += float(exact.sub_(new).square().sum())
    return error / energy if energy > 0.0 else 0.0
