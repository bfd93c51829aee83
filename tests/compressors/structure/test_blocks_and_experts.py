"""Blocks that become the identity; experts that are dropped, merged, or asked less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors.structure import (
    Removal,
    busiest,
    expert_evidence,
    find,
    find_blocks,
    find_experts,
    masked,
    merge_experts,
    reloadable,
    removal_of,
    remove,
    score_blocks,
    together,
    weakest_blocks,
)
from paredown.errors import ConfigError, SpecError
from paredown.testing import STRUCTURES


class Block(nn.Module):
    def __init__(self, strength: float, *, pair: bool) -> None:
        super().__init__()
        self.inner, self.strength, self.pair = (
            nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)),
            strength,
            pair,
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, None]:
        x = x + self.strength * self.inner(x)
        return (x, None) if self.pair else x


class Tower(nn.Module):
    def __init__(self, *, pair: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.blocks = nn.ModuleList(Block(s, pair=pair) for s in (1.0, 0.01, 0.3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)[0] if block.pair else block(x)
        output: Tensor = self.head(x)
        return output


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("method", ["change", "divergence"])
def test_the_block_that_does_least_goes_first(pair: bool, method: str) -> None:
    torch.manual_seed(0)
    model, inputs = Tower(pair=pair).eval(), torch.randn(5, 4)
    blocks, left = find_blocks(model, inputs)
    assert [block.fqn for block in blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    assert not left
    scores = score_blocks(model, inputs, blocks, method)
    assert scores.argsort().tolist() == [1, 2, 0]
    removal = Removal(skipped=weakest_blocks(blocks, scores, 2))
    assert removal == Removal.from_dict(removal.to_dict())
    small = remove(model, removal)
    with masked(model, removal), torch.no_grad():
        want = model(inputs)
    torch.testing.assert_close(small(inputs), want)
    assert {name.split(".")[1] for name, _ in small.named_parameters() if name.startswith("blocks")} == {"0"}
    assert "forward" not in vars(model.blocks[1])


def test_blocks_and_channels_go_together() -> None:
    model, inputs = Tower().eval(), torch.randn(5, 4)
    structure = find(model, inputs)
    removal = removal_of(model, structure.sets, {"neurons:blocks.0.inner.0": range(5)}, {"blocks.2": 0})
    with masked(model, removal), torch.no_grad():
        want = model(inputs)
    torch.testing.assert_close(remove(model, removal)(inputs), want)


def test_a_block_that_changes_the_shape_is_named() -> None:
    class Widening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(6, 6)))

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layers(x)
            return output

    blocks, left = find_blocks(Widening().eval(), torch.randn(2, 4))
    assert [block.fqn for block in blocks] == ["layers.1"]
    assert left == {"layers.0": "its output has another shape than its input"}
    with pytest.raises(SpecError, match="of 1 blocks 0 to 0 can be dropped, got 1"):
        weakest_blocks(blocks, torch.zeros(1), 1)


def test_experts_are_dropped_and_fewer_are_asked() -> None:
    model, inputs = STRUCTURES["experts"]()
    (layer,), left = find_experts(model, inputs)
    assert (layer.experts, layer.router, layer.n, layer.top_k, left) == ("experts", "router", 6, 2, {})
    evidence = expert_evidence(model, inputs, layer)
    assert float(evidence.frequency.sum()) == pytest.approx(2.0)  # two are asked for each token
    torch.testing.assert_close(evidence.similarity.diagonal(), torch.ones(6, dtype=torch.float64))
    for kept, top_k in ((busiest(evidence, 3), None), (busiest(evidence, 4), 1), (tuple(range(6)), 1)):
        removal = layer.keep(kept, top_k=top_k)
        assert removal == Removal.from_dict(removal.to_dict())
        small = remove(model, removal)
        with masked(model, removal), torch.no_grad():
            want = model(inputs)
        torch.testing.assert_close(small(inputs), want)
        assert len(small.experts) == len(kept)
    assert model.top_k == 2
    with pytest.raises(SpecError, match="asks 2 experts for each token; of 1 that are kept"):
        layer.keep([0])
    with pytest.raises(SpecError, match=r"has the experts 0\.\.5"):
        layer.keep([0, 9])


class Numbers:
    """A config as Hugging Face's are."""

    def __init__(self, num_experts: int) -> None:
        self.num_experts = num_experts

    def to_dict(self) -> dict[str, int]:
        return {"num_experts": self.num_experts}


