"""Who else reads what a layer takes, and where its output is added: found in one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    module_at,
    trace_anatomy,
)
from paredown.errors import ConfigError, SpecError
from paredown.testing import AWKWARD

TENSOR = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor")


def found(model: nn.Module, inputs: object) -> dict[str, tuple[str, str]]:
    return {layer.fqn: (layer.shared_input, layer.residual_output) for layer in trace_anatomy(model, inputs).layers}


def test_a_block_s_input_is_shared_and_its_norm_is_added() -> None:
    assert found(*AWKWARD["residual"]()) == {
        "stem": ("", ""),
        "blocks.0.first": ("blocks", ""),  # the outermost module that is given the very tensor
        "blocks.0.second": ("", "blocks.0.norm2"),
        "blocks.1.first": ("blocks.1", ""),
        "blocks.1.second": ("", "blocks.1.norm2"),
        "blocks.1.around": ("blocks.1", "blocks.1.around"),
        "head": ("", ""),
    }


class Changed(nn.Module):
    """Model that writes into a tensor before the layer reads the same object."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _Inner()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x * 1.0)
        return output


class _Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x + 0.0
        return y + self.conv(torch.relu_(x)) * 2.0


def test_a_tensor_that_was_written_to_is_another() -> None:
    assert found(Changed().eval(), torch.randn(1, 2, 3, 3)) == {"inner.conv": ("", "")}


class Pooled(nn.Module):
    """Model with a layer whose output goes through a ReLU into a mean."""

    def __init__(self, relu: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
        self.relu, self.pool, self.head = relu, pool, nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.last(torch.relu(self.first(x)))))
        output: Tensor = self.head(self.pool(x).flatten(1))
        return output


class Sliced(nn.Module):
    def __init__(self, *, twice: bool = False) -> None:
        super().__init__()
        self.twice = twice

    def forward(self, x: Tensor) -> Tensor:
        mean = x[:, :, :2].mean(dim=(2, 3))
        return mean + x.amax(dim=(2, 3)) if self.twice else mean


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(4), Sliced()])
def test_a_mean_behind_a_relu(relu: nn.Module, pool: nn.Module) -> None:
    model = Pooled(relu, pool).eval()
    layers = trace_anatomy(model, torch.randn(1, 3, 8, 8))
    assert [(x.residual_output, x.relu_before_mean) for x in layers.layers] == [
        ("", False),
        ("norm", True),
        ("", False),
    ]


def test_a_mean_of_the_output_itself_and_other_readers() -> None:
    def places(relu: nn.Module, pool: nn.Module) -> tuple[str, bool]:
        layer = trace_anatomy(Pooled(relu, pool).eval(), torch.randn(1, 3, 8, 8))["last"]
        return layer.residual_output, layer.relu_before_mean

    assert places(nn.Identity(), nn.AdaptiveAvgPool2d(1)) == ("norm", False)
    assert places(nn.ReLU(), Sliced(twice=True)) == ("", False)  # something else reads it in floating point
    assert places(nn.ReLU(), nn.AdaptiveMaxPool2d(1)) == ("", False)
    assert places(nn.GELU(), nn.AdaptiveAvgPool2d(1)) == ("", False)


def test_what_a_relu_lets_pass_has_all_the_codes() -> None:
    """Computed by hand: codes from 0 to 255 for 0 to the largest; negative values round to 0, as the ReLU makes
    them.
    """
    torch.manual_seed(0)
    model, inputs = Pooled(nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval(), torch.randn(4, 3, 8, 8)
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, tensors=True)
    seen: dict[str, Tensor] = {}
    handle = model.norm.register_forward_hook(lambda module, args, output: seen.update(norm=output))
    with torch.no_grad():
        model(inputs)
        handle.remove()
        handle = model.relu.register_forward_hook(lambda module, args, output: seen.update(rounded=output))
        scale, zero = calibration.qparams("last:output", TENSOR)
        assert (scale, zero) == (pytest.approx(float(seen["norm"].max()) / 255), 0)
        with CompressedModel(model, anatomy, calibration).apply(
            {"last": LayerSpec(activation_bits=8, activation_scope="tensor")}, {}
        ):
            model(inputs)
    handle.remove()
    assert float(seen["norm"].min()) < 0
    rounded = seen["rounded"] / scale
    torch.testing.assert_close(rounded, rounded.round(), atol=1e-3, rtol=0)
    assert 200 < float(rounded.max()) < 256


def test_models_without_sums_have_none() -> None:
    for name in ("mlp", "depthwise", "shared_module"):
        assert set(found(*AWKWARD[name]()).values()) == {("", "")}


def test_whole_tensors_are_rounded_for_all_their_readers() -> None:
    """Computed by hand: around the first block the sum of two rounded tensors, each on its own grid."""
    model, inputs = AWKWARD["residual"]()
    assert isinstance(inputs, Tensor)
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, tensors=True)
    spec = LayerSpec(activation_bits=8, activation_scope="tensor")
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen["block"] = args[0].clone()

    with CompressedModel(model, anatomy, calibration).apply({"blocks.0.first": spec, "blocks.0.second": spec}, {}):
        handle = module_at(model, "blocks.0").register_forward_pre_hook(keep)
        norm = module_at(model, "blocks.0.norm2").register_forward_hook(lambda *args: seen.update(norm=args[2].clone()))
        with torch.no_grad():
            model(inputs)
        handle.remove()
        norm.remove()
    scale, _ = calibration.qparams("blocks.0.first", spec)
    torch.testing.assert_close(seen["block"] / scale, (seen["block"] / scale).round(), atol=1e-4, rtol=0)
    scale, _ = calibration.qparams("blocks.0.second:output", spec)
    torch.testing.assert_close(seen["norm"] / scale, (seen["norm"] / scale).round(), atol=1e-3, rtol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_where_nothing_is_shared_the_scope_does_not_apply() -> None:
    model, inputs = AWKWARD["residual"]()
    anatomy = trace_anatomy(model, inputs)
    assert applicable(TENSOR, anatomy["blocks.0.second"]) is None
    assert "activation_scope 'layer'" in str(applicable(TENSOR, anatomy["stem"]))


def test_a_calibration_without_tensors_is_refused() -> None:
    model, inputs = AWKWARD["residual"]()
    anatomy = trace_anatomy(model, inputs)
    layer = anatomy["blocks.0.second"]
    variant = compress(module_at(model, layer.fqn).weight.detach(), TENSOR, layer)  # type: ignore[operator]
    resident = CompressedModel(model, anatomy, calibrate(model, [inputs], anatomy))
    with (
        pytest.raises(ConfigError, match=r"blocks\.0\.second .*tensors=True"),
        resident.apply({layer.fqn: TENSOR}, {layer.fqn: variant}),
    ):
        pass


def test_a_range_of_each_token_has_no_tensor() -> None:
    with pytest.raises(SpecError, match="'dynamic' has none"):
        LayerSpec(activation_bits=8, activation_scheme="dynamic", activation_scope="tensor")
