"""Patterns, scores that look at the data, forms of low rank and plans, from a task's [space] to a verified artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.compressors import Anatomy, LayerInfo, LayerSpec, applicable
from paredown.compressors.lowrank import kept_rank
from paredown.errors import TaskError
from paredown.search import Candidate, Task, search
from paredown.search.space import build_space, estimate_bytes, global_shares, plans, uniform_settings

TINY = Path(__file__).parents[1] / "tiny"
WIDE = LayerInfo(fqn="wide", kind="linear", weight_shape=(16, 32), macs=512)
CONV = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 8, 3, 3), macs=576)
FIRST = LayerInfo(fqn="first", kind="conv2d", weight_shape=(8, 3, 3, 3), macs=216)


def task(**space: Any) -> Task:
    data = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [32], "activation_bits": [32], **space},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "quality": {"max_loss": 1.0},
        "budget": {"trials": 4},
        "mlflow": {"enabled": False},
    }
    return Task.from_dict(data, base_dir=TINY)


def levels(layer: LayerInfo, **space: Any) -> list[str]:
    def weights(fqn: str) -> torch.Tensor:
        return torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(0))

    (group,) = build_space(task(**space), Anatomy(layers=(layer,)), weights=weights).groups
    return [spec.label() for spec in group.levels]


def refused(**space: Any) -> str:
    with pytest.raises(TaskError) as caught:
        levels(WIDE, **space)
    return str(caught.value)


class TestPatterns:
    def test_each_pattern_at_the_shares_that_it_has(self) -> None:
        found = levels(WIDE, sparsity=[0.0, 0.5, 0.75], sparsity_pattern=["", "2:4", "1:4", "4x4"])
        assert set(found) == {"fp32", "s50", "s75", "s50/2:4", "s75/1:4", "s50/4x4", "s75/4x4"}

    def test_scores_patterns_and_mixtures_multiply(self) -> None:
        names = ["magnitude", "wanda", "0.5*wanda+0.5*fisher"]
        found = levels(WIDE, sparsity=[0.0, 0.5], sparsity_pattern=["", "2:4"], sparsity_method=names)
        assert len(found) == 1 + 2 * 3
        assert "s50:0.5*wanda+0.5*fisher/2:4" in found

    def test_a_layer_that_a_pattern_does_not_fit_stays_dense(self) -> None:
        space = {"sparsity": [0.5], "sparsity_pattern": ["2:4"]}
        groups = build_space(task(**{"weight_bits": [4, 8], **space}), Anatomy(layers=(WIDE, FIRST))).groups
        found = {group.name: [spec.label() for spec in group.levels] for group in groups}
        assert found == {"wide": ["w8 s50/2:4", "w4 s50/2:4"], "first": ["w8", "w4"]}

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"sparsity_pattern": ["2:4"]}, "has nothing to do"),
            ({"sparsity": [0.0, 0.75], "sparsity_pattern": ["", "2:4"]}, "'2:4' means a sparsity of 0.5"),
            (
                {"sparsity": [0.0, 0.5, 0.75], "sparsity_pattern": ["2:4"]},
                "none of the patterns 2:4 has a share of 0.75",
            ),
            ({"sparsity": [0.5], "sparsity_pattern": ["2-4"]}, "pattern must be ''"),
            ({"sparsity": [0.5], "sparsity_method": ["wandas"]}, "there is no sparsity method 'wandas'"),
            ({"sparsity": [0.5], "sparsity_method": ["0.5*wandas+fisher"]}, "there is no sparsity method 'wandas'"),
            ({"rank": [0.5], "rank_form": ["cp"]}, "rank_form must be one of"),
            ({"rank_energy": [1.5]}, "share of the energy"),
            ({"rank_number": [0]}, "a rank must be a whole number"),
        ],
    )
    def test_what_cannot_be_is_refused(self, space: dict[str, Any], message: str) -> None:
        assert message in _complaint(space)


def _complaint(space: dict[str, Any]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (a task's error or a spec's, both ours)
        levels(WIDE, **space)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


class TestRanks:
    def test_numbers_and_energies_become_the_layers_own_shares(self) -> None:
        found = levels(WIDE, rank_number=[4, 8, 99], rank_energy=[0.6])
        assert {"r25", "r50"} <= set(found)
        ranks = {kept_rank(float(label[1:]) / 100, WIDE.matrix_shape) for label in found if label != "fp32"}
        assert {4, 8} <= ranks
        assert len(ranks) == 3

    def test_energies_need_the_weights(self) -> None:
        with pytest.raises(TaskError, match="the model is not at hand"):
            build_space(task(rank_energy=[0.9]), Anatomy(layers=(WIDE,)))

    def test_forms_are_offered_where_they_fit(self) -> None:
        forms = ["channel", "input", "spatial", "tucker2", "residual"]
        assert set(levels(CONV, rank=[1.0, 0.25], rank_form=forms)) == {
            "fp32", "r25", "r25-input", "r25-spatial", "r25-tucker2",
        }  # fmt: skip
        assert set(levels(WIDE, rank=[1.0, 0.25], rank_form=forms)) == {"fp32", "r25"}
        assert "w2 r10-residual:asvd" in levels(
            WIDE, weight_bits=[2, 32], rank=[1.0, 0.1], rank_form=["residual"], rank_method=["asvd"]
        )

    def test_estimates_count_every_part(self) -> None:
        assert estimate_bytes(CONV, LayerSpec(rank=0.25, rank_form="tucker2")) == 4 * (8 * 2 + 2 * 18 + 2 * 8)
        assert estimate_bytes(WIDE, LayerSpec(rank=0.125, rank_form="residual", weight_bits=2)) == (
            128 + 4 * 16 + (16 * 2 + 4 * 16) + (2 * 32 + 4 * 2)
        )


class TestPlans:
    def space(self) -> Any:
        small = LayerInfo(fqn="small", kind="linear", weight_shape=(16, 32), macs=512)
        large = LayerInfo(fqn="large", kind="linear", weight_shape=(16, 32), macs=512)
        return build_space(task(sparsity=[0.0, 0.25, 0.5, 0.75]), Anatomy(layers=(small, large)))

    def test_one_threshold_for_all(self) -> None:
        """Weights of one layer are a tenth of the other's: with half of all gone, nearly all of the small are."""
        small, large = torch.linspace(0.01, 0.1, 100), torch.linspace(0.1001, 1.0, 100)
        assert global_shares([small, large], 0.5) == [1.0, 0.0]
        assert global_shares([small, large], 0.25) == [0.5, 0.0]
        assert global_shares([small, large], 0.0) == [0.0, 0.0]

    def test_it_is_a_candidate_beside_the_uniform_settings(self) -> None:
        space = self.space()
        generator = torch.Generator().manual_seed(0)
        weights = {
            "small": torch.rand(16, 32, generator=generator) * 0.3,
            "large": torch.rand(16, 32, generator=generator),
        }
        found = dict(plans(space, weights.__getitem__))
        assert set(found) == {"global s25", "global s50", "global s75"}
        half = [space.groups[g].levels[level].sparsity for g, level in enumerate(found["global s50"])]
        assert half[0] > half[1]
        assert found["global s50"] not in [candidate for _, candidate in uniform_settings(space)]

    def test_one_energy_for_all(self) -> None:
        flat, steep = torch.eye(16, 32), torch.diag(torch.tensor([8.0] + [0.1] * 15)) @ torch.eye(16, 32)
        layers = (
            LayerInfo(fqn="flat", kind="linear", weight_shape=(16, 32), macs=512),
            LayerInfo(fqn="steep", kind="linear", weight_shape=(16, 32), macs=512),
        )
        weights = {"flat": flat, "steep": steep}
        space = build_space(
            task(rank_energy=[0.5], rank_number=[1]), Anatomy(layers=layers), weights=weights.__getitem__
        )
        ((label, candidate),) = plans(space, weights.__getitem__, [0.5])
        assert label == "energy 50"
        ranks = [space.groups[g].levels[level].rank for g, level in enumerate(candidate)]
        assert ranks == [0.5, 1 / 16]

    def test_a_space_without_sparsity_has_none(self) -> None:
        space = build_space(task(weight_bits=[4, 8, 32]), Anatomy(layers=(WIDE,)))
        assert plans(space, lambda fqn: torch.zeros(16, 32)) == []
        assert Candidate(levels=(0,)) not in [candidate for _, candidate in uniform_settings(space)]


