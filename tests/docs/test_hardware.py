"""What docs/hardware.md shows works, and it names what there is."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paredown.hardware_profiles import HardwareProfile, Rule, list_profiles, load_profile
from paredown.search import Task

DOCS = Path(__file__).parents[2] / "docs" / "hardware.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_profile_that_it_makes_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, str(DOCS), "exec"), {})
    made = load_profile(tmp_path / "my-board.json")
    assert (made.name, made.rates_gmac_s["int8"].kind) == ("my-board", "measured")


def test_the_rule_is_one() -> None:
    (rule,) = blocks("json")
    assert Rule.model_validate(json.loads(rule)).runs_as.kernel == "QLinearConv"


def test_the_task_is_one() -> None:
    (text,) = blocks("toml")
    task = Task.from_dict({"data": {"factory": "data.py:splits"}, **tomllib.loads(text)})
    assert task.hardware.profile_names == ("arm-cortex-a76-phone",)
    assert task.cost_limits["ms_per_sample"].max == 5.0


def test_every_key_and_every_profile_is_spoken_of() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [key for key in HardwareProfile.model_fields if f"`{key}`" not in text] == []
    listed = text.replace(", `-openvino`", ", `x86-64-avx2-openvino`, `x86-64-amx-openvino`")
    assert [name for name in list_profiles() if f"`{name}`" not in listed] == []


def test_the_kinds_of_the_figures_are_counted_as_they_are() -> None:
    kinds = Counter(kind for name in list_profiles() for kind in _kinds(load_profile(name).model_dump()))
    told = "Of their {} figures {} are `modelled`, {} `datasheet` and {} `paper`"
    counts = (kinds.total(), kinds["modelled"], kinds["datasheet"], kinds["paper"])
    assert told.format(*counts) in DOCS.read_text(encoding="utf-8")


def _kinds(value: Any) -> list[str]:
    if isinstance(value, dict) and {"value", "kind", "source"} <= set(value):
        return [value["kind"]]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [kind for part in parts for kind in _kinds(part)]
