"""`explain` names the kernels of a point's layers; here on a run whose runtime does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import paredown
from paredown.compressors import LayerSpec, trace_anatomy
from paredown.evaluators import OutputDistance, Split
from paredown.evaluators.runtimes import where_rounded
from paredown.search import Task, open_run
from paredown.search.artifacts import add_kernels, describe_float64_difference, explain_mismatch
from paredown.search.artifacts._parity import Parity
from paredown.search.task import saturates_here
from paredown.testing import AWKWARD


def test_kernels_stand_in_the_rows_and_what_ran_otherwise_is_named(
    tiny_task: Callable[..., Task], tmp_path: Path
) -> None:
    task = tiny_task("budget.trials=1", "space.weight_bits=[8]", "space.activation_bits=[8]")
    paredown.search(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    number = next(n for n, found in run.state.verified.items() if n and found.reason is None)
    rows = run.explain(f"t{number}")
    assert add_kernels(run, f"t{number}", rows) == {}
    assert not any("ran" in row for row in rows)
    first, second = rows[0]["layers"][0], rows[1]["layers"][0]

    def find(*_: Any, **options: Any) -> dict[str, str]:
        return {first: "QLinearConv", second: "FusedConv"}

    assert list(add_kernels(run, f"t{number}", rows, find=find)) == [second]
    assert (rows[0]["ran"], rows[1]["ran"]) == ("QLinearConv", "FusedConv")
    assert add_kernels(run, "t999", rows) == {}  # never verified


def test_why_integers_differ_names_the_kernels_and_where_they_round() -> None:
    torch.manual_seed(0)
    anatomy = trace_anatomy(*AWKWARD["mlp"]())
    first, second, last = anatomy.fqns
    ran = {first: "QGemm", second: "FusedConv", last: "QGemm"}
    assignment = dict.fromkeys(anatomy.fqns, LayerSpec(weight_bits=8, activation_bits=8))
    text = explain_mismatch(ran, anatomy, assignment, "nobody is sure")
    assert text.startswith(f"ran in integers: 2 QGemm ({first}, {last}); biases are int32 in units of")
    assert f"{second} was to run in int8, and ran in FP32 as FusedConv" in text
    assert text.endswith("; nobody is sure")
    assert "VNNI" not in text
    text = explain_mismatch(ran, anatomy, assignment, "nobody is sure", saturates=True)
    assert f"no VNNI, and its integer kernels overflow with weights of 8 bits ({first}, {last}): with 7 they do" in text
    assert not saturates_here("somebodys")
    assert where_rounded(["MatMulIntegerToFloat"]).startswith("sums are exact integers")


def test_the_text_on_float64_is_what_double_precision_changes() -> None:
    model, inputs = AWKWARD["mlp"]()
    split, distance = Split("report", inputs, None), OutputDistance.of_one("kl")
    near = describe_float64_difference(model, split, 2, distance)
    assert near.endswith("the same answer on 100.00 %")

    class Rough(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = model(x.float())
            return output * (x.dtype == torch.float64)

    apart = describe_float64_difference(Rough(), split, 2, distance)
    assert "within 1.0e+00 of those with sums in double" in apart
    assert model(inputs).dtype == torch.float32  # a copy was used

    class Stubborn(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, torch.ones(3, 8))

    assert "does not run this model" in describe_float64_difference(Stubborn(), split, 2, distance)


def test_many_outputs_are_compared_a_few_samples_at_a_time() -> None:
    """The logits of a language model are larger than what is widened to double precision at once."""
    g = torch.Generator().manual_seed(0)
    expected = torch.randn(36, 8, 60_000, generator=g)
    outputs = expected.clone()
    outputs[20, 3, 7] = 40.0
    outputs[35, 0] = outputs[35, 0] * (1 + 1e-6)
    found = Parity.between(outputs, expected)
    size = float(expected.abs().max())
    assert found.max_difference == pytest.approx((40.0 - float(expected[20, 3, 7])) / size)
    assert found.n == 36 * 8
    assert found.n_other == 1
    assert found.same_answer == 287 / 288
    assert found.margin == pytest.approx(float(expected[20, 3].max() - expected[20, 3, 7]) / size)
