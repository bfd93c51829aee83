"""Coupled sets that are found, parts that are left alone, and the reasons given."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors.structure import CoupledSet, Member, Trier, confirm, find
from paredown.errors import InputError, MissingExtra, SpecError
from paredown.testing import STRUCTURES


def test_coupled_channels_by_hand() -> None:
    """Conv -> BN -> ReLU -> Conv -> flatten -> Linear: each reader where it must be."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(2 * 4, 3)
    ).eval()
    structure = find(model, torch.randn(2, 3, 6, 6))
    assert [(s.name, s.n_units) for s in structure.sets] == [("channels:0", 4), ("channels:3", 2)]
    members = {(m.tensor, m.axis): (m.offsets, m.width, m.role) for m in structure["channels:0"].members}
    assert members == {
        ("0.weight", 0): ((0,), 1, "makes"),
        ("0.bias", 0): ((0,), 1, "makes"),
        **{(f"1.{leaf}", 0): ((0,), 1, "keeps") for leaf in ("weight", "bias", "running_mean", "running_var")},
        ("3.weight", 1): ((0,), 1, "reads"),
    }
    (flat,) = structure["channels:3"].having("reads")
    assert (flat.tensor, flat.axis, flat.width, flat.positions([1])) == ("5.weight", 1, 4, [4, 5, 6, 7])
    assert "model's output" in structure.left["neurons:5"]


def test_residual_channels_are_one_set() -> None:
    model, inputs = STRUCTURES["residual"]()
    makers = {s.name: {m.tensor for m in s.having("makes")} for s in find(model, inputs).sets}
    assert makers["channels:stem"] == {"stem.weight", "conv2.weight"}
    assert makers["channels:conv4"] == {"conv4.weight", "shortcut.weight"}


def test_a_padded_shortcut_is_left_alone_and_named_and_the_rest_goes_on() -> None:
    model, inputs = STRUCTURES["padded_shortcut"]()
    structure = find(model, inputs)
    assert {s.name for s in structure.sets} == {"channels:conv1", "channels:conv3"}  # within the blocks
    assert any(fqn.endswith("stem") for fqn in structure.left)


def test_concatenation_gives_each_its_own_place() -> None:
    model, inputs = STRUCTURES["dense"]()
    structure = find(model, inputs)
    places = {
        s.name: next(m.offsets for m in s.members if m.tensor == "c.weight" and m.axis == 1) for s in structure.sets[:2]
    }
    assert places == {"channels:a": (0,), "channels:b": (6,)}


def test_groups_lose_the_same_number_each() -> None:
    model, inputs = STRUCTURES["grouped"]()
    structure = find(model, inputs)
    assert structure["channels:a"].n_units == 3
    assert {m.tensor: m.positions([1]) for m in structure["channels:a"].members} == {
        "a.weight": [1, 4, 7, 10], "a.bias": [1, 4, 7, 10], "b.weight": [1],
    }  # fmt: skip


def test_grouped_query_attention_keeps_its_groups_whole() -> None:
    model, inputs = STRUCTURES["grouped_queries"]()
    (heads,) = find(model, inputs).of_kind("heads")
    assert (heads.n_units, heads.unit_width) == (4, 8)  # two query heads of four channels for each key
    assert {m.tensor: m.width for m in heads.members} == {
        "query.weight": 8, "key.weight": 4, "value.weight": 4, "out.weight": 8,
    }  # fmt: skip
    assert {a.name: a.per_unit for a in heads.attributes} == {"n_heads": 2, "n_kv_heads": 1}


@pytest.mark.parametrize(("name", "offsets", "width"), [("packed", (0, 16, 32), 4), ("packed_by_head", (0,), 12)])
def test_packed_projections_are_told_apart_by_trying(name: str, offsets: tuple[int, ...], width: int) -> None:
    model, inputs = STRUCTURES[name]()
    (heads,) = find(model, inputs).of_kind("heads")
    positions = sorted({p for m in heads.members if m.tensor == "qkv.weight" for p in m.positions([1])})
    assert positions == sorted(o + width + k for o in offsets for k in range(width))


