"""The first guess: exact where the divergence is quadratic, right in the limit of small changes elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from paredown.compressors import (
    Calibration,
    CompressedModel,
    LayerSpec,
    Variant,
    calibrate,
    compress,
    trace_anatomy,
)
from paredown.evaluators import MetricError, ReferenceOutputs, Split, divergence_per_sample, run_split
from paredown.evaluators.sensitivity import fisher_table
from paredown.testing import AWKWARD

SPEC = LayerSpec(weight_bits=2)


def _shifted(weight: torch.Tensor, by: torch.Tensor) -> Variant:
    """A variant that changes the weight by so much, whatever its spec says."""
    return Variant(spec=SPEC, effective=weight.detach() + by, tensors={})


def _table(model: nn.Module, inputs: Any, change: dict[str, torch.Tensor], groups: Any = None, **options: Any) -> float:
    split = Split("search", inputs)
    names = groups or [tuple(change)]
    table = fisher_table(
        model, split, [(fqns, [LayerSpec(), SPEC]) for fqns in names],
        lambda fqn, spec: _shifted(model.get_submodule(fqn).weight, change[fqn]), **options,
    )  # fmt: skip
    assert all(row[0] == 0.0 for row in table.values)
    return table.values[0][1]


def test_one_linear_output_is_exact_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 1)).requires_grad_(False)
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
    change = torch.tensor([[0.5, 0.1]])
    # the outputs move by 0.7, 0.1 and 1.4: (0.49 + 0.01 + 1.96) / 3, over a variance of 4
    estimate = _table(model, x, {"0": change}, divergence="mse", variance=4.0, draws=1, batch_size=2)
    assert estimate == pytest.approx(0.82 / 4, rel=1e-5)
    assert not model[0].weight.requires_grad
    assert model.training


def test_single_elements_do_not_cancel_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).requires_grad_(False)
    model[1].weight.fill_(1.0)
    # the two hidden values move by +0.1 x and -0.1 x: together the output stays, one by one each moves it by 0.01 x²
    change = torch.tensor([[0.1], [-0.1]])
    table = fisher_table(
        model, Split("search", torch.tensor([[1.0], [3.0]])), [(("0",), [LayerSpec(), SPEC])],
        lambda fqn, spec: _shifted(model.get_submodule(fqn).weight, change), divergence="mse", draws=1,
    )  # fmt: skip
    assert table.values[0] == pytest.approx((0.0, 0.0), abs=1e-12)
    assert table.elements[0] == pytest.approx((0.0, 2 * 0.01 * (1 + 9) / 2), rel=1e-5)


def test_a_module_that_runs_twice_counts_once_with_both_its_changes() -> None:
    shared = nn.Linear(1, 1, bias=False)
    model = nn.Sequential(shared, shared).requires_grad_(False)
    shared.weight.fill_(3.0)
    x = torch.tensor([[1.0], [2.0]])
    # z = w w x: to first order it moves by 2 w dw x = 0.6 x; mean of 0.36 and 1.44
    assert _table(model, x, {"0": torch.tensor([[0.1]])}, divergence="mse") == pytest.approx(0.9, rel=1e-5)


@pytest.mark.parametrize("divergence", ["kl", "mse"])
@pytest.mark.parametrize("name", ["mlp", "convolutions", "tied_weights", "transformer", "keyword_inputs"])
def test_small_changes_cost_what_it_says(name: str, divergence: str) -> None:
    """Against the divergence itself, with the weights moved a little: many draws, so that chance is a few percent."""
    torch.manual_seed(1)
    model, inputs = AWKWARD[name]()
    model = model.requires_grad_(False)
    anatomy, split = trace_anatomy(model, inputs), Split("search", inputs)
    fqns = anatomy.groups[0]
    size = 1e-2 * float(model.get_submodule(fqns[0]).weight.norm())
    by = torch.randn_like(model.get_submodule(fqns[0]).weight)
    by *= size / by.norm()
    reference = ReferenceOutputs.compute(model, split)
    options = {"divergence": divergence, "variance": reference.variance, "draws": 600}
    if name == "keyword_inputs":  # -inf nowhere, but the outputs are masked, and the answer is in a dict
        options["batch_size"] = 3
    estimate = _table(model, inputs, dict.fromkeys(fqns, by), [fqns], **options)
    resident = CompressedModel(model, anatomy)
    with resident.apply(
        dict.fromkeys(fqns, SPEC), {fqn: _shifted(model.get_submodule(fqn).weight, by) for fqn in fqns}
    ):
        outputs = run_split(model, split)
    true = divergence_per_sample(outputs, reference.outputs, divergence, variance=reference.variance).mean()
    assert estimate == pytest.approx(float(true), rel=0.25)


def test_quantized_activations_count_too() -> None:
    model, inputs = AWKWARD["mlp"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    coarse = Calibration(ranges={fqn: replace(r, high=64 * r.high) for fqn, r in calibration.ranges.items()})
    spec = LayerSpec(activation_bits=8)

    def estimate(calibration: Calibration) -> float:
        table = fisher_table(
            model, Split("search", inputs), [(("2",), [spec])], lambda fqn, spec: pytest.fail("no weight changes"),
            calibration=calibration,
        )  # fmt: skip
        return table.values[0][0]

    assert estimate(coarse) > 100 * estimate(calibration) > 0


def test_same_seed_same_guess_and_nothing_is_left_behind() -> None:
    model, inputs = AWKWARD["convolutions"]()
    anatomy = trace_anatomy(model, inputs)
    layer = anatomy.layers[0]
    variant = compress(model.get_submodule(layer.fqn).weight, SPEC, layer)

    def values(seed: int) -> tuple[tuple[float, ...], ...]:
        groups = [((layer.fqn,), [SPEC])]
        return fisher_table(model, Split("s", inputs), groups, lambda f, s: variant, seed=seed).values

    before = torch.get_rng_state()
    assert values(0) == values(0) != values(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_gradients_is_refused() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).argmax(dim=1).float()[:, None]

    model = Detached().requires_grad_(False)
    change = {"fc": torch.zeros(3, 3)}
    with pytest.raises(RuntimeError, match="does not require grad"):
        _table(model, torch.randn(2, 3), change, divergence="mse")
    with pytest.raises(MetricError, match="has no estimate"):
        _table(model, torch.randn(2, 3), change, divergence="kl")


def test_a_bare_layer_is_a_model_too() -> None:
    model, inputs = AWKWARD["bare_layer"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy.fqns == ("",)
    assert _table(model, inputs, {"": torch.full((3, 5), 0.1)}) > 0
