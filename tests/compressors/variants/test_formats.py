"""Formats of weights: what a code stands for, what is stored, and what rounding promises, by hand and by properties."""

from math import log10

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paredown.compressors import FORMAT_BITS, LayerInfo, LayerSpec, applicable, compress, decode
from paredown.compressors.quantization import (
    CASTS,
    Grid,
    Params,
    Rounder,
    WeightProblem,
    decoded,
    fit_nearest,
    fixed_table,
    kmeans,
)
from paredown.errors import SpecError

GRIDS = [(name, bits) for name, widths in FORMAT_BITS.items() for bits in widths if name not in (*CASTS, "adaptive")]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def info(weight, kind="linear", groups=1):
    return LayerInfo(fqn="layer", kind=kind, weight_shape=tuple(weight.shape), groups=groups)


def problem(matrix, **spec):
    spec = LayerSpec(**{"weight_bits": 4, **spec})
    return WeightProblem(matrix=matrix, grid=Grid.of(spec, matrix.shape[1]))


class TestTables:
    def test_by_hand(self):
        assert fixed_table("pow2", 3).tolist() == [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]
        assert fixed_table("log", 3).tolist() == pytest.approx([-1.0, -(0.5**0.5), -0.5, 0.0, 0.5, 0.5**0.5, 1.0])
        # 0, 1/16, 1/8, 3/16, 1/4, 3/8, 1/2, 5/8, divided by the last
        assert fixed_table("apot", 4)[7:].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
        assert fixed_table("nf4", 4)[[0, 7, 15]].tolist() == [-1.0, 0.0, 1.0]
        # E4M3: 448 is the largest, 2^-9 the smallest; E5M2: 57344 and 2^-16
        assert len(fixed_table("fp8_e4m3", 8)) == 253
        assert float(fixed_table("fp8_e4m3", 8).abs()[fixed_table("fp8_e4m3", 8) > 0].min()) == pytest.approx(
            2.0**-9 / 448
        )
        assert len(fixed_table("fp8_e5m2", 8)) == 247

    @pytest.mark.parametrize(("name", "bits"), [g for g in GRIDS if g[0] not in ("int", "int_asym", "palette")])
    def test_each_is_sorted_within_one_and_has_zero(self, name, bits):
        table = fixed_table(name, bits)
        assert len(table) <= 2**bits
        assert bool((table.diff() > 0).all())
        assert float(table.abs().max()) == 1.0
        assert bool((table == 0).any())


