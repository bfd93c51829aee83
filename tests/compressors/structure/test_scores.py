"""Scores by hand, evidence against finite differences, and what is kept."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paredown.compressors import forward
from paredown.compressors.structure import (
    SCORES,
    CoupledSet,
    check_count,
    collect,
    find,
    keep_above,
    keep_best,
    keep_uniform,
    masked,
    n_kept,
    removal_of,
    score,
)
from paredown.errors import SpecError
from paredown.testing import STRUCTURES


def little() -> tuple[nn.Sequential, CoupledSet, torch.Tensor]:
    """Two inputs, three units, one output: weights by hand."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -4.0], [1.0, 0.0], [0.0, 2.0]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[1.0, 5.0, -2.0]]))
        model[2].bias.zero_()
    inputs = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    return model, find(model, inputs).sets[0], inputs


def test_norms_of_the_rows() -> None:
    model, coupled, _ = little()
    assert score(model, coupled, "l1").tolist() == [7.0, 1.0, 2.0]
    assert score(model, coupled, "l2").tolist() == [5.0, 1.0, 2.0]


def test_the_group_norm_looks_at_the_readers_too() -> None:
    model, coupled, _ = little()
    assert score(model, coupled, "group").square().tolist() == pytest.approx([25.0 + 1.0, 1.0 + 25.0, 4.0 + 4.0])


