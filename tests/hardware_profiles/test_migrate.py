"""A profile that was written for version 1 means what it meant."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from paredown.hardware_profiles import SCHEMA_VERSION, HardwareProfile, ProfileError, load_profile, migrate

STORED = Path(__file__).parent / "data"
FILES = sorted(STORED.glob("v1-*.json"))


def _stored(name: str = "v1-x86-64-openvino.json") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((STORED / name).read_text())
    return data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_file_of_version_1_loads_and_keeps_every_figure_and_rule(path: Path) -> None:
    data = json.loads(path.read_text())
    assert data["schema_version"] == 1
    profile = load_profile(path)
    assert (profile.schema_version, profile.kind, profile.architecture) == (SCHEMA_VERSION, "cpu", "x86_64")
    for rate, figure in data["rates_gmac_s"].items():
        assert profile.rates_gmac_s[rate].value == profile.rate_gmac_s(rate) == figure["value"]
        assert profile.rates_gmac_s[rate].source == figure["source"]
    assert profile.level_of(1.0) == ("memory", data["bandwidth_gb_s"]["value"])
    assert profile.layer_overhead_us.value == data["layer_overhead_us"]["value"]
    assert [rule.runs_as.kernel for rule in profile.lowering] == [
        rule["runs_as"]["kernel"] for rule in data["lowering"]
    ]
    assert HardwareProfile.from_dict(profile.to_dict()) == profile


def test_there_are_stored_files() -> None:
    assert len(FILES) == 3


def test_the_energy_of_a_byte_becomes_that_of_memory() -> None:
    data = _stored()
    figure = {"value": 20.0, "kind": "modelled", "source": "a test", "date": "2026-01-01"}
    data["energy"] = {"pj_per_mac": {"fp32": figure, "int8": figure}, "pj_per_byte": figure}
    profile = HardwareProfile.from_dict(data)
    assert profile.energy is not None
    assert list(profile.energy.pj_per_byte) == ["memory"]
    assert profile.pj_per_byte("l1") == profile.pj_per_byte("memory") == 20.0


@pytest.mark.parametrize(
    ("isa", "architecture"),
    [
        (["avx2"], "x86_64"),
        (["asimd", "asimddp"], "aarch64"),
        (["neon"], "aarch64"),
        ([], "unknown"),
        (["rvv"], "unknown"),
    ],
)
def test_the_architecture_is_read_off_the_instruction_sets(isa: list[str], architecture: str) -> None:
    assert HardwareProfile.from_dict({**_stored(), "isa": isa}).architecture == architecture


def test_what_is_given_is_left_alone() -> None:
    data = _stored()
    before = copy.deepcopy(data)
    migrated = migrate(data)
    assert data == before
    assert migrate(migrated) == migrated
    assert migrate({"schema_version": 7}) == {"schema_version": 7}


def test_what_was_wrong_in_version_1_is_still_refused() -> None:
    with pytest.raises(ProfileError, match="unknown key 'bandwith_gb_s'"):
        HardwareProfile.from_dict({**_stored(), "bandwith_gb_s": 1})
    with pytest.raises(ProfileError, match="energy"):
        HardwareProfile.from_dict({**_stored(), "energy": {"pj_per_byte": 3}})
    with pytest.raises(ProfileError, match="isa"):
        HardwareProfile.from_dict({**_stored(), "isa": "avx2"})
