"""Methods that look at the layer's inputs, against hand-computed cases, brute force, and one another."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.compressors import LayerInfo, LayerMoments, LayerSpec, VariantStore, compress, methods, needs_moments
from paredown.compressors.quantization import (
    ROUNDING_DAMPING,
    Coded,
    Grid,
    WeightProblem,
    adaptive,
    adaround,
    awq,
    compensated,
    decoded,
    descent,
    entropy_clip,
    fit_nearest,
    gptq,
    hqq,
    minmax,
    neighbours,
    percentile,
    weighted,
)
from paredown.compressors.registry import _registry as registry
from paredown.compressors.registry import damped
from paredown.errors import SpecError
from paredown.testing._compressors import check_compressor


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(n, groups=1, seed=7):
    """Correlated inputs, as neighbouring pixels are."""
    x = normal(groups, 6 * n, n, seed=seed)
    x = x + 0.9 * x.roll(1, dims=2) + 0.5 * x.mean(dim=2, keepdim=True)
    return x.transpose(1, 2) @ x / x.shape[1]


def problem(matrix, second, **spec):
    spec = LayerSpec(**{"weight_bits": 3, **spec})
    return WeightProblem(matrix=matrix, grid=Grid.of(spec, matrix.shape[1]), moments=second)


FORMATS = [
    {},
    {"weight_format": "int_asym", "group_size": 8, "scale_bits": 16},
    {"weight_format": "palette", "scale_bits": 16},
    {"weight_format": "nf4", "weight_bits": 4, "group_size": "tensor"},
    {"weight_format": "pow2"},
]


class TestCompensation:
    @pytest.mark.parametrize("spec", FORMATS, ids=str)
    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_with_an_identity_gptq_is_rounding(self, spec, scale):
        asked = problem(normal(6, 70), scale * torch.eye(70)[None], **spec)
        assert torch.equal(gptq(asked).codes, fit_nearest(asked).codes)
        assert torch.equal(descent(asked).codes, fit_nearest(replace(asked, moments=None)).codes)

    def test_two_columns_by_hand(self):
        """Equal inputs: what the first column loses, the second can give back."""
        second = torch.tensor([[[1.0, 0.999], [0.999, 1.0]]])
        matrix = torch.tensor(
            [
                [
                    0.4,
                    0.4,
                ],
                [7.0, 7.0],
            ]
        )
        grid = Grid.of(LayerSpec(weight_bits=4, group_size="tensor"), 2)
        asked = WeightProblem(matrix=matrix, grid=grid, moments=second)
        params = fit_nearest(asked).params
        step = float(params.scale)
        assert step == pytest.approx(1.0, rel=0.02)
        plain = asked.rounder(params).values(matrix)[0]
        assert plain.tolist() == [0.0, 0.0]  # both lose 0.4, and the sum 0.8
        mended = compensated(asked, params)[0]
        assert mended.tolist() == [0.0, pytest.approx(step)]  # 0.4 + 0.4 rounds to 1

    @pytest.mark.parametrize("spec", FORMATS, ids=str)
    @pytest.mark.parametrize("groups", [1, 4])
    def test_each_step_up_costs_less_of_the_output(self, spec, groups):
        asked = problem(normal(8, 45), moments(45, groups), **spec)
        errors = {m.__name__: asked.output_error(decoded(m(asked))) for m in (fit_nearest, gptq, descent, awq)}
        assert errors["gptq"] < 0.9 * errors["fit_nearest"]
        assert errors["descent"] <= errors["gptq"] * 1.001
        assert errors["awq"] <= errors["fit_nearest"] * 1.1

    @pytest.mark.parametrize("spec", FORMATS, ids=str)
    @pytest.mark.parametrize("groups", [1, 4])
    def test_adaround_is_never_worse_than_gptq_in_any_row(self, spec, groups):
        asked = problem(normal(8, 45), moments(45, groups), **spec)

        def errors(coded):
            d = (decoded(coded) - asked.matrix).reshape(groups, -1, 45)
            return ((d @ damped(asked.moments, ROUNDING_DAMPING)) * d).sum(dim=2).reshape(-1)

        mine, theirs = errors(adaround(asked)), errors(gptq(asked))
        assert bool((mine <= theirs * 1.0001).all())
        assert bool((mine < theirs * 0.999).any())

    @pytest.mark.parametrize("spec", FORMATS, ids=str)
    def test_adaround_takes_one_of_the_two_codewords_around(self, spec):
        asked = problem(normal(6, 40), 2.0 * torch.eye(40)[None], **spec)
        assert torch.equal(adaround(asked).codes, fit_nearest(asked).codes)  # nothing to be gained
        rounder = asked.rounder(fit_nearest(asked).params)
        lower, upper = neighbours(rounder, asked.matrix)
        nearest = rounder.values(asked.matrix)
        assert bool(((nearest == lower) | (nearest == upper)).all())
        inside = lower < upper
        assert bool((lower <= asked.matrix + 1e-6)[inside].all())
        assert bool((asked.matrix <= upper + 1e-6)[inside].all())

    def test_descent_is_near_the_best_that_there_is(self):
        """Four weights of 2 bits: all 256 settings of a row are tried."""
        asked = problem(normal(5, 4), moments(4), weight_bits=2)
        found = descent(asked)
        rounder = asked.rounder(found.params)
        best = torch.full((5,), torch.inf)
        for codes in product(range(-2, 2), repeat=4):
            d = rounder.decode(torch.tensor([codes] * 5, dtype=torch.int8)) - asked.matrix
            best = torch.minimum(best, ((d @ asked.moments[0]) * d).sum(dim=1))
        d = decoded(found) - asked.matrix
        mine = ((d @ asked.moments[0]) * d).sum(dim=1)
        assert bool((mine <= best * 1.5 + 1e-6).all())
        assert float(mine.sum()) <= float(best.sum()) * 1.15

    def test_groups_of_a_convolution_do_not_see_each_other(self):
        matrix, second = normal(6, 9), moments(9, groups=3)
        whole = gptq(problem(matrix, second))
        for g in range(3):
            alone = gptq(problem(matrix[2 * g : 2 * g + 2], second[g : g + 1]))
            assert torch.equal(whole.codes[2 * g : 2 * g + 2], alone.codes)

    def test_what_was_dropped_is_made_up_for(self):
        """Sparse and quantized together, against dropping first and rounding then."""
        matrix, second = normal(16, 60), moments(60)
        spec = LayerSpec(weight_bits=4, sparsity=0.5)
        mask = matrix.abs() >= matrix.abs().median()
        asked = WeightProblem(matrix=matrix, grid=Grid.of(spec, 60), mask=mask, moments=second)
        plain = asked.output_error(decoded(fit_nearest(asked)))
        for method, share in ((gptq, 0.92), (descent, 0.75)):  # 0.6 is the least that any weights on this mask reach
            found = decoded(method(asked))
            assert not bool(found[~mask].any())
            assert asked.output_error(found) < share * plain

    def test_dead_and_collinear_inputs_are_survived(self):
        second = moments(12)
        second[:, 3], second[:, :, 3] = 0.0, 0.0
        second[:, 5], second[:, :, 5] = second[:, 4].clone(), second[:, :, 4].clone()
        second[:, 5, 5] = second[:, 4, 4]
        for method in (gptq, descent, awq, weighted, adaptive):
            values = decoded(method(problem(normal(4, 12), second)))
            assert bool(torch.isfinite(values).all())
        nothing = problem(normal(4, 12), torch.zeros(1, 12, 12))
        assert torch.equal(gptq(nothing).codes, fit_nearest(nothing).codes)

    @settings(max_examples=25)
    @given(st.integers(1, 6), st.integers(1, 80), st.integers(0, 999), st.sampled_from(FORMATS))
    def test_shapes_that_do_not_divide(self, rows, columns, seed, spec):
        asked = problem(normal(rows, columns, seed=seed), moments(columns, seed=seed), **spec)
        for method in (gptq, descent):
            found = method(asked)
            values = decoded(found)
            assert torch.equal(asked.rounder(found.params).values(values), values)
            assert asked.output_error(values) <= asked.output_error(torch.zeros_like(values)) * (1 + 1e-4)


class TestRanges:
    def test_minmax_by_hand(self):
        found = minmax(problem(torch.tensor([[0.0, 1.0, -7.0]]), None, weight_bits=4))
        assert found.params.scale.item() == 1.0
        assert found.codes.tolist() == [[0, 1, -7]]
        shifted = minmax(problem(torch.tensor([[0.0, 1.0, 15.0]]), None, weight_bits=4, weight_format="int_asym"))
        assert decoded(shifted).tolist() == [[0.0, 1.0, 15.0]]
        assert shifted.params.zero.item() == 0.0

    def test_the_percentile_clips_a_hundredth(self):
        matrix = torch.arange(1.0, 201.0)[None]
        assert percentile(problem(matrix, None, weight_bits=8)).params.scale.item() == pytest.approx(198 / 127)
        few = torch.arange(1.0, 50.0)[None]
        assert percentile(problem(few, None, weight_bits=8)).params.scale.item() == pytest.approx(49 / 127)

    def test_entropy_keeps_an_even_histogram_and_clips_a_lone_outlier(self):
        even = torch.linspace(0.0, 1.0, 5000)[None]
        assert float(entropy_clip(even, 128)[0]) > 0.95
        lone = torch.cat([torch.linspace(0.0, 0.2, 5000), torch.ones(1)])[None]
        assert float(entropy_clip(lone, 8)[0]) < 0.6

    def test_hqq_forgives_outliers(self):
        matrix = normal(4, 256)
        matrix[:, 0] = 25.0
        asked = problem(matrix, None, weight_format="int_asym")
        d, plain = (decoded(m(asked)) - matrix for m in (hqq, fit_nearest))
        assert float(d.abs().pow(0.7).sum()) <= float(plain.abs().pow(0.7).sum())
        assert float(d[:, 1:].square().sum()) < float(plain[:, 1:].square().sum())

    def test_weights_of_the_error_move_the_range(self):
        """One input is all that counts: its weight comes out nearly exact."""
        second = torch.diag(torch.tensor([1e4, 1.0, 1.0, 1.0]))[None]
        asked = problem(torch.tensor([[0.37, 1.0, -0.81, 0.52]]), second, weight_bits=2)
        off = [float((decoded(m(asked)) - asked.matrix)[0, 0].abs()) for m in (weighted, fit_nearest)]
        assert off[0] < 0.02 < off[1]


class TestAdaptive:
    def test_the_method_is_the_best_of_them(self):
        asked = problem(normal(8, 30), moments(30))
        best = min(asked.output_error(decoded(m(asked))) for m in (fit_nearest, weighted, awq, gptq, descent))
        assert asked.output_error(decoded(adaptive(asked))) == best

    @pytest.mark.parametrize("bits", [3, 4])
    def test_the_format_is_no_dearer_and_no_worse(self, bits):
        weight = normal(16, 90).abs() + 0.5  # of one sign: a zero point pays
        layer = LayerInfo(fqn="layer", kind="linear", weight_shape=(16, 90))
        seen = LayerMoments(second=moments(90), digest="a")
        plain = compress(weight, LayerSpec(weight_bits=bits, weight_method="gptq"), layer, moments=seen)
        spec = LayerSpec(weight_bits=bits, weight_method="gptq", weight_format="adaptive", scale_bits=16)
        found = compress(weight, spec, layer, moments=seen)
        assert found.n_bytes <= plain.n_bytes + 1
        assert found.tensors["format"].item() != 0  # not integers

        def error(variant):
            d = variant.effective - weight
            return float(((d @ seen.second[0]) * d).sum())

        assert error(found) < 0.7 * error(plain)


class TestInCompress:
    LAYER = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 4, 3, 3))

    def test_without_moments_it_says_what_to_do(self):
        weight = normal(8, 4, 3, 3)
        for name in ("gptq", "descent", "awq", "weighted", "adaptive"):
            spec = LayerSpec(weight_bits=4, weight_method=name)
            assert needs_moments(spec)
            with pytest.raises(SpecError, match=rf"conv: w4:{name} looks at .*add calibration .*such as 'affine'"):
                compress(weight, spec, self.LAYER)
        assert not needs_moments(LayerSpec(weight_bits=4))
        assert not needs_moments(LayerSpec(weight_method="gptq"))

    def test_moments_of_another_model_are_refused(self):
        seen = LayerMoments(second=moments(9), digest="")
        with pytest.raises(
            SpecError, match=r"conv: the moments of its inputs should be \(1, 36, 36\), got \(1, 9, 9\)"
        ):
            compress(normal(8, 4, 3, 3), LayerSpec(weight_bits=4, weight_method="gptq"), self.LAYER, moments=seen)

    def test_an_embedding_needs_none(self):
        weight = normal(10, 6)
        layer = LayerInfo(fqn="embed", kind="embedding", weight_shape=(10, 6))
        by_gptq, plain = (
            compress(weight, LayerSpec(weight_bits=4, weight_method=m), layer) for m in ("gptq", "affine")
        )
        assert torch.equal(by_gptq.effective, plain.effective)

    def test_low_rank_factors_are_compensated_one_after_the_other(self):
        weight, second = normal(24, 40), moments(40)
        layer = LayerInfo(fqn="layer", kind="linear", weight_shape=(24, 40))
        seen = LayerMoments(second=second, digest="")

        def error(method):
            spec = LayerSpec(weight_bits=3, rank=0.5, weight_method=method)
            d = (
                compress(weight, spec, layer, moments=seen).effective
                - compress(weight, LayerSpec(rank=0.5), layer).effective
            )
            return float(((d @ second[0]) * d).sum())

        assert error("gptq") < 0.8 * error("affine")

    def test_the_store_tells_calibrations_apart(self, tmp_path):
        store = VariantStore(tmp_path)
        weight = normal(8, 4, 3, 3)
        one, other = (LayerMoments(second=moments(36, seed=s), digest=str(s)) for s in (1, 2))
        spec = LayerSpec(weight_bits=2, weight_method="gptq")
        first, second = (store.get(weight, spec, self.LAYER, moments=m) for m in (one, other))
        assert not torch.equal(first.effective, second.effective)
        assert torch.equal(store.get(weight, spec, self.LAYER, moments=one).effective, first.effective)
        assert store.has(weight, spec, self.LAYER, moments=one)
        assert not store.has(weight, spec, self.LAYER)
        plain = LayerSpec(weight_bits=2)  # looks at no inputs, so they are no part of its address
        assert store.key(weight, plain, self.LAYER, moments=one) == store.key(weight, plain, self.LAYER)


class TestContract:
    """The suite for methods that are handed a problem rejects each broken double."""

    @staticmethod
    def _changed(problem, **changes):
        found = fit_nearest(problem)
        return Coded(**{"codes": found.codes, "params": found.params, "grid": found.grid, **changes})

    @pytest.mark.parametrize(
        ("broken", "complaint"),
        [
            (lambda p: TestContract._changed(p, codes=torch.full_like(fit_nearest(p).codes, 127)), "codes in"),
            (lambda p: TestContract._changed(p, codes=fit_nearest(p).codes.int()), "must give int8 codes"),
            (
                lambda p: TestContract._changed(p, params=replace(fit_nearest(p).params, scale=torch.ones(1))),
                "float32 scales of shape",
            ),
            (
                lambda p: TestContract._changed(
                    p, params=replace(fit_nearest(p).params, scale=fit_nearest(p).params.scale * 30.0)
                ),
                "exceeds that of dropping",
            ),
            (lambda p: fit_nearest(replace(p, mask=None)), "a dropped weight came back"),
            (lambda p: fit_nearest(replace(p, matrix=p.matrix.mul_(1.01))), "leave its arguments alone"),
            (
                lambda p: fit_nearest(replace(p, matrix=p.matrix * (1 + torch.rand(1)))),
                "global random state",
            ),
        ],
    )
    def test_broken_doubles(self, broken, complaint):
        with (
            registry.WEIGHT.temporarily("broken", broken, formats=("int",)),
            pytest.raises(AssertionError, match=complaint),
        ):
            check_compressor("weight", "broken")

    def test_a_broken_answer_names_layer_and_method(self):
        weight = normal(8, 4, 3, 3)
        layer = TestInCompress.LAYER
        wrong = lambda p: TestContract._changed(p, codes=torch.full_like(fit_nearest(p).codes, 8))
        with (
            registry.WEIGHT.temporarily("wrong", wrong, formats=("int",)),
            pytest.raises(SpecError, match=r"conv: the weight method 'wrong' at 4 bits \(int\) must give codes in"),
        ):
            compress(weight, LayerSpec(weight_bits=4, weight_method="wrong"), layer)

    def test_what_a_method_may_need(self):
        with pytest.raises(SpecError, match=r"may need 'moments'.*got 'gradients'"):
            registry.WEIGHT.register("wrong", fit_nearest, formats=("int",), needs="gradients")
        assert {"gptq", "descent", "awq", "hqq", "affine"} <= set(methods("weight"))