def test_activation_and_output_by_hand() -> None:
    """Units are relu(3a - 4b), a, 2b: on the two samples (2, 0), (2, 1) and (2, 6)."""
    model, coupled, inputs = little()
    evidence = collect(model, [inputs], [coupled], targets=[torch.zeros(2, 1)])[coupled.name]
    rms = torch.tensor([2.0, 2.5, 20.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(evidence.activation, rms)
    torch.testing.assert_close(evidence.output, rms * torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64))


def test_taylor_is_what_the_loss_changes_by_to_first_order() -> None:
    """Against a finite difference: the reader's column shrunk a little."""
    model, coupled, inputs = little()
    targets = torch.tensor([[1.0], [2.0]])
    evidence = collect(model, [inputs], [coupled], targets=[targets])[coupled.name]

    def loss(unit: int, factor: float) -> float:
        weight = model[2].weight
        with torch.no_grad():
            weight[0, unit] *= factor
            value = float((model.double()(inputs.double()) - targets).square().sum() / 2)
            weight = model.float()[2].weight
            weight[0, unit] /= factor
        return value

    step = 1e-3
    slopes = [abs(loss(unit, 1 + step) - loss(unit, 1 - step)) / (2 * step) for unit in range(3)]
    torch.testing.assert_close(evidence.taylor, torch.tensor(slopes, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(evidence.hessian, evidence.taylor.square() / 2)


def test_uniform_attention_has_the_largest_entropy() -> None:
    model, inputs = STRUCTURES["encoder"]()
    model2, inputs2 = STRUCTURES["packed"]()
    (heads,) = find(model2, inputs2).of_kind("heads")
    assert isinstance(model2.qkv, nn.Linear)
    with torch.no_grad():
        model2.qkv.weight[0:4] = 0.0  # the first head's queries: it looks everywhere alike
        model2.qkv.bias[0:4] = 0.0
    evidence = collect(model2, [inputs2], [heads])[heads.name]
    assert evidence.entropy is not None
    assert float(evidence.entropy[0]) == pytest.approx(torch.tensor(5.0).log().item())
    assert int(score(model2, heads, "entropy", evidence=evidence).argmin()) == 0
    hidden = find(model, inputs).of_kind("neurons")[0]
    with pytest.raises(SpecError, match="entropy is a score of attention heads"):
        score(model, hidden, "entropy", evidence=collect(model, [inputs], [hidden])[hidden.name])


@pytest.mark.parametrize("method", ["l1", "l2", "group", "taylor", "hessian", "hessian_diag", "activation", "output"])
@pytest.mark.parametrize("name", ["residual", "separable", "grouped", "grouped_queries", "lstm", "decoder"])
def test_a_unit_that_does_nothing_goes_first(name: str, method: str) -> None:
    model, inputs = STRUCTURES[name]()
    for coupled in find(model, inputs).sets:
        gone = coupled.n_units // 2
        kept = [unit for unit in range(coupled.n_units) if unit != gone]
        with masked(model, removal_of(model, [coupled], {coupled.name: kept})):
            evidence = collect(model, [inputs], [coupled])[coupled.name]
            if coupled.attention and coupled.kind == "heads" and method in ("activation", "output"):
                with pytest.raises(SpecError, match="no layer that reads its units was seen"):
                    score(model, coupled, method, evidence=evidence)
                continue
            scores = score(model, coupled, method, evidence=evidence)
        assert scores.shape == (coupled.n_units,)
        assert float(scores[gone]) == 0.0, coupled.name  # and so it is with a ReLU that never opens, but with no other
        assert float(scores.max()) > 0.0, coupled.name
        assert bool(torch.isfinite(scores).all())


def test_evidence_leaves_the_model_alone() -> None:
    model, inputs = STRUCTURES["residual"]()
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    collect(model, [inputs], find(model, inputs).sets)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_batch_norm_scales_and_random() -> None:
    model, inputs = STRUCTURES["residual"]()
    coupled = find(model, inputs)["channels:conv1"]
    with torch.no_grad():
        model.bn1.weight.copy_(torch.arange(8.0) - 4)
    assert score(model, coupled, "batch_norm").tolist() == [4.0, 3, 2, 1, 0, 1, 2, 3]
    draws = [score(model, coupled, "random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_bad_scores_are_named() -> None:
    model, coupled, inputs = little()
    with pytest.raises(SpecError, match=r"one of l1, l2, batch_norm.*got 'l3'"):
        score(model, coupled, "l3")
    with pytest.raises(SpecError, match="'batch_norm' has no value for neurons:0: no batch norm"):
        score(model, coupled, "batch_norm")
    with pytest.raises(SpecError, match="'taylor' needs evidence"):
        score(model, coupled, "taylor")
    with pytest.raises(SpecError, match="at least one batch"):
        collect(model, [], [coupled])
    with pytest.raises(SpecError, match="3 finite numbers"):
        keep_best(coupled, torch.tensor([1.0, float("nan"), 2.0]), 2)
    assert set(SCORES) > {"l1", "random", "entropy"}
    forward(model, inputs)


@given(share=st.floats(0.05, 1.0), round_to=st.sampled_from([1, 2, 4, 8, 16, 3]), n=st.integers(1, 70))
def test_what_a_share_keeps(share: float, round_to: int, n: int) -> None:
    coupled = CoupledSet(name="x", kind="channels", n_units=n, members=())
    if int(share * n + 0.5) < 1:
        with pytest.raises(SpecError, match="at least 1 must stay"):
            n_kept(coupled, share, round_to=round_to)
        return
    kept = n_kept(coupled, share, round_to=round_to)
    assert 1 <= kept <= n
    assert kept % round_to == 0 or kept == n
    if n >= round_to:
        assert abs(kept - share * n) <= max(round_to / 2, round_to - share * n) + 1e-9 or kept == n
    assert check_count(coupled, kept, round_to=round_to) == kept


def test_levels_are_nested() -> None:
    model, coupled, _ = little()
    scores = score(model, coupled, "l1")
    kept = [set(keep_best(coupled, scores, n)) for n in (1, 2, 3)]
    assert all(a < b for a, b in itertools.pairwise(kept))
    assert kept[0] == {0}


def test_a_share_that_would_empty_a_layer_and_a_head_count_that_the_alignment_forbids() -> None:
    heads = CoupledSet(name="heads:a", kind="heads", n_units=6, unit_width=8, members=())
    with pytest.raises(SpecError, match=r"keeping 0.05 of the 6 units of heads:a leaves 0; at least 1 must stay"):
        n_kept(heads, 0.05)
    with pytest.raises(SpecError, match=r"3 units of heads:a are 24 channels, no multiple of 16; keep 2 or 4"):
        check_count(heads, 3, round_to=16)
    with pytest.raises(SpecError, match="can keep 1 to 6 units, got 7"):
        check_count(heads, 7)
    with pytest.raises(SpecError, match=r"must be in \(0, 1\]"):
        n_kept(heads, 0.0)
    with pytest.raises(SpecError, match="round_to must be a whole number"):
        n_kept(heads, 0.5, round_to=0)


def test_one_share_and_one_threshold() -> None:
    wide = CoupledSet(name="wide", kind="channels", n_units=8, members=())
    slim = CoupledSet(name="slim", kind="channels", n_units=4, members=())
    scores = {"wide": torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 1]), "slim": torch.tensor([1.0, 1, 1, 1])}
    assert {k: len(v) for k, v in keep_uniform([wide, slim], scores, 0.5).items()} == {"wide": 4, "slim": 2}
    above = keep_above([wide, slim], scores, 5 / 12)
    assert above == {"wide": (0,), "slim": (0, 1, 2, 3)}  # relative to its mean, one unit of the wide set stands out
