"""Compression of one weight: a weight and a spec in, a variant out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import SpecError
from ..anatomy import LayerInfo, stored_dtype
from ..calibration import LARGEST, LayerGradients, LayerMoments
from ..lowrank import factorize, input_moments, misfit, part_macs
from ..quantization import CASTS, Grid, WeightProblem, knows, solve
from ..registry import _registry
from ..sparsity import SparsityProblem, sparsify
from ..values import FLOAT_BITS, LayerSpec, Pattern, sees_inputs, spec_field
from ._encoding import load_matrix, load_values, store_coded, store_values
from ._variant import Variant, decode, part_kernel, part_shapes, part_spec

_BLOCK = 2**19
"""Weights processed in one step."""
_AROUND = {"lstm": "an LSTM", "gru": "a GRU", "attention": "an nn.MultiheadAttention"}
_ROUNDS = 4
"""Rounds of alternation between a residual's factors and its rest."""

__all__ = ["applicable", "check_finite", "compress", "decode", "needs_gradients", "needs_moments", "uses_moments"]


def applicable(spec: LayerSpec, layer: LayerInfo) -> str | None:
    """Reason why this treatment makes no sense for this layer, as a clause; None if it does."""
    if spec.changes_structure:
        return "keep is for coupled sets of channels, heads or neurons; this is a layer"
    return (
        _fused_misfit(spec, layer)
        or _rank_misfit(spec, layer)
        or _bits_misfit(spec, layer)
        or _sparsity_misfit(spec, layer)
        or _other(spec, layer)
        or _extra_misfit(spec, layer)
    )


def _fused_misfit(spec: LayerSpec, layer: LayerInfo) -> str | None:
    if not layer.is_fused:
        return None
    inside = f"this is a weight inside {_AROUND[layer.kind]}"
    if spec.changes_activation:
        return f"activation_bits must be 32: {inside}, whose steps are one operator and leave no place for a quantizer"
    if spec.rank < 1.0:
        return f"low rank is for linear layers and convolutions; {inside}, which multiplies by it whole"
    if needs_moments(spec) and not sees_inputs(layer.fqn):
        by, plain = _who_needs_moments(spec)
        return f"{by!r} looks at the layer's inputs, and {inside}, where they are not seen; {plain!r} does without"
    return None


def _rank_misfit(spec: LayerSpec, layer: LayerInfo) -> str | None:
    if spec.rank >= 1.0:
        return None
    if layer.kind == "embedding":
        return "low rank is for linear layers and convolutions; this is an embedding"
    if layer.is_transposed:
        return "low rank is for plain convolutions; this one is transposed"
    if layer.groups != 1:
        return f"low rank needs a convolution of one group; this one has {layer.groups}"
    if (reason := misfit(spec.rank_form, layer.weight_shape)) is not None:
        return reason
    shapes = part_shapes(spec, layer.weight_shape)
    rows, columns = layer.matrix_shape
    if spec.rank_form == "residual":
        if spec.weight_bits >= 16 and spec.sparsity == 0.0:
            return (
                "a residual is stored beside the factors and must be sparse or quantized; else it is the whole weight"
            )
        bits = {prefix: part_spec(spec, prefix) for prefix in shapes}
        stored = sum(r * c * bits[p].weight_bits * (1.0 - bits[p].sparsity) for p, (r, c) in shapes.items())
        if stored >= FLOAT_BITS * rows * columns:
            return f"the factors of rank {shapes['v.'][0]} and the rest take no less than the {rows} x {columns} matrix"
        return None
    n = sum(r * c for r, c in shapes.values())
    if n >= rows * columns and sum(part_macs(spec.rank_form, spec.rank, layer).values()) >= layer.macs:
        rank = " and ".join(str(r) for p, (r, _) in shapes.items() if p != "u.")
        return f"rank {rank} of a {rows} x {columns} matrix saves nothing: the factors are not smaller"
    return None


