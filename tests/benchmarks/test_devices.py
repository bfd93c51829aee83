"""The committed comparison of devices: nothing in it passes for a measurement, and the page quotes it rightly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from paredown.hardware_profiles import list_profiles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "devices.json").read_text())
    return data


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")


def test_all_devices_are_shipped_and_their_costs_modelled(found: dict[str, Any]) -> None:
    assert set(found["devices"]) <= set(list_profiles())
    assert len(found["devices"]) == 7
    for device in found["devices"].values():
        for name, figure in (*device["original"].items(), *device["foreseen"].items()):
            if name in ("latency_ms", "energy_mj", "peak_activation_bytes"):
                assert figure["source"] == "modelled"
        assert device["foreseen"]["accuracy"]["source"] in ("predicted", "measured")  # it may be a trial
        assert device["pick"]["accuracy"]["source"] == "measured"


def test_the_page_quotes_the_gains(found: dict[str, Any], page: str) -> None:
    for name in ("arm-cortex-a76-phone", "arm-cortex-m7-cmsis-nn", "nvidia-h100-tensorrt"):
        assert f"{found['devices'][name]['faster']:.2f} ×" in page


def test_the_page_quotes_the_errors(page: str) -> None:
    errors = json.loads((ROOT / "benchmarks" / "results" / "roofline.json").read_text())
    assert f"The median is {errors['median_error']:.0%}".replace("%", " %") in page
    quoted = [int(text.replace("−", "-")) for text in re.findall(r"([+−]\d+) %", page)]
    assert sorted(quoted) == sorted(round(100 * row["error"]) for row in errors["rows"])
