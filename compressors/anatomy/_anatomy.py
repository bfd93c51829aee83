"""Layers of a model: kinds, shapes, costs, and groups of layers that must get the same treatment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from ...errors import InputError

KINDS = (
    "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "embedding", "lstm", "gru", "attention",
)  # fmt: skip
FUSED_KINDS = ("lstm", "gru", "attention")
"""Kinds of layers whose product is computed inside a larger operator: no module is called with their input alone."""
MOST_CALLS = 16
"""Largest number of calls in one forward pass for which each call has an activation range of its own."""
_OLD_KEYS = {"sum_after": "residual_output", "relu_behind": "relu_before_mean"}
"""Keys of a layer in runs that earlier versions stored -> their present names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo:
    """One compressible layer.

    fqn           full name of the module; for a module reached by several names, the first. For a weight inside a
                  recurrent layer or an attention, the parameter's own name ("lstm.weight_hh_l0")
    kind          one of `KINDS`
    weight_shape  the weight's shape; axis 0 is the output channel (for an embedding the row, for a transposed
                  convolution the *input* channel, as PyTorch has it)
    groups        of a convolution; 1 otherwise. Depthwise means `groups == weight_shape[0]`
    n_calls       number of runs in one forward pass (a shared module runs several times)
    macs          multiply-accumulates for *one sample*, all calls together; 0 for an embedding
    input_shape   shape at the first call, without the batch axis; likewise `output_shape`. For an `is_fused` layer the
                  shape of the product with this weight, all gates together
    has_bias      whether it has a bias (never compressed)
    tied_to       fqns of the other layers that hold the very same weight tensor
    shared_input, residual_output, relu_before_mean  see `_consumers.Consumers`: places where its input and output are
                  rounded by `activation_scope` tensor
    product, product_in  see there too: role of its output in a product of attention, for `activation_scope` product
    source_dtype  number type of the weight in the model's source ("bfloat16"); "" where it is the weight's own
    """

    fqn: str
    kind: str
    weight_shape: tuple[int, ...]
    groups: int = 1
    n_calls: int = 1
    macs: int = 0
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    has_bias: bool = False
    tied_to: tuple[str, ...] = ()
    shared_input: str = ""
    residual_output: str = ""
    relu_before_mean: bool = False
    product: str = ""
    product_in: str = ""
    source_dtype: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dict(_listed(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerInfo:
        """Inverse of `to_dict`. Raises `InputError` for an unknown or missing key."""
        renamed = {_OLD_KEYS.get(key, key): value for key, value in data.items()}
        return cls(**_tupled(_known(cls, renamed, ("fqn", "kind", "weight_shape"))))

    @property
    def is_transposed(self) -> bool:
        """Tell whether it is a transposed convolution. The rows of its weight meet different inputs, which no method
        supports.
        """
        return self.kind.startswith("conv_transpose")

    @property
    def is_fused(self) -> bool:
        """Tell whether it is a weight inside an LSTM, a GRU or an `nn.MultiheadAttention`.

        Only its weight can be compressed, by methods that need no data.
        """
        return self.kind in FUSED_KINDS

    @property
    def n_ranges(self) -> int:
        """Number of calls whose inputs have activation ranges of their own; 0 where one range serves all calls."""
        has_input = not self.is_fused and self.kind != "embedding"
        return self.n_calls if has_input and 1 < self.n_calls <= MOST_CALLS else 0

    @property
    def source_bits(self) -> int:
        """Width of a number of the weight in the model's source."""
        return int("".join(filter(str.isdigit, self.source_dtype.partition("_")[0])) or 32)

    @property
    def n_weights(self) -> int:
        return prod(self.weight_shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape (out, in * kernel) of the weight as a matrix, which low rank works on."""
        return self.weight_shape[0], prod(self.weight_shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The compressible layers of a model, in the order in which they first run.

    layers    those that ran in the traced forward pass
    unused    fqns of compressible layers that never ran, or run without effect; they are left alone
    without_effect  those of them that run, but whose output influences none of the compared outputs
    groups    fqns that must get the same level, because they share a tensor; every layer is in exactly one
    n_params  all parameters of the model, counted once
    unused_ties  (unused fqn, fqn of a layer that holds the same tensor): it gets the value that this layer gets
    """

    layers: tuple[LayerInfo, ...]
    unused: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    n_params: int = 0
    without_effect: tuple[str, ...] = ()
    unused_ties: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, fqn: str) -> LayerInfo:
        for layer in self.layers:
            if layer.fqn == fqn:
                return layer
        raise KeyError(fqn)

    @property
    def fqns(self) -> tuple[str, ...]:
        return tuple(layer.fqn for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, so that costs can be computed again without the model."""
        return dict(_listed(asdict(self))) | {"layers": [layer.to_dict() for layer in self.layers]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Anatomy:
        """Inverse of `to_dict`. Raises `InputError` for an unknown or missing key."""
        known = _known(cls, data, ("layers",))
        return cls(**_tupled(known | {"layers": [LayerInfo.from_dict(layer) for layer in known["layers"]]}))


def _known(cls: type[LayerInfo | Anatomy], data: Mapping[str, Any], needed: tuple[str, ...]) -> dict[str, Any]:
    known = [field.name for field in fields(cls)]
    wrong = [("unknown", key) for key in sorted(set(data) - set(known))] + [
        ("missing", key) for key in needed if key not in data
    ]
    if wrong:
        raise InputError(f"{wrong[0][0]} key {wrong[0][1]!r} in a stored {cls.__name__}; it has {', '.join(known)}")
    return dict(data)


def _listed(value: Any) -> Any:
    """Lists in place of tuples, as JSON has no tuples."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _tupled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tupled(part) for key, part in value.items()}
    return tuple(_tupled(part) for part in value) if isinstance(value, list | tuple) else value