class TestGrid:
    def test_values_of_codes_by_hand(self):
        codes = torch.tensor([[-8, 0, 7]], dtype=torch.int8)
        scale = torch.tensor([[0.5]])
        plain = Grid.of(LayerSpec(weight_bits=4), 3)
        assert Rounder(plain, Params(scale=scale), (1, 3)).decode(codes).tolist() == [[-4.0, 0.0, 3.5]]
        shifted = Grid.of(LayerSpec(weight_bits=4, weight_format="int_asym"), 3)
        params = Params(scale=scale, zero=torch.tensor([[3.0]]))  # levels 0, 8, 15 less 3
        assert Rounder(shifted, params, (1, 3)).decode(codes).tolist() == [[-1.5, 2.5, 6.0]]
        palette = Grid.of(LayerSpec(weight_bits=2, weight_format="palette"), 3)
        params = Params(scale=scale, table=torch.tensor([-1.0, 0.0, 0.5, 2.0]))
        codes = torch.tensor([[-2, 0, 1]], dtype=torch.int8)
        assert Rounder(palette, params, (1, 3)).decode(codes).tolist() == [[-0.5, 0.25, 1.0]]

    def test_groups_by_hand(self):
        grid = Grid.of(LayerSpec(weight_bits=4, group_size=8), 10)
        params = Params(scale=torch.tensor([[1.0, 10.0]]))
        assert grid.scale_shape((3, 10)) == (3, 2)  # the last group has two
        values = Rounder(grid, params, (1, 10)).values(torch.full((1, 10), 4.0))
        assert values.tolist() == [[4.0] * 8 + [0.0] * 2]
        assert Grid.of(LayerSpec(weight_bits=4, group_size="tensor"), 10).scale_shape((3, 10)) == (1, 1)

    def test_fp16_scales_are_the_ones_that_are_computed_with(self):
        grid = Grid.of(LayerSpec(weight_bits=4, scale_bits=16), 4)
        assert grid.stored_scale(torch.tensor([[1.0 / 3.0]])).item() == torch.tensor(1.0 / 3.0).half().item()
        assert grid.stored_scale(torch.tensor([[1e-12]])).item() == 2.0**-24
        with pytest.raises(SpecError, match="holds scales up to 65504, and 7e\\+04 is needed; use 32"):
            grid.stored_scale(torch.tensor([[7e4]]))

    @settings(max_examples=60)
    @given(
        st.sampled_from(GRIDS),
        st.integers(1, 5),
        st.integers(1, 40),
        st.sampled_from([0, 8, "tensor"]),
        st.integers(0, 999),
    )
    def test_what_rounding_promises(self, stored, rows, columns, group, seed):
        name, bits = stored
        matrix = normal(rows, columns, seed=seed)
        asked = problem(matrix, weight_format=name, weight_bits=bits, group_size=group)
        found = fit_nearest(asked)
        rounder = asked.rounder(found.params)
        low, high = asked.grid.code_range
        assert low <= int(found.codes.min())
        assert int(found.codes.max()) <= high
        assert -(2 ** (bits - 1)) <= low
        assert high < 2 ** (bits - 1)
        values = decoded(found)
        assert torch.equal(rounder.codes(values), found.codes)
        assert torch.equal(rounder.values(values), values)  # idempotent
        # no codeword of the row is nearer
        codewords = torch.arange(low, high + 1, dtype=torch.int8)
        for c in codewords.tolist():
            other = rounder.decode(torch.full_like(found.codes, c))
            assert bool(((values - matrix).abs() <= (other - matrix).abs() * (1 + 1e-5) + 1e-6).all())

    @settings(max_examples=40)
    @given(st.sampled_from([g for g in GRIDS if g[0] in ("int", "int_asym")]), st.integers(0, 999))
    def test_inside_the_range_the_error_is_at_most_half_a_step(self, stored, seed):
        matrix = normal(3, 24, seed=seed)
        asked = problem(matrix, weight_format=stored[0], weight_bits=stored[1], group_size=8)
        found = fit_nearest(asked)
        low, high = asked.grid.code_range
        inside = (found.codes > low) & (found.codes < high)
        scale = asked.rounder(found.params).scale
        assert bool(((decoded(found) - matrix).abs() <= scale * 0.5001)[inside].all())

    @settings(max_examples=40)
    @given(st.sampled_from(GRIDS), st.integers(1, 6), st.integers(8, 40), st.integers(0, 999))
    def test_a_group_as_long_as_the_row_is_the_row(self, stored, rows, columns, seed):
        matrix = normal(rows, columns, seed=seed)
        by_row, by_group = (
            fit_nearest(problem(matrix, weight_format=stored[0], weight_bits=stored[1], group_size=g))
            for g in (0, columns)
        )
        assert torch.equal(by_row.codes, by_group.codes)
        assert torch.equal(by_row.params.scale, by_group.params.scale)

    def test_sqnr_floors(self):
        """In dB, on normal weights with a scale for each of 64 channels: 6 dB a bit, less what clipping costs."""
        matrix = normal(64, 576)
        floors = {2: 8.0, 3: 13.5, 4: 19.0, 5: 24.5, 6: 30.0, 7: 35.0, 8: 40.0}
        for bits, floor in floors.items():
            for name in ("int", "int_asym", "palette"):
                if bits in FORMAT_BITS[name]:
                    found = fit_nearest(problem(matrix, weight_format=name, weight_bits=bits))
                    error = (decoded(found) - matrix).square().sum() / matrix.square().sum()
                    assert -10 * log10(float(error)) >= floor, (name, bits)

    def test_for_weights_of_one_sign_a_zero_point_is_worth_a_bit(self):
        matrix = normal(8, 100).abs() + 0.2
        errors = {}
        for name in ("int", "int_asym"):
            found = fit_nearest(problem(matrix, weight_format=name, weight_bits=4))
            errors[name] = float((decoded(found) - matrix).square().sum())
        assert errors["int_asym"] < errors["int"] / 3