def test_the_same_is_found_again() -> None:
    for name in ("encoder", "residual"):
        assert find(*STRUCTURES[name]()) == find(*STRUCTURES[name]())


def test_a_set_goes_to_json_and_back() -> None:
    import json

    for coupled in find(*STRUCTURES["grouped_queries"]()).sets:
        assert CoupledSet.from_dict(json.loads(json.dumps(coupled.to_dict()))) == coupled


class Swapped(nn.Module):
    """Reads its channels in another order than it makes them: nothing in the graph says so."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.c, self.d = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.b(torch.relu(self.a(x)).flip(1)) + self.d(torch.relu(self.c(x)))
        return output


def test_a_coupling_that_does_not_hold_is_left_alone_with_its_reason() -> None:
    structure = find(Swapped().eval(), torch.randn(2, 4))
    assert [s.name for s in structure.sets] == ["neurons:c"]
    assert "masked and removed they differ" in structure.left["neurons:a"]


def test_a_wrong_set_does_not_pass_the_trial() -> None:
    """The broken double: a reader that is one channel off."""
    torch.manual_seed(0)  # with hidden units that are dead for both samples, no cut would show
    model, inputs = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), torch.randn(2, 4)
    made = (Member(tensor="0.weight", axis=0), Member(tensor="0.bias", axis=0))
    right = CoupledSet(
        name="right", kind="neurons", n_units=6, members=(*made, Member(tensor="2.weight", axis=1, role="reads"))
    )
    reader = Member(tensor="2.weight", axis=1, offsets=(1,), role="reads")
    wrong = CoupledSet(name="wrong", kind="neurons", n_units=5, members=(*made, reader))
    kept, left = confirm(Trier(model, inputs), [[wrong], [right]])
    assert [s.name for s in kept] == ["right"]
    assert list(left) == ["wrong"]


def test_an_argument_that_nobody_gives_is_named() -> None:
    model, (tokens, _) = STRUCTURES["decoder"]()
    with pytest.raises(InputError, match=r"missing 1 required positional argument: 'features'.*Give every argument"):
        find(model, tokens)


def test_experts_in_a_list_are_a_set_beside_what_is_inside_of_them() -> None:
    model, inputs = STRUCTURES["experts_dispatched"]()
    structure = find(model, inputs)
    (experts,) = structure.of_kind("experts")
    assert (experts.name, experts.n_units, experts.floor) == ("experts:experts", 6, 2)
    assert (experts.router, experts.listed) == ("router", "experts")
    assert [(m.tensor, m.axis) for m in experts.members] == [("router.weight", 0), ("router.bias", 0)]
    neurons = {s.name for s in structure.of_kind("neurons")}
    unasked = {name for name, why in structure.left.items() if "nothing that the model answers depends" in why}
    assert neurons | unasked == {f"neurons:experts.{i}.0" for i in range(6)}
    assert len(neurons) > 3


def test_experts_that_cannot_be_a_set_are_named() -> None:
    model, inputs = STRUCTURES["experts"]()
    model.experts[3] = model.experts[1]
    assert find(model, inputs, kinds=["experts"]).left == {"experts:experts": "two of its experts are one module"}
    model, inputs = STRUCTURES["experts"]()
    model.again = nn.Linear(8, 6)
    assert (
        "2 modules beside experts could be its router" in find(model, inputs, kinds=["experts"]).left["experts:experts"]
    )


def test_layers_can_be_left_alone() -> None:
    model, inputs = STRUCTURES["residual"]()
    structure = find(model, inputs, leave=["conv3"])
    assert "channels:conv3" not in {s.name for s in structure.sets}
    assert "left alone" in structure.left["channels:conv3"]


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(InputError, match="no kind of structure 'filters'; known are channels, heads"):
        find(*STRUCTURES["residual"](), kinds=["filters"])
    with pytest.raises(SpecError, match="kind"):
        CoupledSet(name="x", kind="filters", n_units=1, members=())


def test_without_torch_pruning_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtra, match=r"pip install 'paredown\[structure\]'"):
        find(*STRUCTURES["residual"]())
    assert find(*STRUCTURES["grouped_queries"](), kinds=["heads"]).sets  # heads need it not
