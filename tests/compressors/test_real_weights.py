"""The methods on the published weights of ResNet-20: figures that were measured once, with room for rounding."""

from dataclasses import replace

import pytest
import torch

from paredown.compressors import LayerInfo, LayerSpec, VariantStore

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def layers(assets):
    from safetensors.torch import load_file

    weights = load_file(assets / "cifar10" / "resnet20.safetensors")
    conv = LayerInfo(fqn="", kind="conv2d", weight_shape=())
    return [
        (
            weight,
            replace(conv, fqn=name, kind="conv2d" if weight.ndim == 4 else "linear", weight_shape=tuple(weight.shape)),
        )
        for name, weight in weights.items()
        if weight.ndim > 1
    ]


@pytest.mark.parametrize(
    ("bits", "expected"), [(2, 0.172), (3, 0.0502), (4, 0.01435), (5, 0.0040), (6, 0.00107), (8, 6.35e-5)]
)
def test_relative_error_of_each_width(layers, bits, expected, tmp_path):
    store = VariantStore(tmp_path)
    errors = [store.get(weight, LayerSpec(weight_bits=bits), layer).weight_error for weight, layer in layers]
    assert sum(errors) / len(errors) == pytest.approx(expected, rel=0.1)


def test_bytes_of_the_whole_network(layers, tmp_path):
    store = VariantStore(tmp_path)
    n_weights = sum(weight.numel() for weight, _ in layers)
    n_channels = sum(weight.shape[0] for weight, _ in layers)
    dense = sum(store.get(weight, LayerSpec(weight_bits=4), layer).n_bytes for weight, layer in layers)
    assert dense <= n_weights // 2 + 4 * n_channels
    sparse = sum(store.get(weight, LayerSpec(sparsity=0.5), layer).n_bytes for weight, layer in layers)
    bitmaps = sum(-(-w.numel() // 8) + 4 * (w.numel() - round(w.numel() / 2)) for w, _ in layers)
    assert 0.99 * bitmaps < sparse <= bitmaps  # zeros that keep together take a little less than a bitmap


def test_the_order_of_widths_is_the_order_of_errors(layers, tmp_path):
    store = VariantStore(tmp_path)
    for weight, layer in layers:
        errors = [store.get(weight, LayerSpec(weight_bits=bits), layer).weight_error for bits in (2, 3, 4, 5, 6, 8)]
        assert errors == sorted(errors, reverse=True)
        assert torch.isfinite(store.get(weight, LayerSpec(weight_bits=2), layer).effective).all()