class TestPalette:
    def test_by_hand(self):
        values = torch.tensor([1.0, 1.0, 1.0, 5.0, 7.0])
        assert kmeans(values, torch.ones(5), 2).tolist() == [1.0, 6.0]
        weighted = kmeans(values, torch.tensor([1.0, 1.0, 1.0, 3.0, 1.0]), 2)
        assert weighted.tolist() == [1.0, 5.5]

    def test_zero_is_an_entry_where_it_must_be(self):
        values = torch.cat([torch.zeros(50), normal(200) + 3.0])
        assert 0.0 in kmeans(values, torch.ones(250), 4, with_zero=True).tolist()

    @given(st.integers(1, 60), st.integers(2, 16), st.integers(0, 999))
    def test_never_worse_than_one_entry_at_the_mean(self, n, entries, seed):
        values = normal(n, seed=seed)
        table = kmeans(values, torch.ones(n), entries)
        assert table.shape == (entries,)
        assert bool((table.diff() >= 0).all())
        error = (values[:, None] - table).abs().amin(dim=1).square().sum()
        assert float(error) <= float((values - values.mean()).square().sum()) * (1 + 1e-4) + 1e-6

    def test_few_values_come_back_exactly(self):
        weight = torch.tensor([0.25, -0.5, 1.0, 2.0])[
            torch.randint(0, 4, (16, 30), generator=torch.Generator().manual_seed(1))
        ]
        found = compress(weight, LayerSpec(weight_bits=2, weight_format="palette", group_size="tensor"), info(weight))
        assert torch.equal(found.effective, weight)


class TestStored:
    @pytest.mark.parametrize("spec", [
        LayerSpec(weight_bits=bits, weight_format=name, group_size=group, scale_bits=half, sparsity=sparsity)
        for name, bits in GRIDS if bits in (2, 3, 4, 8)
        for group, half, sparsity in ((0, 32, 0.0), (8, 16, 0.0), ("tensor", 16, 0.7), (8, 32, 0.4))
    ], ids=lambda spec: spec.label())  # fmt: skip
    def test_what_is_stored_is_what_is_computed_with(self, spec):
        weight = normal(6, 5, 3, 3)  # rows of 45: groups of 8 leave 5
        layer = info(weight, "conv2d")
        variant = compress(weight, spec, layer)
        assert torch.equal(decode(spec, layer.weight_shape, variant.tensors), variant.effective)
        assert variant.effective.dtype == torch.float32
        assert int((variant.effective == 0).sum()) >= round(spec.sparsity * weight.numel())
        assert variant.weight_error < 1.0

    def test_bytes_by_hand(self):
        weight = normal(6, 45) + 100.0  # no zeros
        n = 6 * 45

        def stored(**spec):
            return compress(weight, LayerSpec(weight_bits=4, **spec), info(weight)).n_bytes

        assert stored() == n // 2 + 6 * 4
        assert stored(scale_bits=16) == n // 2 + 6 * 2
        assert stored(group_size=8) == n // 2 + 6 * 6 * 4  # five groups of 8 and one of 5
        assert stored(group_size="tensor") == n // 2 + 4
        assert stored(weight_format="int_asym", group_size=8, scale_bits=16) == n // 2 + 36 * 2 + 36 // 2
        assert stored(weight_format="palette", scale_bits=16) == n // 2 + 6 * 2 + 16 * 2
        assert stored(weight_format="nf4") == n // 2 + 6 * 4
        half = LayerSpec(weight_bits=16, weight_format="bf16")
        assert compress(weight, half, info(weight)).n_bytes == n * 2

    def test_casts_are_torchs(self):
        weight = normal(4, 9)
        for name, dtype in CASTS.items():
            found = compress(weight, LayerSpec(weight_bits=16, weight_format=name), info(weight))
            assert torch.equal(found.effective, weight.to(dtype).float())
        big = weight.clone()
        big[0, 0] = 1e6
        with pytest.raises(SpecError, match="after w16-fp16 of layer holds 1 values that are NaN or infinite"):
            compress(big, LayerSpec(weight_bits=16, weight_format="fp16"), info(weight))

    def test_32_bits_are_the_identity_in_every_format(self):
        weight = normal(4, 9)
        for name in FORMAT_BITS:
            found = compress(weight, LayerSpec(weight_format=name, group_size=8), info(weight))
            assert torch.equal(found.effective, weight)

    def test_only_plain_integers_have_codes_for_a_runtime(self):
        weight = normal(4, 20)
        codes, scale = compress(weight, LayerSpec(weight_bits=4, group_size="tensor"), info(weight)).codes()
        assert scale.shape == (4,)
        spec = LayerSpec(weight_bits=4, group_size="tensor")
        assert torch.equal(codes * scale[:, None], compress(weight, spec, info(weight)).effective)
        for other in ({"group_size": 8}, {"weight_format": "int_asym"}, {"weight_format": "nf4"}):
            assert compress(weight, LayerSpec(weight_bits=4, **other), info(weight)).codes() is None


