"""Quantizers against hand-computed cases, brute force and properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paredown.compressors import ActivationQuantizer
from paredown.compressors.files import pack, packed_bytes, unpack
from paredown.compressors.quantization import affine, affine_qparams, code_range, fake_quantize, mse_range

BITS = (2, 3, 4, 5, 6, 7, 8)


def error(matrix, codes, scale):
    return (matrix - codes * scale[:, None]).square().sum(dim=1)


def test_ranges_of_codes():
    assert code_range(2) == (-2, 1)
    assert code_range(4) == (-8, 7)
    assert code_range(8) == (-127, 127)


def test_weights_on_a_grid_come_back():
    codes = torch.tensor([[-8, 7, 0, 3, -1], [7, -4, 2, 1, 0]], dtype=torch.int8)
    scale = torch.tensor([0.5, 2.0**-7])
    found, step = affine(codes * scale[:, None], 4)
    assert torch.equal(found, codes)
    assert torch.allclose(step, scale, rtol=1e-6)


def test_the_range_is_as_good_as_brute_force():
    matrix = torch.randn(4, 400, generator=torch.Generator().manual_seed(5)) ** 3  # heavy tails
    for bits in (2, 3, 4, 8):
        low, high = code_range(bits)
        steps = torch.linspace(0.02, 1.0, 2000)[:, None] * matrix.abs().amax(dim=1) / high  # (candidates, rows)
        codes = (matrix / steps[..., None]).round().clamp(low, high)
        brute = (codes * steps[..., None] - matrix).square().sum(dim=2).amin(dim=0)
        assert (error(matrix, *affine(matrix, bits)) <= brute * 1.05).all()


def test_clipping_pays_at_low_widths():
    matrix = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([3.0])])[None]
    codes, scale = affine(matrix, 3)
    largest = float(matrix.abs().max())
    assert float(scale[0]) * 3 < largest  # the outlier is clipped
    plain = (matrix / (largest / 3)).round().clamp(-4, 3) * (largest / 3)
    assert error(matrix, codes, scale) < (plain - matrix).square().sum()


def test_channels_do_not_see_each_other():
    matrix = torch.randn(5, 40, generator=torch.Generator().manual_seed(3))
    matrix[1] *= 1e4
    codes, scale = affine(matrix, 4)
    for row in range(5):
        alone_codes, alone_scale = affine(matrix[row : row + 1], 4)
        assert torch.equal(codes[row], alone_codes[0])
        assert torch.equal(scale[row], alone_scale[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 10**6), st.floats(-20, 20), st.sampled_from(BITS))
def test_more_is_promised_of_every_matrix(rows, columns, seed, magnitude, bits):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**magnitude
    codes, scale = affine(matrix, bits)
    low, high = code_range(bits)
    assert low <= int(codes.min())
    assert int(codes.max()) <= high
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()
    unclipped = (codes > low) & (codes < high)
    distance = (codes * scale[:, None] - matrix).abs()
    assert (distance <= scale[:, None] * 0.5001)[unclipped].all()
    assert (error(matrix.double(), codes, scale) <= matrix.double().square().sum(dim=1)).all()


def test_zero_channels_have_a_harmless_scale():
    codes, scale = affine(torch.zeros(2, 3), 8)
    assert not codes.any()
    assert torch.equal(scale, torch.ones(2))
    codes, scale = affine(torch.full((1, 3), 1e-44), 8)  # denormal: no float32 scale could carry it
    assert not codes.any()


def test_parameters_of_an_activation_by_hand():
    assert affine_qparams(0.0, 2.55, 8) == (pytest.approx(0.01), 0)
    scale, zero_point = affine_qparams(-1.0, 1.0, 8)
    assert (scale, zero_point) == (pytest.approx(2 / 255), 127)  # 127.49999…, for the scale is a float32
    assert scale == float(torch.tensor(scale, dtype=torch.float32))
    assert affine_qparams(0.5, 2.55, 8) == affine_qparams(0.0, 2.55, 8)  # zero is always on the grid
    assert affine_qparams(0.0, 0.0, 8) == (1.0, 0)


@settings(deadline=None, max_examples=60)
@given(st.floats(-100, 0), st.floats(0, 100), st.integers(0, 10**6))
def test_fake_quantization_is_the_runtimes_arithmetic(low, high, seed):
    scale, zero_point = affine_qparams(low, high, 8)
    assert 0 <= zero_point <= 255
    x = torch.rand(50, generator=torch.Generator().manual_seed(seed)) * (high - low) * 1.2 + low * 1.1
    codes = ((x / scale).round() + zero_point).clamp(0, 255)  # ONNX: QuantizeLinear
    assert torch.equal(fake_quantize(x, scale, zero_point, 8), (codes - zero_point) * scale)
    assert float(fake_quantize(torch.zeros(1), scale, zero_point, 8)) == 0.0
    once = fake_quantize(x, scale, zero_point, 8)
    assert torch.equal(fake_quantize(once, scale, zero_point, 8), once)


def test_fake_quantization_does_not_hide_nan_nor_touch_integers():
    x = torch.tensor([float("nan"), 0.3])
    assert fake_quantize(x, 0.1, 0, 8).isnan().tolist() == [True, False]
    tokens = torch.tensor([3, 700])
    assert fake_quantize(tokens, 0.1, 0, 8) is tokens
    assert fake_quantize(x.half(), 0.1, 0, 8).dtype == torch.float16
    assert x[1] == torch.tensor(0.3)  # the input is left alone


def test_an_outlier_is_clipped_only_if_it_pays():
    calm = torch.linspace(0, 1, 1000)
    assert mse_range(calm, 0.0, 1.0, 8) == (0.0, pytest.approx(1.0, abs=0.03))
    wild = torch.cat([torch.linspace(0, 1, 100_000), torch.tensor([20.0])])
    low, high = mse_range(wild, 0.0, 20.0, 8)
    assert low == 0.0
    assert high < 20.0
    assert mse_range(torch.empty(0), -1.0, 2.0, 8) == (-1.0, 2.0)


def test_the_hook_rounds_positional_and_keyword_inputs():
    layer = nn.Linear(2, 2)
    quantizer = ActivationQuantizer(0.5, 0)
    handle = layer.register_forward_pre_hook(quantizer, with_kwargs=True)
    x = torch.tensor([[0.6, 1.4]])
    expected = nn.functional.linear(torch.tensor([[0.5, 1.5]]), layer.weight, layer.bias)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(input=x), expected)
    handle.remove()
    assert repr(quantizer) == "ActivationQuantizer(scale=0.5, zero_point=0, bits=8)"


def test_packing_by_hand():
    # -2, -1, 0, 1 at 2 bits are 0, 1, 2, 3 with an offset of 2; least significant first: 0b11_10_01_00
    assert pack(torch.tensor([-2, -1, 0, 1], dtype=torch.int8), 2).tolist() == [0b11100100]
    # 3 bits: 0 -> 4, 1 -> 5, -4 -> 0: bits 001 101 000 (least significant first) spill into a second byte
    assert pack(torch.tensor([0, 1, -4], dtype=torch.int8), 3).tolist() == [0b00101100, 0]
    assert (packed_bytes(3, 3), packed_bytes(8, 3), packed_bytes(0, 3)) == (2, 3, 0)


@given(st.sampled_from(BITS), st.lists(st.integers(-128, 127), max_size=70))
def test_packing_round_trips(bits, values):
    codes = torch.tensor([max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, v)) for v in values], dtype=torch.int8)
    packed = pack(codes, bits)
    assert packed.numel() == packed_bytes(len(values), bits)
    assert torch.equal(unpack(packed, bits, len(values)), codes)
