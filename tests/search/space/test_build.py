"""The space of a model under a task, and the uniform settings in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import Anatomy, LayerInfo, LayerSpec, methods
from paredown.compressors.registry import REGISTRIES
from paredown.errors import TaskError
from paredown.search import SearchSpace, Task
from paredown.search.space import build_space, check_reachable, estimate_bytes, uniform_settings
from paredown.search.task import resolve_limits

CONV = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 4, 3, 3))
DEEP = LayerInfo(fqn="block.deep", kind="conv2d", weight_shape=(8, 1, 3, 3), groups=8)
FC = LayerInfo(fqn="block.fc", kind="linear", weight_shape=(10, 8))
EMBED = LayerInfo(fqn="embed", kind="embedding", weight_shape=(20, 8), tied_to=("head",))
HEAD = LayerInfo(fqn="head", kind="linear", weight_shape=(20, 8), tied_to=("embed",))
NEUTRAL = LayerSpec()


def anatomy(*layers: LayerInfo, tied: tuple[str, ...] = ()) -> Anatomy:
    groups = [(layer.fqn,) for layer in layers if layer.fqn not in tied]
    return Anatomy(layers=layers, groups=(*groups, *([tied] if tied else [])), unused=("asleep",))


def task(space: dict[str, Any] | None = None, limits: dict[str, Any] | None = None) -> Task:
    return Task.from_dict({"data": {"factory": "a:b"}, "space": space or {}, "limits": limits or {}})


def space_of(*layers: LayerInfo, tied: tuple[str, ...] = (), **space: Any) -> SearchSpace:
    return build_space(task(space), anatomy(*layers, tied=tied))


def labels(space: SearchSpace, name: str) -> list[str]:
    return [level.label() for group in space.groups if group.name == name for level in group.levels]


def refused(*layers: LayerInfo, tied: tuple[str, ...] = (), **space: Any) -> str:
    with pytest.raises(TaskError) as caught:
        space_of(*layers, tied=tied, **space)
    return str(caught.value)


def test_openvino_is_not_asked_to_round_sums() -> None:
    """It would refuse to export them; a layer whose output goes into none is no matter."""
    space = {"weight_bits": [8], "activation_bits": [8], "activation_scope": ["tensor"]}
    on = Task.from_dict({"data": {"factory": "a:b"}, "space": space, "hardware": {"runtime": "openvino"}})
    summed = replace(CONV, residual_output="norm")
    with pytest.raises(TaskError, match="'tensor' rounds what conv gives to a sum, and OpenVINO drops that rounding"):
        build_space(on, anatomy(summed))
    build_space(on.with_overrides(['hardware.runtime="onnxruntime"']), anatomy(summed))
    build_space(on, anatomy(CONV))


def test_products_of_attention_are_offered_where_there_are_some() -> None:
    space = {"weight_bits": [8], "activation_bits": [8, 32], "activation_scope": ["layer", "product"]}
    on = Task.from_dict({"data": {"factory": "a:b"}, "space": space, "hardware": {"runtime": "openvino"}})
    linear = LayerInfo(fqn="q", kind="linear", weight_shape=(8, 8), product="factor", product_in="block")
    found = build_space(on, anatomy(linear, replace(linear, fqn="out", product="", product_in="")))
    assert labels(found, "q") == ["w8", "w8 a8", "w8 a8p"]
    assert labels(found, "out") == ["w8", "w8 a8"]
    with pytest.raises(TaskError, match=r"activation_scope: 'product' fits no layer of this model.*leave it out"):
        build_space(on, anatomy(CONV))


class TestLevels:
    def test_neutral_first_then_from_the_dearest_to_the_cheapest(self) -> None:
        space = space_of(CONV, weight_bits=[4, 32, 8])
        assert labels(space, "conv") == ["fp32", "a8", "w8", "w8 a8", "w4", "w4 a8"]

    def test_without_the_neutral_level_the_dearest_is_first(self) -> None:
        assert labels(space_of(CONV, weight_bits=[4, 8], activation_bits=[8]), "conv") == ["w8 a8", "w4 a8"]

    def test_all_axes_together(self) -> None:
        space = space_of(CONV, weight_bits=[4, 32], activation_bits=[32], sparsity=[0.0, 0.5], rank=[1.0, 0.25])
        # 8 x 36 = 288 weights are 1152 bytes; a quarter of rank 8 is 2, so 2 * (8 + 36) = 88 weights in the factors
        assert labels(space, "conv") == ["fp32", "s50", "r25", "s50 r25", "w4", "w4 s50", "w4 r25", "w4 s50 r25"]

    def test_the_order_follows_given_costs(self) -> None:
        costs = {8: 5, 4: 9, 2: 7}
        space = build_space(
            task({"weight_bits": [8, 4, 2], "activation_bits": [32]}), anatomy(CONV), lambda _, s: costs[s.weight_bits]
        )
        assert labels(space, "conv") == ["w4", "w2", "w8"]

    def test_what_does_not_apply_to_a_layer_is_not_offered_there(self) -> None:
        space = space_of(CONV, DEEP, EMBED, weight_bits=[8], rank=[1.0, 0.25])
        assert labels(space, "conv") == ["w8", "w8 a8", "w8 r25", "w8 a8 r25"]
        assert labels(space, "block.deep") == ["w8", "w8 a8"]
        assert labels(space, "embed") == ["w8"]

    def test_an_axis_of_which_nothing_fits_a_layer_is_neutral_there(self) -> None:
        space = space_of(FC, EMBED, weight_bits=[8], activation_bits=[8])
        assert (labels(space, "block.fc"), labels(space, "embed")) == (["w8 a8"], ["w8"])

    @given(
        st.sets(st.sampled_from([2, 3, 4, 5, 6, 8, 32]), min_size=1),
        st.sets(st.sampled_from([8, 32]), min_size=1),
        st.sets(st.sampled_from([0.0, 0.25, 0.5, 0.9]), min_size=1),
        st.sets(st.sampled_from([1.0, 0.5, 0.125]), min_size=1),
    )
    def test_levels_are_distinct_and_never_get_dearer(
        self, w: set[int], a: set[int], s: set[float], r: set[float]
    ) -> None:
        sections = {"weight_bits": [*w], "activation_bits": [*a], "sparsity": [*s], "rank": [*r]}
        if w == a == {32} and s == {0.0} and r == {1.0}:
            return
        for group in space_of(CONV, **sections).groups:
            assert len(set(group.levels)) == len(group.levels)
            rest = [level for level in group.levels if not level.is_neutral]
            assert not any(level.is_neutral for level in group.levels[1:])
            assert all(estimate_bytes(CONV, one) >= estimate_bytes(CONV, two) for one, two in pairwise(rest))


class TestGroups:
    def test_each_layer_decides_for_itself_in_the_order_in_which_it_runs(self) -> None:
        assert [group.layers for group in space_of(FC, CONV).groups] == [("block.fc",), ("conv",)]

    def test_layers_that_share_a_tensor_decide_together_under_the_first_name(self) -> None:
        space = space_of(EMBED, CONV, HEAD, tied=("head", "embed"), weight_bits=[4, 8])
        assert [(group.name, group.layers) for group in space.groups] == [
            ("embed", ("embed", "head")),
            ("conv", ("conv",)),
        ]
        assert labels(space, "embed") == [
            "w8",
            "w4",
        ]  # the input of an embedding is not quantized, so neither is its partner's

    def test_they_are_left_alone_together(self) -> None:
        space = space_of(EMBED, CONV, HEAD, tied=("embed", "head"), leave=["head"])
        assert [group.name for group in space.groups] == ["conv"]

    def test_overrides_that_leave_them_no_level_in_common(self) -> None:
        message = refused(
            EMBED, HEAD, tied=("embed", "head"), overrides={"embed": {"weight_bits": [4]}, "head": {"weight_bits": [8]}}
        )
        assert "embed, head, which share a tensor, no level in common" in message


class TestGlobs:
    def test_what_is_left_alone_is_no_part_of_the_space(self) -> None:
        assert [group.name for group in space_of(CONV, DEEP, FC, leave=["block.*"]).groups] == ["conv"]

    def test_the_later_override_wins_axis_by_axis(self) -> None:
        space = space_of(
            CONV,
            FC,
            overrides={"*": {"weight_bits": [8], "activation_bits": [32]}, "block.*": {"weight_bits": [2]}},
        )
        assert (labels(space, "conv"), labels(space, "block.fc")) == (["w8"], ["w2"])

    @pytest.mark.parametrize("where", ["leave", "overrides"])
    def test_one_that_matches_nothing_is_refused(self, where: str) -> None:
        def with_glob(glob: str) -> dict[str, Any]:
            return {where: [glob] if where == "leave" else {glob: {"weight_bits": [8]}}}

        assert f"space.{where}: 'convv' matches no layer that can be compressed; did you mean 'conv'?" in refused(
            CONV, **with_glob("convv")
        )
        assert "did you mean 'block.*'?" in refused(DEEP, **with_glob("block"))

    def test_a_layer_that_never_runs_may_be_named(self) -> None:
        assert len(space_of(CONV, leave=["asleep"])) == 1


class TestRefused:
    def test_no_layer_at_all(self) -> None:
        assert "no layer that can be compressed; paredown compresses Linear" in refused()

    def test_nothing_left(self) -> None:
        assert "all 1 layers are left alone" in refused(CONV, leave=["*"])
        assert "leaves nothing to decide" in refused(CONV, weight_bits=[32], activation_bits=[32])

    def test_an_axis_that_fits_no_layer(self) -> None:
        message = refused(DEEP, rank=[0.5])
        assert (
            "space.rank = [0.5] fits no layer of this model: block.deep: low rank needs a convolution of one group"
            in message
        )

    def test_a_default_axis_may_fit_no_layer(self) -> None:
        assert labels(space_of(EMBED, weight_bits=[8, 4]), "embed") == ["w8", "w4"]


class TestUniform:
    def test_each_treatment_once_from_the_dearest_without_the_original(self) -> None:
        space = space_of(CONV, FC, weight_bits=[4, 8, 32])
        found = uniform_settings(space)
        assert [label for label, _ in found] == ["a8", "w8", "w8 a8", "w4", "w4 a8"]
        for label, candidate in found:
            assert {spec.label() for spec in space.assignment(candidate).values()} == {label}

    def test_a_group_without_the_level_takes_the_nearest_dearer_one(self) -> None:
        space = space_of(CONV, FC, EMBED, weight_bits=[2, 4, 8, 32], overrides={"conv": {"weight_bits": [8, 32]}})
        found = {label: space.assignment(candidate) for label, candidate in uniform_settings(space)}
        assert {fqn: spec.label() for fqn, spec in found["w4 a8"].items()} == {
            "conv": "w8 a8",
            "block.fc": "w4 a8",
            "embed": "w4",
        }

    def test_one_that_is_locked_stays_as_it_is(self) -> None:
        space = space_of(
            CONV, FC, weight_bits=[4, 32], overrides={"conv": {"weight_bits": [2], "activation_bits": [8]}}
        )
        assert {space.assignment(c)["conv"].label() for _, c in uniform_settings(space)} == {"w2 a8"}

    def test_of_many_the_plain_ones(self) -> None:
        space = space_of(CONV, weight_bits=[2, 4, 8, 32], sparsity=[0.0, 0.5, 0.75], rank=[1.0, 0.5])
        found = [label for label, _ in uniform_settings(space)]
        assert sorted(found) == sorted(["a8", "w8", "w8 a8", "w4", "w4 a8", "w2", "w2 a8", "s50", "s75", "r50"])

    @given(
        st.sets(st.sampled_from([2, 4, 8, 32]), min_size=1),
        st.sets(st.sampled_from([0.0, 0.5]), min_size=1),
        st.sets(st.sampled_from([2, 8]), min_size=1),
    )
    def test_no_candidate_twice_and_each_within_the_space(self, w: set[int], s: set[float], locked: set[int]) -> None:
        space = space_of(CONV, FC, weight_bits=[*w], sparsity=[*s], overrides={"conv": {"weight_bits": [*locked]}})
        found = uniform_settings(space)
        assert len({candidate for _, candidate in found}) == len(found) > 0
        for _, candidate in found:
            space.check(candidate)
            assert any(not spec.is_neutral for spec in space.assignment(candidate).values())
        assert found == uniform_settings(space)


class TestEstimatedBytes:
    @pytest.mark.parametrize(
        ("spec", "n_bytes"),
        [
            (LayerSpec(), 4 * 80),
            (LayerSpec(weight_bits=8), 80 + 40),
            (LayerSpec(weight_bits=4), 40 + 40),
            (LayerSpec(sparsity=0.5), 10 + 160),
            (
                LayerSpec(weight_bits=2, sparsity=0.25),
                20 + 40,
            ),  # a bitmap of 10 and 15 bytes of values is no gain over 20
            (LayerSpec(rank=0.25), 4 * 2 * (10 + 8)),
        ],
    )
    def test_by_hand(self, spec: LayerSpec, n_bytes: int) -> None:
        assert estimate_bytes(FC, spec) == n_bytes


class TestLimits:
    def test_below_the_least_possible(self) -> None:
        asked = task(limits={"bytes": {"max": 100}})
        with pytest.raises(TaskError, match=r"limits\.bytes: at most 100 is asked for, and the least .* is 150"):
            check_reachable(asked, {"bytes": 150}, {"bytes": 900})
        check_reachable(asked, {"bytes": 100}, {"bytes": 900})

    def test_below_the_least_possible_share(self) -> None:
        with pytest.raises(TaskError, match=r"limits\.bytes: at most 90 is asked for"):
            check_reachable(task(limits={"bytes": {"max_ratio": 0.1}}), {"bytes": 150}, {"bytes": 900})

    def test_above_the_most_possible(self) -> None:
        with pytest.raises(TaskError, match=r"limits\.macs: at least 1000 is asked for"):
            check_reachable(task(limits={"macs": {"min": 1000}}), {"macs": 10}, {"macs": 900})

    def test_relative_ones_become_numbers(self) -> None:
        asked = task(limits={"accuracy": {"max_drop": 0.01, "min": 0.5}, "bytes": {"max_ratio": 0.25, "max": 300}})
        found = resolve_limits(asked, {"accuracy": 0.9, "bytes": 1000}, maximise=True)
        assert found == {"accuracy": (pytest.approx(0.89), None), "bytes": (None, 250)}

    def test_a_drop_of_what_is_minimised_is_a_rise(self) -> None:
        asked = Task.from_dict(
            {
                "data": {"factory": "a:b"},
                "quality": {"metric": "perplexity"},
                "limits": {"perplexity": {"max_drop": 0.5}},
            }
        )
        assert resolve_limits(asked, {"perplexity": 4.0}, maximise=False) == {"perplexity": (None, 4.5)}

    def test_a_drop_and_a_maximum_that_exclude_each_other(self) -> None:
        asked = task(limits={"accuracy": {"max_drop": 0.01, "max": 0.5}})
        with pytest.raises(TaskError, match=r"limits\.accuracy: with the original at 0.9 .* exclude each other"):
            resolve_limits(asked, {"accuracy": 0.9}, maximise=True)


@pytest.fixture
def mine() -> Iterator[None]:
    """A method of each kind named "mine" (never called here)."""
    with ExitStack() as stack:
        for registry in REGISTRIES.values():
            stack.enter_context(registry.temporarily("mine", print))
        yield


@pytest.mark.usefixtures("mine")
class TestMethods:
    def test_each_level_comes_by_each_method_of_its_active_axes(self) -> None:
        space = space_of(CONV, weight_bits=[4, 32], weight_method=["affine", "mine"])
        assert labels(space, "conv") == ["fp32", "a8", "w4", "w4:mine", "w4 a8", "w4:mine a8"]

    def test_the_axes_cross(self) -> None:
        space = space_of(
            CONV, weight_bits=[4], activation_bits=[8], weight_method=["mine", "affine"],
            activation_method=["minmax", "mine"],
        )  # fmt: skip
        assert labels(space, "conv") == ["w4 a8", "w4 a8:mine", "w4:mine a8", "w4:mine a8:mine"]

    def test_of_sparsity_and_rank_too(self) -> None:
        axes = {"weight_bits": [32], "activation_bits": [32], "sparsity": [0.0, 0.5], "rank": [1.0, 0.25]}
        space = space_of(CONV, **axes, sparsity_method=["mine"], rank_method=["svd", "mine"])
        assert labels(space, "conv") == ["fp32", "s50:mine", "r25", "r25:mine", "s50:mine r25", "s50:mine r25:mine"]

    def test_an_override_has_its_own(self) -> None:
        space = space_of(
            CONV, FC, weight_bits=[4], activation_bits=[32], overrides={"conv": {"weight_method": ["mine"]}}
        )
        assert (labels(space, "conv"), labels(space, "block.fc")) == (["w4:mine"], ["w4"])

    def test_each_is_a_uniform_treatment(self) -> None:
        space = space_of(CONV, FC, weight_bits=[4, 8], activation_bits=[32], weight_method=["affine", "mine"])
        found = uniform_settings(space)
        assert [label for label, _ in found] == ["w8", "w8:mine", "w4", "w4:mine"]
        for label, candidate in found:
            assert {spec.label() for spec in space.assignment(candidate).values()} == {label}

    def test_a_layer_without_that_level_takes_the_nearest_by_the_same_method(self) -> None:
        axes = {"weight_bits": [4, 8], "activation_bits": [32], "weight_method": ["affine", "mine"]}
        space = space_of(CONV, FC, **axes, overrides={"conv": {"weight_bits": [8]}})
        assigned = {label: space.assignment(candidate) for label, candidate in uniform_settings(space)}
        assert {fqn: spec.label() for fqn, spec in assigned["w4"].items()} == {"conv": "w8", "block.fc": "w4"}
        assert {fqn: spec.label() for fqn, spec in assigned["w4:mine"].items()} == {
            "conv": "w8:mine",
            "block.fc": "w4:mine",
        }

    @pytest.mark.parametrize("kind", ["weight", "activation", "sparsity", "rank"])
    def test_an_unknown_one_lists_the_known(self, kind: str) -> None:
        message = refused(CONV, **{f"{kind}_method": ["main"]})
        listed = ", ".join(methods(kind))
        assert {getattr(LayerSpec(), f"{kind}_method"), "mine"} <= set(methods(kind))
        known = f"there is no {kind} method 'main'; known are {listed}. One of your own is registered by a file"
        assert message.startswith(f"space.{kind}_method: {known}")
        message = refused(CONV, overrides={"co*": {f"{kind}_method": ["main"]}})
        assert message.startswith(f'space.overrides."co*".{kind}_method: there is no {kind} method')

    def test_one_that_has_nothing_to_do(self) -> None:
        message = refused(CONV, sparsity_method=["mine"])
        assert message.startswith("space.sparsity_method = ['mine'] has nothing to do: no value of space.sparsity")
        space_of(CONV, sparsity_method=["mine"], overrides={"conv": {"sparsity": [0.5]}})

    def test_what_a_task_may_say(self) -> None:
        for value, says in (([], "must name at least one value"), (["a", "a"], "names 'a' twice"), ("a", "list")):
            with pytest.raises(TaskError, match=f"space.weight_method .*{says}"):
                task({"weight_method": value})


def test_the_default_methods_are_those_of_a_spec_but_for_weights() -> None:
    for key in ("activation_method", "sparsity_method", "rank_method"):
        assert getattr(task().space, key) == (getattr(NEUTRAL, key),)
    assert task().space.weight_method == ("auto",)  # a config that names none means "affine"
