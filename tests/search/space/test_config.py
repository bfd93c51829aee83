"""A config is written by hand as often as by the search, so what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paredown.compressors import Anatomy, LayerSpec, trace_anatomy
from paredown.errors import ConfigError
from paredown.search.space import assignment_of, config_of, read_config
from paredown.testing import AWKWARD


def _anatomy(name: str) -> Anatomy:
    model, inputs = AWKWARD[name]()
    return trace_anatomy(model, inputs)


ANATOMY = _anatomy("mlp")
FIRST = ANATOMY.fqns[0]


def test_round_trip() -> None:
    assignment = {fqn: LayerSpec() for fqn in ANATOMY.fqns} | {FIRST: LayerSpec(weight_bits=4, activation_bits=8)}
    config = config_of(assignment)
    assert config["layers"][FIRST] == {"weight_bits": 4, "activation_bits": 8}
    assert assignment_of(config, ANATOMY) == assignment


def test_a_config_of_version_1_means_what_it_meant() -> None:
    """There the range of an activation was by least squared error where nothing else was said."""
    layers = {FIRST: {"activation_bits": 8}}
    old, new = (assignment_of({"schema_version": v, "layers": layers}, ANATOMY)[FIRST] for v in (1, 2))
    assert (old.activation_method, new.activation_method) == ("affine", "minmax")
    named = {FIRST: {"activation_bits": 8, "activation_method": "entropy"}}
    assert assignment_of({"schema_version": 1, "layers": named}, ANATOMY)[FIRST].activation_method == "entropy"
    assert assignment_of({"schema_version": 1, "layers": {FIRST: {"weight_bits": 4}}}, ANATOMY)[FIRST] == LayerSpec(
        weight_bits=4
    )


def test_a_layer_that_is_not_named_is_left_alone() -> None:
    assert set(assignment_of({"schema_version": 1, "layers": {}}, ANATOMY).values()) == {LayerSpec()}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"schema_version": 1, "layers": {"conv9": {}}}, "for another model: 1 of its 1 layers"),
        ({"schema_version": 1, "layers": {FIRST + "x": {}}}, f"did you mean '{FIRST}'"),
        ({"schema_version": 1, "layers": {FIRST: {"weight_bits": 99}}}, f"layer {FIRST}: weight_bits must be one of"),
        ({"schema_version": 1, "layers": {FIRST: {"weigth_bits": 4}}}, f"layer {FIRST}: unknown key 'weigth_bits'"),
        ({"schema_version": 1, "layers": {FIRST: 4}}, '"layers" must map'),
        ({"schema_version": 1, "layers": []}, '"layers" must map'),
        ({"schema_version": 3, "layers": {}}, "schema version 3; this paredown reads 1 to 2"),
        ({"schema_version": 1, "layers": {}, "extra": 1}, "unknown key 'extra'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        assignment_of(config, ANATOMY)


def test_a_layer_that_never_runs_is_named_as_such() -> None:
    anatomy = _anatomy("never_runs")
    with pytest.raises(ConfigError, match=f"layer {anatomy.unused[0]} never runs in this model"):
        assignment_of({"schema_version": 1, "layers": {anatomy.unused[0]: {"weight_bits": 4}}}, anatomy)


def test_layers_that_share_a_tensor_must_agree() -> None:
    anatomy = _anatomy("tied_weights")
    group = next(group for group in anatomy.groups if len(group) > 1)
    config = {"schema_version": 1, "layers": {group[0]: {"weight_bits": 4}, group[1]: {"weight_bits": 8}}}
    with pytest.raises(ConfigError, match="share one weight tensor"):
        assignment_of(config, anatomy)


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config"):
        read_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_config(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="must hold an object, got list"):
        read_config(tmp_path / "list.json")
