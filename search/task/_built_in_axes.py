"""The built-in axes of the space, in the order of the keys of [space]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...compressors.values import spec_field
from ...errors import SpecError
from ._axis import Axis


def _is_cast(level: Mapping[str, Any]) -> bool:
    """Tell whether weights are cast to a narrower float, which has neither scales nor a choice of codes."""
    return level.get("weight_format") in ("fp16", "bf16")


def _is_dynamic(level: Mapping[str, Any]) -> bool:
    """Tell whether ranges of activations are found at run time, which leaves nothing to calibrate."""
    return level.get("activation_scheme") == "dynamic"


def _scope(name: str, value: Any) -> None:
    if value != "auto":
        spec_field(name).check(name, value)


def _rank_number(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"a rank must be a whole number, 1 at least, got {value!r}")


def _rank_energy(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
        raise SpecError(f"a share of the energy must be in (0, 1), got {value!r}; 0.95 is usual")


def _keeps(key: str, about: str, brief: str = "") -> Axis:
    return Axis(key=key, field=spec_field("keep"), default=(1.0,), about=about, brief=brief)


BUILT_IN = (
    Axis(
        field=spec_field("weight_bits"), values="integer", default=(2, 3, 4, 5, 6, 8, 32),
        about="widths of the weights; 32 is floating point",
    ),
    Axis(
        field=spec_field("activation_bits"), values="integer", default=(8, 32),
        about="widths of each layer's input: 4, 6, 8, 32", brief="widths of the layer's input: 4, 6, 8, 32",
    ),
    Axis(field=spec_field("sparsity"), default=(0.0,), about="shares of zeros, in [0, 1)"),
    Axis(
        field=spec_field("rank"), default=(1.0,),
        about="shares of the full rank, in (0, 1]; 1.0 leaves the weight whole",
    ),
    Axis(
        field=spec_field("weight_method"), values="text", default=("auto",), idle=_is_cast, when_idle="first",
        about="how weights are quantized: names of registered methods, each tried; auto picks for each output channel "
        "the one of least error of the layer's output on the calibration data", brief="how weights are quantized",
    ),
    Axis(
        field=spec_field("activation_method"), values="text", default=("minmax",), idle=_is_dynamic,
        about="how the ranges of quantized activations are chosen: minmax, percentile, entropy, or affine (least "
        "squared error)",
        brief="how activation ranges are chosen",
    ),
    Axis(
        field=spec_field("sparsity_method"), values="text", default=("magnitude",),
        about="how the weights that become zero are chosen", brief="how the weights that go are chosen",
    ),
    Axis(
        field=spec_field("rank_method"), values="text", default=("svd",),
        about="how weights of a lower rank are factorized", brief="how weights are factorized",
    ),
    Axis(
        field=spec_field("weight_format"), values="text", default=("int",),
        about="what the codes of weights stand for: int, int_asym, palette, nf4, pow2, log, apot, fp8_e4m3, "
        "fp8_e5m2, fp16, bf16, or adaptive, which chooses; each at the widths that it has",
        brief="what the codes of weights stand for",
    ),
    Axis(
        field=spec_field("group_size"), values="integer or text", default=(0,), idle=_is_cast,
        about="how many weights of a row share a scale: 0 (an output channel), 32, 64, 128, …, 'tensor', or a "
        "block of rows by weights, '32x32'",
        brief="how many weights share a scale",
    ),
    Axis(
        field=spec_field("scale_bits"), values="integer", default=(32,), idle=_is_cast,
        about="of the stored scales and tables: 32, 16", brief="of the stored scales: 32, 16",
    ),
    Axis(
        field=spec_field("activation_scheme"), values="text", default=("affine",),
        about="range of quantized activations: affine or symmetric, calibrated, or dynamic, of each token",
        brief="affine, symmetric, dynamic",
    ),
    Axis(
        field=spec_field("activation_scope"), values="text", default=("auto",), check=_scope, idle=_is_dynamic,
        about="layer: what a layer reads is rounded for it alone; tensor: for all that read it, and what goes "
        "into a residual sum too, which ONNX Runtime needs to run those convolutions in int8; product: what goes into "
        "a product of attention too, which is then one of integers; auto: tensor for onnxruntime, else layer",
        brief="layer, tensor, product",
    ),
    Axis(
        key="sparsity_pattern", field=spec_field("pattern"), values="text", default=("",),
        about="where zeros may stand: '' anywhere, '2:4' or any N:M along the input channels (with the sparsity "
        "that it means, 1 - N/M, among the shares), blocks of outputs x inputs ('1x4', '4x4', '16x1'), 'row', 'column'",
        brief="where zeros may stand",
    ),
    Axis(
        field=spec_field("rank_form"), values="text", default=("channel",),
        about="what weights of a lower rank are split into: channel, input, spatial, tucker2 (convolutions), or "
        "residual: two factors beside what they leave over, which is made sparse or quantized",
        brief="what weights of a lower rank are split into",
    ),
    Axis(
        key="rank_number", field=spec_field("rank"), values="integer", default=(), optional=True, check=_rank_number,
        about="ranks to offer as numbers, beside the shares of `rank`", brief="ranks, as numbers",
    ),
    Axis(
        key="rank_energy", field=spec_field("rank"), default=(), optional=True, check=_rank_energy,
        about="ranks to offer as the least that keeps this share of the squared singular values, beside `rank`",
        brief="ranks, by the share of energy they keep",
    ),
    _keeps(
        "channels",
        "shares of coupled channels of convolutions that stay, e.g. [1.0, 0.75, 0.5]; needs torch-pruning",
        "shares of coupled channels of convolutions that stay",
    ),
    _keeps(
        "heads",
        "shares of attention heads that stay (groups of queries whole)",
        "shares of attention heads that stay",
    ),
    _keeps("neurons", "shares of neurons between linear layers that stay"),
    _keeps("width", "shares of the hidden dimension that stay"),
    _keeps("units", "shares of a recurrent layer's units that stay"),
    _keeps(
        "experts",
        "shares of a mixture's experts that stay, those that are asked most often",
        "shares of the experts that stay",
    ),
    Axis(
        field=spec_field("keep_method"), values="text", default=("output",), overrides=False,
        about="which units stay, by score: l1, l2, batch_norm, group, taylor, hessian, hessian_diag, activation, "
        "output, entropy (of heads), random; each tried",
    ),
)  # fmt: skip
