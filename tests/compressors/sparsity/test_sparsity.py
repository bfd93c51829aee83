"""Scores, patterns and methods of sparsity, against hand-computed cases, brute force, and one another."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.compressors import (
    LayerGradients,
    LayerInfo,
    LayerMoments,
    LayerSpec,
    Pattern,
    VariantStore,
    applicable,
    compress,
    decode,
    methods,
    needs_gradients,
    needs_moments,
)
from paredown.compressors.registry import _registry as registry
from paredown.compressors.sparsity import SparsityProblem, block_obs, drop_lowest, obs, sparsegpt, sparsify, wanda
from paredown.errors import SpecError
from paredown.testing import check_compressor

SCORES = tuple(name for name in ("magnitude", "gradient", "taylor", "fisher", "wanda", "obs", "block_obs"))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(n, groups=1, seed=7):
    """Correlated inputs, as neighbouring pixels are."""
    x = normal(groups, 6 * n, n, seed=seed)
    x = x + 0.9 * x.roll(1, dims=2) + 0.5 * x.mean(dim=2, keepdim=True)
    return x.transpose(1, 2) @ x / x.shape[1]


def gradients(rows, columns):
    return torch.stack([normal(rows, columns, seed=3), normal(rows, columns, seed=4).square()])


def problem(matrix, pattern="", share=0.5, **known):
    return SparsityProblem(matrix=matrix, share=share, pattern=Pattern.parse(pattern), **known)


def layer_of(*shape, groups=1, kind=None):
    kind = kind or {2: "linear", 3: "conv1d", 4: "conv2d"}[len(shape)]
    return LayerInfo(fqn="layer", kind=kind, weight_shape=shape, groups=groups)


class TestPatterns:
    @pytest.mark.parametrize("text", ["2:4", "4:8", "1:3", "1x4", "4x4", "16x1", "row", "column", ""])
    def test_what_there_is(self, text):
        Pattern.parse(text)

    @pytest.mark.parametrize("text", ["4:4", "0:4", "2:", "1x1", "4x", "rows", "2:4 ", 24, "9:9999"])
    def test_what_there_is_not(self, text):
        with pytest.raises(SpecError, match="pattern must be"):
            Pattern.parse(text)

    def test_by_hand(self):
        scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]])
        kept = {
            "": [[0, 0, 0, 0], [1, 1, 1, 1]],
            "row": [[0, 0, 1, 1], [1, 1, 0, 0]],
            "column": [[0, 0, 0, 0], [1, 1, 1, 1]],
            "2:4": [[0, 0, 1, 1], [1, 1, 0, 0]],
            "2x2": [[0, 0, 0, 0], [0, 0, 0, 0]],
            "2x1": [[0, 0, 1, 1], [0, 0, 1, 1]],
            "1x2": [[0, 0, 0, 0], [1, 1, 1, 1]],
        }
        kept["2x2"] = [[0, 0, 1, 1], [0, 0, 1, 1]]  # both blocks sum to 18: the earlier goes
        kept["2x1"] = [[0, 0, 1, 1], [0, 0, 1, 1]]  # all four sum to 9
        for text, rows in kept.items():
            assert drop_lowest(scores, Pattern.parse(text), 0.5).int().tolist() == rows, text

    def test_n_of_m_runs_along_the_input_channels_at_each_position_of_the_kernel(self):
        weight = normal(3, 8, 2, 2)
        mask = drop_lowest(weight.reshape(3, -1).abs(), Pattern.parse("2:4"), 0.5, kernel=4).reshape(weight.shape)
        groups = mask.permute(0, 2, 3, 1).reshape(-1, 4)
        assert bool((groups.sum(dim=1) == 2).all())
        best = weight.abs().permute(0, 2, 3, 1).reshape(-1, 4).topk(2, dim=1).indices
        assert torch.equal(groups, torch.zeros_like(groups).scatter_(1, best, True))

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(["", "row", "column", "2:4", "1:4", "4:8", "3:16", "1x4", "4x1", "2x2", "4x4", "16x1"]),
        st.floats(0.01, 0.999), st.integers(1, 3), st.integers(0, 99),
    )  # fmt: skip
    def test_counts_are_exact_and_no_layer_is_emptied(self, text, share, kernel, seed):
        pattern = Pattern.parse(text)
        scores = normal(16, 16 * kernel, seed=seed)
        mask = drop_lowest(scores, pattern, share, kernel)
        assert int((~mask).sum()) == pattern.n_zeros(share, (16, 16 * kernel))
        assert bool(mask.any())
        if text == "row":
            assert len(set(mask.sum(dim=1).tolist())) == 1
            assert bool(mask.any(dim=1).all())
        if text == "column":
            assert len(set(mask.sum(dim=0).tolist())) == 1
            assert bool(mask.any(dim=0).all())
        view = mask.reshape(16, 16, kernel).transpose(1, 2)  # (out, position, in)
        if pattern.kind == "block":
            tiles = view.reshape(16 // pattern.n, pattern.n, kernel, 16 // pattern.m, pattern.m)
            sums = tiles.sum(dim=(1, 4))
            assert set(sums.unique().tolist()) <= {0, pattern.n * pattern.m}
        if pattern.kind == "n:m":
            assert set(view.reshape(-1, pattern.m).sum(dim=1).tolist()) == {pattern.n}

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(["", "row", "column", "1x4", "2x2", "4x4", "16x1"]), st.floats(0.05, 0.9), st.floats(0.05, 0.9)
    )
    def test_a_sparser_level_drops_all_that_a_lighter_one_does(self, text, one, other):
        scores, light, heavy = normal(16, 16), *sorted((one, other))
        pattern = Pattern.parse(text)
        assert bool((drop_lowest(scores, pattern, light) | ~drop_lowest(scores, pattern, heavy)).all())

    def test_so_does_1_of_4_with_2_of_4(self):
        scores = normal(4, 16)
        two, one = (drop_lowest(scores, Pattern.parse(text), 0.5) for text in ("2:4", "1:4"))
        assert bool((two | ~one).all())

    @pytest.mark.parametrize("name", SCORES)
    @pytest.mark.parametrize("pattern", ["", "row", "1x4"])
    def test_levels_of_a_layer_are_nested_for_every_score(self, name, pattern):
        weight = normal(8, 16)
        known = {
            "moments": LayerMoments(second=moments(16), digest=""),
            "gradients": LayerGradients(both=gradients(8, 16), digest=""),
        }
        specs = [LayerSpec(sparsity=s, sparsity_method=name, pattern=pattern) for s in (0.25, 0.5, 0.75)]
        zeros = [compress(weight, spec, layer_of(8, 16), **known).effective == 0 for spec in specs]
        assert bool((zeros[0] <= zeros[1]).all())
        assert bool((zeros[1] <= zeros[2]).all())


class TestSpecs:
    def test_n_of_m_fixes_the_share(self):
        assert LayerSpec(sparsity=0.667, pattern="1:3").sparsity == 1.0 - 1.0 / 3.0
        with pytest.raises(SpecError, match=r"sparsity must be 0\.5 with the pattern '2:4'"):
            LayerSpec(sparsity=0.6, pattern="2:4")
        with pytest.raises(SpecError, match="sparsity is 0"):
            LayerSpec(pattern="2:4")

    def test_labels_and_json(self):
        spec = LayerSpec(weight_bits=4, sparsity=0.5, sparsity_method="wanda", pattern="2:4")
        assert spec.label() == "w4 s50:wanda/2:4"
        assert LayerSpec.from_dict(spec.to_dict()) == spec
        assert LayerSpec(sparsity=1 / 3, pattern="row").label() == "s33.33/row"

    @pytest.mark.parametrize(
        ("spec", "layer", "reason"),
        [
            ({"sparsity": 0.5, "pattern": "2:4"}, layer_of(8, 6), "2:4 needs a multiple of 4 input channels, and here"),
            ({"sparsity": 0.5, "pattern": "2:4"}, layer_of(8, 3, 4, 4), "input channels, and here are 3"),
            ({"sparsity": 0.5, "pattern": "16x1"}, layer_of(10, 8), "multiple of 16 outputs"),
            ({"sparsity": 0.5, "pattern": "4x1"}, layer_of(8, 1, 3, 3, groups=8), "multiple of 4 outputs"),
            ({"sparsity": 0.01, "pattern": "4x4"}, layer_of(8, 8), "less than one block"),
            ({"sparsity": 0.01, "pattern": "row"}, layer_of(8, 8), "less than one weight of each row"),
            ({"sparsity": 0.5, "pattern": "2:4", "rank": 0.125}, layer_of(16, 16), "of the factor"),
            ({"sparsity": 0.5, "sparsity_method": "fisher", "rank": 0.25}, layer_of(16, 16), "not of its factors"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_says_why(self, spec, layer, reason):
        assert reason in str(applicable(LayerSpec(**spec), layer))

    def test_a_method_of_masks_knows_no_pattern(self):
        with registry.SPARSITY.temporarily("plain", lambda matrix, share: drop_lowest(matrix.abs(), Pattern(), share)):
            assert applicable(LayerSpec(sparsity=0.5, sparsity_method="plain"), layer_of(8, 8)) is None
            reason = applicable(LayerSpec(sparsity=0.5, sparsity_method="plain", pattern="row"), layer_of(8, 8))
            assert reason is not None
            assert "knows no pattern" in reason

    def test_what_needs_data_names_the_layer_and_what_to_do(self):
        weight = normal(8, 8)
        with pytest.raises(SpecError, match=r"layer: s50:wanda looks .* inputs.*add calibration samples.*'magnitude'"):
            compress(weight, LayerSpec(sparsity=0.5, sparsity_method="wanda"), layer_of(8, 8))
        with pytest.raises(SpecError, match=r"layer: s50:fisher looks at the loss' gradient.*add calibration samples"):
            compress(weight, LayerSpec(sparsity=0.5, sparsity_method="fisher"), layer_of(8, 8))
        wrong = LayerGradients(both=torch.zeros(2, 3, 3), digest="")
        with pytest.raises(SpecError, match="belong to another model"):
            compress(weight, LayerSpec(sparsity=0.5, sparsity_method="fisher"), layer_of(8, 8), gradients=wrong)


class TestScores:
    def test_wanda_by_hand(self):
        matrix = torch.tensor([[1.0, -3.0], [2.0, 0.5]])
        second = torch.tensor([[[16.0, 0.0], [0.0, 1.0]]])
        assert wanda(problem(matrix, moments=second)).tolist() == [[4.0, 3.0], [8.0, 0.5]]

    def test_obs_is_what_the_best_repair_leaves(self):
        """Checks each weight's score against the least output error of all weights with that one zero."""
        matrix, second = normal(2, 5), moments(5)
        asked = problem(matrix, moments=second)
        h = torch.linalg.inv(torch.linalg.inv((second[0] + 0.01 * second[0].diagonal().mean() * torch.eye(5)).double()))
        found = obs(asked)
        for row in range(2):
            for i in range(5):
                free = [j for j in range(5) if j != i]
                w = matrix[row].double()
                step = torch.linalg.solve(h[free][:, free], h[free, i] * w[i])
                d = torch.zeros(5, dtype=torch.float64)
                d[i], d[free] = -w[i], step
                assert float(found[row, i]) == pytest.approx(float(d @ h @ d), rel=1e-3)

    def test_block_obs_chooses_the_best_pair_of_four(self):
        matrix, second = normal(6, 8), moments(8)
        asked = problem(matrix, "2:4", moments=second)
        mask = asked.mask(block_obs(asked))
        h = (second[0] + 0.01 * second[0].diagonal().mean() * torch.eye(8)).double()
        inverse = torch.linalg.inv(h)
        for row in range(6):
            for start in (0, 4):

                def cost(pair, row=row, start=start):
                    at = [start + p for p in pair]
                    w = matrix[row, at].double()
                    return float(w @ torch.linalg.solve(inverse[at][:, at], w))

                best = min(combinations(range(4), 2), key=cost)
                assert [i for i in range(4) if not mask[row, start + i]] == list(best)

    def test_with_white_inputs_they_are_magnitude(self):
        matrix = normal(6, 16)
        for pattern in ("", "row", "2:4", "2x2"):
            asked = problem(matrix, pattern, moments=torch.eye(16)[None])
            expected = asked.mask(matrix.square())
            for score in (obs, block_obs):
                assert torch.equal(asked.mask(score(asked)), expected)
            assert torch.equal(problem(matrix, pattern).mask(matrix.abs()), asked.mask(wanda(asked)))

    def test_each_group_of_a_convolution_has_its_own_inputs(self):
        matrix, second = normal(6, 9), moments(9, groups=3)
        whole = obs(problem(matrix, moments=second))
        for g in range(3):
            alone = obs(problem(matrix[2 * g : 2 * g + 2], moments=second[g : g + 1]))
            assert torch.allclose(whole[2 * g : 2 * g + 2], alone)