def test_a_search_over_all_of_it_ends_in_artifacts(tmp_path: Path) -> None:
    """Gradients and moments are collected and stored, and each point is exported, loaded again and measured."""
    space = {
        "sparsity": [0.0, 0.5],
        "sparsity_method": ["taylor", "refit(wanda)", "sparsegpt"],
        "sparsity_pattern": ["", "row"],
        "rank": [1.0, 0.25],
        "rank_method": ["asvd"],
    }
    front = search(task(**space), out=tmp_path / "run", workers=0)
    assert front.points
    store = next(path for path in (tmp_path / "run", tmp_path).__iter__() if list(path.rglob("gradients")))
    assert list(store.rglob("gradients/*.safetensors"))
    assert list(store.rglob("moments/*.safetensors"))
    facts = [json.loads(line[line.index("{") :]) for line in (tmp_path / "run" / "ledger.log").read_text().splitlines()
             if '"type":"facts"' in line.replace(" ", "")]  # fmt: skip
    if facts:
        assert any("zeros save bytes, no time" in text for row in facts[-1]["runs_as"] for text in row)


def test_every_level_of_the_tiny_model_applies() -> None:
    for layer in (WIDE, CONV, FIRST):
        group = build_space(
            task(weight_bits=[4, 32], sparsity=[0.0, 0.5], sparsity_pattern=["", "2:4", "4x4"], rank=[1.0, 0.2],
                 rank_form=["channel", "tucker2", "residual"]),
            Anatomy(layers=(layer,)),
        ).groups[0]  # fmt: skip
        assert all(applicable(spec, layer) is None for spec in group.levels)
        assert len(set(group.levels)) == len(group.levels)