class TestRefused:
    def test_what_does_not_apply_says_why(self):
        layer = info(normal(4, 20))
        said = applicable(LayerSpec(weight_bits=4, group_size=64), layer)
        assert said == "group_size 64 is no less than the 20 weights of a row: that is group_size 0"
        said = applicable(LayerSpec(weight_bits=4, weight_format="nf4", weight_method="hqq"), layer)
        assert said == "the weight method 'hqq' does not know the format 'nf4'"
        said = applicable(LayerSpec(weight_bits=16, weight_format="fp16", scale_bits=16), layer)
        assert said == "fp16 has no scales, so group_size and scale_bits say nothing of it"
        with pytest.raises(SpecError, match="w4/64 does not apply to layer: group_size 64"):
            compress(normal(4, 20), LayerSpec(weight_bits=4, group_size=64), layer)

    def test_a_scale_that_fp16_cannot_hold_names_the_layer(self):
        weight = normal(4, 20) * 1e7
        with pytest.raises(SpecError, match="layer: scale_bits = 16 holds scales up to 65504"):
            compress(weight, LayerSpec(weight_bits=4, scale_bits=16), info(weight))

    @pytest.mark.parametrize(("name", "bits"), [g for g in GRIDS if g[1] in (4, 8)])
    def test_constant_zero_and_nan_weights(self, name, bits):
        spec = LayerSpec(weight_bits=bits, weight_format=name, group_size=8)
        for value in (0.0, 0.25, -3.0):
            weight = torch.full((3, 20), value)
            found = compress(weight, spec, info(weight))
            assert torch.allclose(found.effective, weight, atol=0.14 * abs(value))
        weight[1, 1] = float("nan")
        with pytest.raises(SpecError, match="the weight of layer holds 1 values that are NaN"):
            compress(weight, spec, info(weight))


@settings(max_examples=30)
@given(st.sampled_from([g for g in GRIDS if g[1] <= 4]), st.integers(1, 3), st.integers(1, 30), st.integers(0, 99))
def test_zeros_stay_zero_and_the_unit_does_not_matter(stored, rows, columns, seed):
    matrix = normal(rows, columns, seed=seed)
    assume(rows * columns > 3)
    spec = LayerSpec(weight_format=stored[0], weight_bits=stored[1], sparsity=0.5)
    weight = compress(matrix, spec, info(matrix)).effective
    dropped = compress(matrix, LayerSpec(sparsity=0.5), info(matrix)).effective == 0
    assert not bool(weight[dropped].any())
    larger = compress(matrix * 1024.0, spec, info(matrix)).effective
    assert torch.allclose(larger, weight * 1024.0, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("format", ["int", "int_asym"])
@pytest.mark.parametrize("group", [0, 8, 16, "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_times_their_scales_are_the_effective_weight(format, group, bits):
    weight = normal(5, 40)
    spec = LayerSpec(weight_bits=bits, weight_format=format, group_size=group, sparsity=0.25)
    variant = compress(weight, spec, info(weight))
    even = variant.even_codes()
    (codes, zeros), scales = even.signed(), even.scale
    assert codes.dtype == torch.int8
    assert scales.shape == (5, {0: 1, 8: 5, 16: 3, "tensor": 1}[group])
    spread = lambda rows: rows.float().repeat_interleave(16 if group == 16 else 40 // rows.shape[1], dim=1)[:, :40]
    values = codes.float() if zeros is None else codes.float() - spread(zeros)
    assert torch.equal(values * spread(scales), variant.effective)
    assert (zeros is None) == (format == "int")
    values = even.codes.float() - spread(even.zero)
    assert torch.equal(values * spread(scales), variant.effective)
    assert compress(weight, LayerSpec(weight_bits=4, weight_format="nf4"), info(weight)).even_codes() is None