class TestMending:
    @pytest.mark.parametrize("pattern", ["", "row", "column", "2:4", "4:8", "1x4", "4x4", "16x1"])
    @pytest.mark.parametrize("groups", [1, 2])
    def test_each_step_up_costs_less_of_the_output(self, pattern, groups):
        asked = problem(normal(32, 48), pattern, moments=moments(48, groups))
        errors = {}
        for name in ("magnitude", "wanda", "sparsegpt", "refit(wanda)"):
            mask, values = sparsify(asked, name)
            errors[name] = asked.output_error(torch.where(mask, asked.matrix if values is None else values, 0.0))
        assert errors["sparsegpt"] < 0.95 * min(errors["magnitude"], errors["wanda"])
        assert errors["refit(wanda)"] < 0.95 * errors["wanda"]

    def test_refitting_finds_the_best_weights_on_the_mask(self):
        matrix, second = normal(5, 12), moments(12)
        asked = problem(matrix, moments=second)
        mask, values = sparsify(asked, "refit(magnitude)")
        h = (second[0] + 0.01 * second[0].diagonal().mean() * torch.eye(12)).double()
        for row in range(5):
            kept = mask[row]
            best = torch.linalg.solve(h[kept][:, kept], (h @ matrix[row].double())[kept])
            assert torch.allclose(values[row, kept].double(), best, atol=1e-4)

    def test_the_last_columns_mend_what_the_first_have_lost(self):
        """Two equal inputs: with one weight gone the other takes over all of it."""
        second = torch.tensor([[[1.0, 0.9999], [0.9999, 1.0]]])
        mask, values = sparsegpt(problem(torch.tensor([[1.0, 3.0]]), moments=second))
        assert mask.tolist() == [[False, True]]
        assert float(values[0, 1]) == pytest.approx(4.0, rel=0.02)

    def test_dead_and_collinear_inputs_are_survived(self):
        second = moments(12)
        second[:, 3], second[:, :, 3] = 0.0, 0.0
        second[:, 5], second[:, :, 5] = second[:, 4].clone(), second[:, :, 4].clone()
        second[:, 5, 5] = second[:, 4, 4]
        for known in (second, torch.zeros(1, 12, 12)):
            for name in ("sparsegpt", "refit(obs)", "block_obs", "wanda"):
                mask, values = sparsify(problem(normal(4, 12), "2:4", moments=known), name)
                assert values is None or bool(torch.isfinite(values[mask]).all())

    @pytest.mark.parametrize("method", ["affine", "gptq"])
    def test_with_few_bits_it_is_better_to_mend_first(self, method):
        weight, second = normal(32, 48), moments(48)
        found = {}
        for name in ("wanda", "sparsegpt", "refit(wanda)"):
            spec = LayerSpec(weight_bits=4, weight_method=method, sparsity=0.5, sparsity_method=name)
            variant = compress(weight, spec, layer_of(32, 48), moments=LayerMoments(second=second, digest=""))
            assert int((variant.effective == 0).sum()) >= 32 * 48 // 2
            assert torch.equal(decode(spec, (32, 48), variant.tensors), variant.effective)
            found[name] = problem(weight, moments=second).output_error(variant.effective)
        assert found["sparsegpt"] < 0.97 * found["wanda"]  # GPTQ mends a part of what Wanda drops, too
        assert found["refit(wanda)"] < 0.9 * found["wanda"]


