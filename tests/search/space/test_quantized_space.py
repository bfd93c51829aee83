"""Formats, groups and methods that look at inputs, from a task's [space] to a verified artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.compressors import FORMAT_BITS, Anatomy, LayerInfo, LayerSpec, applicable, trace_anatomy
from paredown.errors import TaskError
from paredown.search import Task, apply_config, search
from paredown.search.artifacts import read_artifact
from paredown.search.space import build_space, estimate_bytes
from paredown.search.task import load_task_data, load_task_model

TINY = Path(__file__).parents[1] / "tiny"
WIDE = LayerInfo(fqn="wide", kind="linear", weight_shape=(16, 200), macs=3200)
SHORT = LayerInfo(fqn="short", kind="conv2d", weight_shape=(8, 3, 3, 3), macs=216)


def task(**space: Any) -> Task:
    data = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"activation_bits": [32], **space},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "quality": {"max_loss": 1.0},
        "budget": {"trials": 4},
        "mlflow": {"enabled": False},
    }
    return Task.from_dict(data, base_dir=TINY)


def levels(layer: LayerInfo, **space: Any) -> list[str]:
    (group,) = build_space(task(**space), Anatomy(layers=(layer,))).groups
    return [spec.label() for spec in group.levels]


class TestLevels:
    def test_each_format_at_the_widths_that_it_has(self) -> None:
        found = levels(WIDE, weight_bits=[3, 4, 32], weight_format=["int", "nf4"])
        assert found[0] == "fp32"
        assert sorted(found) == sorted(["fp32", "w4", "w4-nf4", "w3"])

    def test_methods_formats_and_groups_multiply(self) -> None:
        found = levels(
            WIDE,
            weight_bits=[4],
            weight_method=["affine", "gptq"],
            weight_format=["int", "palette"],
            group_size=[0, 64],
        )
        assert len(found) == len(set(found)) == 8
        assert {"w4", "w4/64:gptq", "w4-palette/64", "w4-palette:gptq"} <= set(found)

    def test_a_group_as_long_as_the_row_is_left_out(self) -> None:
        assert levels(SHORT, weight_bits=[4], group_size=[0, 64]) == ["w4"]
        assert levels(SHORT, weight_bits=[4], group_size=[64]) == ["w4"]

    def test_a_cast_has_one_method_and_no_group(self) -> None:
        found = levels(
            WIDE, weight_bits=[8, 16], weight_format=["int", "fp16"], weight_method=["gptq", "affine"],
            group_size=[0, 64], scale_bits=[16, 32],
        )  # fmt: skip
        assert [label for label in found if "fp16" in label] == ["w16-fp16:gptq"]

    def test_a_method_that_does_not_know_the_format_is_left_out(self) -> None:
        found = levels(WIDE, weight_bits=[4], weight_method=["affine", "hqq"], weight_format=["int", "nf4"])
        assert sorted(found) == sorted(["w4", "w4:hqq", "w4-nf4"])

    def test_a_dynamic_range_has_no_method(self) -> None:
        found = levels(
            WIDE, weight_bits=[8], activation_bits=[8], activation_method=["affine", "minmax"],
            activation_scheme=["affine", "dynamic"],
        )  # fmt: skip
        assert sorted(found) == sorted(["w8 a8", "w8 a8:affine", "w8 a8-dynamic"])

    @settings(max_examples=30)
    @given(
        st.lists(st.sampled_from([2, 3, 4, 8, 32]), min_size=1, unique=True),
        st.lists(st.sampled_from(["int", "int_asym", "palette"]), min_size=1, unique=True),
        st.lists(st.sampled_from([0, 8, 64, "tensor"]), min_size=1, unique=True),
        st.lists(st.sampled_from(["affine", "gptq", "hqq"]), min_size=1, unique=True),
    )
    def test_every_level_can_be_applied_and_is_there_once(
        self, bits: list[int], formats: list[str], groups: list[Any], methods: list[str]
    ) -> None:
        space = {"weight_bits": bits, "weight_format": formats, "group_size": groups, "weight_method": methods}
        for layer in (WIDE, SHORT):
            try:
                (group,) = build_space(task(**space), Anatomy(layers=(layer,))).groups
            except TaskError:  # nothing to decide, or a width that no format has
                continue
            assert len(set(group.levels)) == len(group.levels)
            assert all(applicable(spec, layer) is None for spec in group.levels)
            assert all(spec.weight_bits in (*FORMAT_BITS[spec.weight_format], 32) for spec in group.levels)

    def test_estimates_order_by_what_is_stored(self) -> None:
        plain = estimate_bytes(WIDE, LayerSpec(weight_bits=4))
        assert plain == 16 * 100 + 16 * 4
        assert estimate_bytes(WIDE, LayerSpec(weight_bits=4, group_size=64)) == 16 * 100 + 64 * 4
        half = LayerSpec(weight_bits=4, weight_format="int_asym", scale_bits=16)
        assert estimate_bytes(WIDE, half) == 16 * 100 + 16 * 2 + 8
        assert estimate_bytes(WIDE, LayerSpec(weight_bits=16, weight_format="bf16")) == 16 * 400


class TestRefused:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (
                {"weight_bits": [3, 8], "weight_format": ["nf4"]},
                r"space.weight_format: 'nf4' has 4 bits, and weight_bits",
            ),
            ({"weight_bits": [7], "weight_format": ["palette"]}, r"'palette' has 2, 3, 4, 5, 6 bits"),
            (
                {"weight_bits": [4, 16]},
                r"space.weight_bits: none of the formats int has 16 bits; add one of fp16, bf16",
            ),
        ],
    )
    def test_when_the_space_is_built(self, space: dict[str, Any], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            build_space(task(**space), Anatomy(layers=(WIDE,)))

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"weight_format": ["int7"]}, "weight_format.*must be one of int, int_asym"),
            ({"group_size": [7]}, "group_size.*a number of weights from 8 to 4096"),
            ({"group_size": 64}, r"write group_size = \[64\]"),
            ({"scale_bits": [8]}, "scale_bits must be one of 16 or 32"),
            ({"activation_scheme": ["static"]}, "must be one of affine, symmetric or dynamic"),
            ({"weight_bits": [9]}, "weight_bits must be one of 2, 3"),
        ],
    )
    def test_when_the_task_is_read(self, space: dict[str, Any], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            task(**space)


def test_a_search_with_inputs_moments_ends_in_verified_artifacts(tmp_path: Path) -> None:
    asked = task(
        weight_bits=[3, 4], weight_method=["affine", "gptq"], weight_format=["int", "palette"], scale_bits=[16],
        activation_bits=[6, 32],
    )  # fmt: skip
    front = search(asked, out=tmp_path / "run", workers=0)
    assert all(point.verified for point in front.points), [point.note for point in front.points]
    assert list((tmp_path / "store" / "moments").glob("*.safetensors"))


def test_a_config_by_hand_gets_what_its_layers_need(tmp_path: Path) -> None:
    """The task's own space asks for no inputs' moments and for eight bits only."""
    asked = task(weight_bits=[8, 32])
    anatomy = trace_anatomy(load_task_model(asked).eval(), load_task_data(asked).search.take(1).inputs)
    layers = {anatomy.fqns[0]: {"weight_bits": 3, "weight_method": "gptq", "activation_bits": 4}}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"schema_version": 1, "layers": layers}))
    made = apply_config(config, asked, tmp_path / "made")
    assert read_artifact(made).claims["bytes"].value > 0