def _bits_misfit(spec: LayerSpec, layer: LayerInfo) -> str | None:
    if spec.weight_bits == FLOAT_BITS:
        return None
    if layer.is_transposed and _bits_need_moments(spec):
        return f"{_looking(spec)!r} looks at the layer's inputs, which it cannot do for a transposed convolution"
    if not knows(spec.weight_method, spec.weight_format):
        return f"the weight method {spec.weight_method!r} does not know the format {spec.weight_format!r}"
    rows, columns = layer.matrix_shape
    tall, wide = spec.block
    if spec.weight_format in CASTS and (spec.group_size, spec.scale_bits) != (0, 32):
        return f"{spec.weight_format} has no scales, so group_size and scale_bits say nothing of it"
    if tall > 1 and spec.rank >= 1.0 and tall >= rows and wide >= columns:
        return f"a block of {spec.group_size} is no less than the whole {(rows, columns)}: that is 'tensor'"
    if tall == 1 and spec.rank >= 1.0 and 0 < columns <= wide:
        return f"group_size {spec.group_size} is no less than the {columns} weights of a row: that is group_size 0"
    return None


def _sparsity_misfit(spec: LayerSpec, layer: LayerInfo) -> str | None:
    if spec.sparsity == 0.0:
        return None
    pattern = Pattern.parse(spec.pattern)
    for prefix, shape in part_shapes(spec, layer.weight_shape).items():
        if part_spec(spec, prefix).sparsity == 0.0:
            continue
        kernel = part_kernel(spec, prefix, layer.weight_shape)
        if (reason := pattern.misfit(shape[0] // layer.groups, shape[1] // kernel)) is not None:
            return f"the pattern {reason}" + (f" (of the factor {prefix[0]})" if prefix else "")
    n = pattern.n_zeros(spec.sparsity, layer.matrix_shape)
    if n == 0:
        units = {"block": "block", "row": "weight of each row", "column": "weight of each column"}
        unit = units.get(pattern.kind, "weight")
        return f"sparsity {spec.sparsity:g} of {layer.n_weights} weights is less than one {unit}"
    if pattern.kind and _registry.SPARSITY.gives(spec.sparsity_method) == "mask":
        return (
            f"the sparsity method {spec.sparsity_method!r} knows no pattern; use one that gives scores, or pattern ''"
        )
    if spec.rank < 1.0 and spec.rank_form != "residual" and needs_gradients(spec):
        return f"{spec.sparsity_method!r} knows the gradient of the whole weight, not of its factors"
    return None


def _other(spec: LayerSpec, layer: LayerInfo) -> str | None:
    if spec.changes_activation and layer.kind == "embedding":
        return "the input of an embedding is whole numbers; its activation cannot be quantized"
    if spec.rounds_products and not layer.product:
        return "its output goes into no product of attention that could be integer: that is activation_scope 'layer'"
    if spec.rounds_products and spec.activation_bits != 8:
        return f"products of attention have 8 bits, not {spec.activation_bits}: that is activation_scope 'layer'"
    if spec.rounds_tensors and not (layer.shared_input or layer.residual_output):
        return (
            "no other layer reads its input, and its output goes into no sum or mean: that is activation_scope 'layer'"
        )
    return None


def _extra_misfit(spec: LayerSpec, layer: LayerInfo) -> str | None:
    for name, value in spec.extra:
        misfit = spec_field(name).misfit
        if misfit is not None and (reason := misfit(value, layer.kind, layer.weight_shape)) is not None:
            return reason
    return None


def needs_moments(spec: LayerSpec) -> bool:
    """Tell whether the layer's treatment depends on its inputs. That of an embedding has none, and does not."""
    return _bits_need_moments(spec) or "moments" in _sparsity_needs(spec) or _rank_needs_moments(spec)


def uses_moments(spec: LayerSpec) -> bool:
    """Tell whether the layer's treatment depends on its inputs where their moments are known.

    That is more than `needs_moments`, as some methods also do without.
    """
    return _bits_use_moments(spec) or needs_moments(spec)


def needs_gradients(spec: LayerSpec) -> bool:
    """Tell whether the layer's treatment depends on the loss' gradient by its weight."""
    return "gradients" in _sparsity_needs(spec)


def _bits_need_moments(spec: LayerSpec) -> bool:
    if not _bits_use_moments(spec):
        return False
    return spec.weight_format == "adaptive" or not _registry.WEIGHT.does_without(spec.weight_method)


def _bits_use_moments(spec: LayerSpec) -> bool:
    if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
        return False
    return spec.weight_format == "adaptive" or _registry.WEIGHT.needs(spec.weight_method) == "moments"


def _looking(spec: LayerSpec) -> str:
    """Parts of a spec's treatment of bits that need moments."""
    return spec.weight_method if spec.weight_format != "adaptive" else "adaptive"


def _sparsity_needs(spec: LayerSpec) -> str:
    return (_registry.SPARSITY.needs(spec.sparsity_method) or "") if spec.sparsity > 0.0 else ""


def _rank_needs_moments(spec: LayerSpec) -> bool:
    return spec.rank < 1.0 and _registry.RANK.needs(spec.rank_method) == "moments"


def compress(
    weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, moments: LayerMoments | None = None,
    gradients: LayerGradients | None = None,
) -> Variant:  # fmt: skip
    """Compress `weight` under `spec`. Pure and deterministic; `weight` is left alone and shares no memory with the
    result.

    The order is rank, sparsity, bits (see `LayerSpec`); the neutral spec is an exact no-op. What stays in floating
    point is stored in the type of the weight's source (`LayerInfo.source_dtype`), rounded where it is new. The
    activation's part of the spec is ignored. Raises `SpecError` if the treatment does not apply to the layer, if the
    weight holds NaN or infinity, if it needs `moments` (of the layer's inputs) or `gradients` (of the loss) and has
    none, or if a registered method breaks its protocol.
    """
    weight = weight.detach().cpu()
    if tuple(weight.shape) != layer.weight_shape:
        raise SpecError(f"the weight of {layer.fqn} should be {layer.weight_shape}, got {tuple(weight.shape)}")
    spec = spec.weight_only
    if (reason := applicable(spec, layer)) is not None:
        raise SpecError(f"{spec.label()} does not apply to {layer.fqn}: {reason}")
    check_finite(weight, layer.fqn)
    dtype = stored_dtype(weight, layer.source_dtype)
    if not spec.changes_weight:
        whole = weight.clone(memory_format=torch.contiguous_format)
        return Variant(spec=spec, effective=whole, tensors={"values": whole.reshape(-1).to(dtype)})

    work = _Work(spec, layer, dtype, _second(spec, layer, moments), _both(spec, layer, gradients))
    matrix = weight.reshape(layer.matrix_shape).clone(memory_format=torch.contiguous_format)
    try:
        tensors = work.done(matrix)
    except SpecError as error:
        raise SpecError(f"{layer.fqn}: {error}") from error
    effective = decode(spec, layer.weight_shape, tensors)
    effective = effective if effective.dtype == torch.float32 else effective.to(weight.dtype)
    check_finite(effective, layer.fqn, f"the weight after {spec.label()}")
    return Variant(spec=spec, effective=effective, tensors=tensors, weight_error=_relative_error(weight, effective))


def check_finite(tensor: Tensor, fqn: str, what: str = "the weight") -> None:
    if not bool(torch.isfinite(tensor).all()):
        n_bad = int((~torch.isfinite(tensor)).sum())
        raise SpecError(
            f"{what} of {fqn} holds {n_bad} values that are NaN or infinite, of {tensor.numel()}; "
            f"check the file that the weights come from, or leave the layer alone"
        )


class _Work:
    """Treatment of one layer: its calibration data, and the steps from its matrices to the stored tensors.

    dtype   type in which numbers that stay in floating point are stored
    second  (groups, n, n) moments of the inputs, or None
    both    (2, out, n) gradients, or None
    """

    def __init__(
        self, spec: LayerSpec, layer: LayerInfo, dtype: torch.dtype, second: Tensor | None, both: Tensor | None
    ) -> None:
        self.spec, self.shape, self.dtype = spec, layer.weight_shape, dtype
        self.second, self.both = second, both

    def done(self, matrix: Tensor) -> dict[str, Tensor]:
        """Stored tensors of the layer's matrix; the names begin with the part's prefix."""
        if self.spec.rank >= 1.0:
            return _contiguous("", self.stored("", matrix, self.second))
        if self.spec.rank_form == "residual":
            return self._residual(matrix)
        return self._chain(self._factors(matrix), matrix.dtype)

    def _factors(self, matrix: Tensor) -> dict[str, Tensor]:
        spec = self.spec
        known = self.second[0] if self.second is not None and _rank_needs_moments(spec) else None
        return factorize(spec.rank_form, matrix, self.shape, spec.rank, spec.rank_method, known)

    def _chain(self, parts: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Compress a chain. The part that meets the input is stored first; later parts are fitted to its actual
        outputs.
        """
        tensors: dict[str, Tensor] = {}
        made: dict[str, Tensor] = {}
        for prefix in reversed(tuple(parts)):
            known = None
            if self.second is not None:
                known = input_moments(self.spec.rank_form, prefix, made, self.second[0], self.shape).float()[None]
            stored = self.stored(prefix, parts[prefix].to(dtype), known)
            tensors |= _contiguous(prefix, stored)
            made[prefix] = self.loaded(prefix, stored)
        return tensors

    def _residual(self, matrix: Tensor) -> dict[str, Tensor]:
        """Alternate between factors of the weight minus the rest, and the rest of the weight minus the factors; keep
        the best pair.
        """
        best: tuple[float, dict[str, Tensor]] | None = None
        rest = torch.zeros_like(matrix, dtype=torch.float32)
        problem = SparsityProblem(matrix=matrix.float(), share=0.0, moments=self.second)
        for _ in range(_ROUNDS):
            tensors = self._chain(self._factors(matrix.float() - rest), matrix.dtype)
            factors = {p: self.loaded(p, _of(tensors, p)) for p in ("u.", "v.")}
            low = (factors["u."].double() @ factors["v."].double()).float()
            stored = self.stored("w.", (matrix.float() - low).to(matrix.dtype), self.second)
            rest = self.loaded("w.", stored)
            error = problem.output_error(low + rest)
            if best is None or error < best[0]:
                best = error, tensors | _contiguous("w.", stored)
        assert best is not None
        return best[1]

    def stored(self, prefix: str, matrix: Tensor, second: Tensor | None) -> dict[str, Tensor]:
        """Stored tensors of one matrix: made sparse, and quantized, if the spec says so."""
        spec = part_spec(self.spec, prefix)
        mask, values = self._sparse(spec, prefix, matrix, second)
        if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
            kept = matrix if values is None else values.to(matrix.dtype)
            kept = kept if mask is None else torch.where(mask, kept, torch.zeros_like(kept))
            return store_values(kept.to(self.dtype if spec.weight_bits == FLOAT_BITS else CASTS[spec.weight_format]))
        mends = _bits_use_moments(spec)
        # on its mask the mended weight is nearest to the dense one, so what is nearest to it is nearest to both
        target = matrix.float() if values is None else values
        problem = WeightProblem(
            matrix=target, grid=Grid.of(spec, matrix.shape[1]), mask=mask, moments=second if mends else None,
            options=spec.options("weight_bits"),
        )  # fmt: skip
        coded = solve(
            problem, spec.weight_method, lambda found: sum(t.nbytes for t in store_coded(found, spec).values())
        )
        return store_coded(coded, spec)

    def loaded(self, prefix: str, stored: Mapping[str, Tensor]) -> Tensor:
        """Read the float32 matrix back."""
        spec, shape = part_spec(self.spec, prefix), part_shapes(self.spec, self.shape)[prefix]
        if spec.weight_bits == FLOAT_BITS or spec.weight_format in CASTS:
            return load_values(stored, shape).float()
        return load_matrix(stored, shape, spec)

    def _sparse(
        self, spec: LayerSpec, prefix: str, matrix: Tensor, second: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(mask, new values or None); None where nothing is dropped."""
        if spec.sparsity == 0.0:
            return None, None
        problem = SparsityProblem(
            matrix=matrix.float(),
            share=spec.sparsity,
            pattern=Pattern.parse(spec.pattern),
            kernel=part_kernel(self.spec, prefix, self.shape),
            moments=second if "moments" in _sparsity_needs(spec) else None,
            gradients=self.both,
            options=spec.options("sparsity"),
        )
        return sparsify(problem, spec.sparsity_method)


def _contiguous(prefix: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.contiguous() for name, tensor in stored.items()}


def _of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _second(spec: LayerSpec, layer: LayerInfo, moments: LayerMoments | None) -> Tensor | None:
    """Second moments (groups, n, n) of the inputs, checked; None where the method does not use them."""
    if not uses_moments(spec):
        return None
    if moments is None:
        if layer.kind == "embedding" or not needs_moments(spec):
            return None  # one-hot inputs: the identity; or the method does without
        by, plain = _who_needs_moments(spec)
        if layer.groups * layer.matrix_shape[1] ** 2 > LARGEST:
            raise SpecError(
                f"{layer.fqn}: {by!r} needs the moments of the layer's inputs, and of {layer.matrix_shape[1]} inputs "
                f"they are too large (at most {LARGEST} entries are kept); use a method such as {plain!r} here"
            )
        raise SpecError(
            f"{layer.fqn}: {spec.label()} looks at the layer's inputs ({by!r} needs moments), and none were collected; "
            f"add calibration samples on which the layer runs, or use a method such as {plain!r} here"
        )
    groups, n = (layer.groups, layer.matrix_shape[1])
    if tuple(moments.second.shape) != (groups, n, n):
        raise SpecError(
            f"{layer.fqn}: the moments of its inputs should be {(groups, n, n)}, got {tuple(moments.second.shape)}; "
            f"they belong to another model"
        )
    return moments.second


def _who_needs_moments(spec: LayerSpec) -> tuple[str, str]:
    """Name the method that uses the inputs, and one of its kind that does not."""
    if _bits_need_moments(spec):
        return (spec.weight_method if spec.weight_format != "adaptive" else "adaptive"), "affine"
    if _rank_needs_moments(spec):
        return spec.rank_method, "svd"
    return spec.sparsity_method, "magnitude"


def _both(spec: LayerSpec, layer: LayerInfo, gradients: LayerGradients | None) -> Tensor | None:
    """Gradients (2, out, n) of the loss, checked; None where the method does not use them."""
    if not needs_gradients(spec):
        return None
    if gradients is None:
        raise SpecError(
            f"{layer.fqn}: {spec.label()} looks at the loss' gradient ({spec.sparsity_method!r} needs gradients), and "
            f"none was collected; add calibration samples on which the layer runs, or use a method such as 'magnitude' "
            f"here"
        )
    if tuple(gradients.both.shape) != (2, *layer.matrix_shape):
        raise SpecError(
            f"{layer.fqn}: its gradients should be {(2, *layer.matrix_shape)}, got {tuple(gradients.both.shape)}; they "
            f"belong to another model"
        )
    return gradients.both


def _relative_error(weight: Tensor, effective: Tensor) -> float:
    """Relative error ‖W - Ŵ‖² / ‖W‖² in double precision, by blocks; at once it would take eight times the layer's
    memory.
    """
    energy = error = 0.0
    for old, new in zip(weight.reshape(-1).split(_BLOCK), effective.reshape(-1).split(_BLOCK), strict=True):
        exact = old.double()
        energy += float(exact.square().sum())
        error += float(exact.sub_(new).square().sum())
    return error / energy if energy > 0.0 else 0.0