class TestExpressions:
    def test_a_mixture_weighs_ranks(self):
        asked = problem(normal(4, 8), moments=moments(8), gradients=torch.stack([normal(4, 8), normal(4, 8).square()]))
        alone, _ = sparsify(asked, "wanda")
        assert torch.equal(sparsify(asked, "1*wanda+0*fisher")[0], alone)
        both = sparsify(asked, "0.5*wanda+0.5*fisher")[0]
        assert torch.equal(both, sparsify(asked, "2*wanda+2*fisher")[0])

    def test_needs_are_those_of_the_parts(self):
        for name, inputs, loss in (
            ("0.5*wanda+taylor", True, True), ("magnitude+2*fisher", False, True), ("refit(magnitude)", True, False),
            ("refit(0.5*obs+0.5*taylor)", True, True),
        ):  # fmt: skip
            spec = LayerSpec(sparsity=0.5, sparsity_method=name)
            assert (needs_moments(spec), needs_gradients(spec)) == (inputs, loss)
            check_compressor("sparsity", name)

    @pytest.mark.parametrize(
        "name", ["0.5*wanda+", "wanda+wanda", "0*wanda+0*obs", "sparsegpt+wanda", "refit(sparsegpt)"]
    )
    def test_what_makes_no_sense_is_refused(self, name):
        with pytest.raises(SpecError):
            applicable(LayerSpec(sparsity=0.5, sparsity_method=name, pattern="row"), layer_of(8, 8))

    def test_an_expression_is_no_registered_name(self):
        assert not any("+" in name or "(" in name for name in methods("sparsity"))
        with pytest.raises(SpecError, match="there is no sparsity method 'other'"):
            registry.SPARSITY["0.5*other+wanda"]