class Configured(nn.Module):
    def __init__(self, config: Numbers) -> None:
        super().__init__()
        self.config, self.num_experts, self.top_k = config, config.num_experts, 2
        self.gate, self.head = nn.Linear(8, self.num_experts), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(self.num_experts))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(self.top_k, -1)
        share = torch.zeros_like(self.gate(x)).scatter(-1, chosen, weights)
        mixed = sum(self.experts[i](x).relu() * share[..., i : i + 1] for i in range(self.num_experts))
        output: Tensor = self.head(x + mixed)
        return output


def test_experts_that_are_left_keep_their_names_and_a_config_numbers_them_anew() -> None:
    torch.manual_seed(0)
    model, inputs = Configured(Numbers(6)).eval(), torch.randn(9, 8)
    sets = find(model, inputs).of_kind("experts")
    assert [(s.name, s.attributes[0].name) for s in sets] == [("experts:experts", "num_experts")]
    kept = {"experts:experts": (1, 4, 5)}
    removal = removal_of(model, sets, kept)
    small = remove(model, removal)
    assert {name for name in small.state_dict() if name.endswith("weight")} == {
        "gate.weight", "head.weight", "experts.1.weight", "experts.4.weight", "experts.5.weight",
    }  # fmt: skip
    assert small.experts[0] is small.experts.get_submodule("1")
    assert small.experts[-1] is small.experts.get_submodule("5")
    with pytest.raises(IndexError, match="there are 3 experts, got number 3"):
        small.experts[3]
    again = remove(remove(model, removal_of(model, sets, {"experts:experts": (1, 3, 4, 5)})), Removal(
        tensors={"gate.weight": {0: (0, 2, 3)}, "gate.bias": {0: (0, 2, 3)}}, experts={"experts": (0, 2, 3)},
        attributes={"": {"num_experts": 3}},
    ))  # fmt: skip
    torch.testing.assert_close(again(inputs), small(inputs))
    built = reloadable(small, sets, kept, inputs)
    assert set(built.state_dict()) == set(Configured(Numbers(3)).state_dict())
    torch.testing.assert_close(built(inputs), small(inputs))


def test_like_experts_are_merged_without_a_change() -> None:
    """Two copies of one expert become one module, and nothing else happens."""
    model, inputs = STRUCTURES["experts"]()
    model.experts[3].load_state_dict(model.experts[1].state_dict())
    (layer,), _ = find_experts(model, inputs)
    evidence = expert_evidence(model, inputs, layer)
    merged = merge_experts(model, layer, evidence, 5)
    assert len({id(expert) for expert in merged.experts}) == 5
    rarest = int(evidence.frequency.argmin())
    if rarest in (1, 3):
        torch.testing.assert_close(merged(inputs), model(inputs))
    everything = merge_experts(model, layer, evidence, 6)
    torch.testing.assert_close(everything(inputs), model(inputs))
    assert len({id(expert) for expert in model.experts}) == 6
    with pytest.raises(SpecError, match="1 to 6 can remain, got 0"):
        merge_experts(model, layer, evidence, 0)


def test_experts_of_another_model_are_named() -> None:
    model, inputs = STRUCTURES["experts"]()
    (layer,), _ = find_experts(model, inputs)
    evidence = expert_evidence(model, inputs, layer)
    owner, _, leaf = layer.experts.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Linear(2, 2))
    with pytest.raises(SpecError, match=rf"the experts '{layer.experts}' must be an nn.ModuleList .* got Linear"):
        merge_experts(model, layer, evidence, 2)


def test_removals_that_disagree_are_refused() -> None:
    with pytest.raises(ConfigError, match="different things of blocks"):
        together(Removal(attributes={"blocks": {"n": 1}}), Removal(attributes={"blocks": {"n": 2}}))
    both = together(Removal(skipped={"a": 0}), Removal(skipped={"b": 1}, attributes={"c": {"n": 1}}))
    assert both == Removal(skipped={"a": 0, "b": 1}, attributes={"c": {"n": 1}})


def test_a_removal_of_another_model_is_refused_and_says_so() -> None:
    model, _ = STRUCTURES["residual"]()
    with pytest.raises(ConfigError, match=r"belongs to another model: there is no tensor conv1\.gain"):
        remove(model, Removal(tensors={"conv1.gain": {0: (0,)}}))
    with pytest.raises(ConfigError, match=r"conv1\.weight is of shape \[8, 8, 3, 3\]"):
        remove(model, Removal(tensors={"conv1.weight": {0: (8,)}}))
    with pytest.raises(ConfigError, match="no coupled set 'channels:x'"):
        removal_of(model, [], {"channels:x": [0]})
    for broken in ({"schema_version": "0"}, {"schema_version": "1", "code": 1}, {"schema_version": "1", "tensors": 3}):
        with pytest.raises(ConfigError):
            Removal.from_dict(broken)