def anywhere(p):
    return drop_lowest(p.matrix.abs(), Pattern(), p.n_dropped / p.matrix.numel())


@pytest.mark.parametrize(
    ("broken", "gives", "complaint"),
    [
        (lambda p: p.matrix.abs().reshape(-1), "scores", "must give scores of shape"),
        (lambda p: p.matrix.abs() * float("nan"), "scores", "the same when called again|NaN"),
        (lambda p: p.matrix.abs().int(), "scores", "must give scores"),
        (lambda p: p.matrix.mul_(2).abs(), "scores", "leave its arguments alone"),
        (lambda p: torch.rand(p.shape), "scores", "global random state"),
        (lambda p: (~p.mask(p.matrix.abs()), p.matrix), "weights", "with|keeps the pattern"),
        (lambda p: (p.mask(p.matrix.abs()), p.matrix * 50.0), "weights", "cost more of the output"),
        (lambda p: (p.mask(p.matrix.abs()), p.matrix.double()), "weights", "finite float32 values"),
        (lambda p: (anywhere(p), p.matrix), "weights", "pattern"),
    ],
)  # fmt: skip
def test_broken_methods_are_rejected(broken, gives, complaint):
    with (
        registry.SPARSITY.temporarily("broken", broken, gives=gives, needs="moments"),
        pytest.raises(AssertionError, match=complaint),
    ):
        check_compressor("sparsity", "broken")


def test_the_store_tells_data_and_patterns_apart(tmp_path):
    store, weight, layer = VariantStore(tmp_path), normal(8, 8), layer_of(8, 8)
    fisher = LayerSpec(sparsity=0.5, sparsity_method="fisher")
    one, other = (LayerGradients(both=torch.rand(2, 8, 8), digest=digest) for digest in "ab")
    keys = {
        store.key(weight, fisher, layer, gradients=one),
        store.key(weight, fisher, layer, gradients=other),
        store.key(weight, LayerSpec(sparsity=0.5, pattern="2:4"), layer),
        store.key(weight, LayerSpec(sparsity=0.5), layer),
    }
    assert len(keys) == 4
    plain = LayerSpec(sparsity=0.5)
    assert store.key(weight, plain, layer, gradients=one) == store.key(weight, plain, layer)
    got = store.get(weight, fisher, layer, gradients=one)
    assert torch.equal(got.effective, compress(weight, fisher, layer, gradients=one).effective)
