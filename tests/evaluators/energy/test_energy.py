"""Energy from a profile, by hand; carbon; and counters, by a folder that looks like the kernel's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paredown.compressors import Anatomy, LayerInfo, LayerSpec
from paredown.errors import InputError
from paredown.evaluators import co2_g_per_million, measure_energy, modelled_energy_mj
from paredown.evaluators.energy import counters_here
from paredown.hardware_profiles import HardwareProfile, load_profile

FC = LayerInfo(fqn="fc", kind="linear", weight_shape=(100, 50), macs=5000, input_shape=(50,), output_shape=(100,))
ANATOMY = Anatomy(layers=(FC,), n_params=5100)


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "kind": "modelled", "source": "a test", "date": "2026-01-01"}


def profile(**changes: Any) -> HardwareProfile:
    runs_as = {"weight_bits": 32, "activation_bits": 32, "low_rank": True, "kernel": "k", "rate": "fp32"}
    return HardwareProfile.from_dict(
        {
            "schema_version": 2, "name": "round", "device": "d", "kind": "cpu", "architecture": "x86_64", "isa": [],
            "cores": 4, "runtime": "r", "rates_gmac_s": {"fp32": figure(1.0)}, "bandwidth_gb_s": figure(10.0),
            "layer_overhead_us": figure(5.0), "lowering": [{"runs_as": runs_as}],
            "energy": {
                "pj_per_mac": {"fp32": figure(100.0)}, "pj_per_byte": {"memory": figure(20.0)}, "idle_w": figure(2.0)
            },
            **changes,
        }
    )  # fmt: skip


def test_energy_by_hand() -> None:
    energy = modelled_energy_mj(ANATOMY, None, profile())
    arithmetic, traffic = 5000 * 100.0, (5000 + 50 + 100) * 4 * 20.0  # pJ
    idle = 2.0 * (0.005 + 0.005)  # W times ms: 5 µs of arithmetic, and 5 µs of overhead
    assert energy.total_mj == pytest.approx((arithmetic + traffic) * 1e-9 + idle)
    measurement = energy.measurement()
    assert (measurement.unit, measurement.source, measurement.low) == ("mJ", "modelled", None)


def test_a_batch_costs_less_for_each_sample() -> None:
    one, many = (modelled_energy_mj(ANATOMY, None, profile(), batch=n).total_mj for n in (1, 32))
    assert many < one


def test_narrower_kernels_take_less() -> None:
    shipped = load_profile("arm-cortex-a76-phone")
    eight = {"fc": LayerSpec(weight_bits=8, activation_bits=8)}
    assert modelled_energy_mj(ANATOMY, eight, shipped).total_mj < modelled_energy_mj(ANATOMY, None, shipped).total_mj


def test_a_profile_without_energies_says_so() -> None:
    with pytest.raises(InputError, match=r"round has no energies, .* give it an `energy` section"):
        modelled_energy_mj(ANATOMY, None, profile(energy=None))


def test_carbon_by_hand() -> None:
    assert co2_g_per_million(3.6, 500.0) == pytest.approx(
        0.5
    )  # 3.6 mJ a million times are 3.6 kJ: a thousandth of a kWh


def _package(root: Path, n: str, name: str, uj: int, span: int = 1000) -> Path:
    folder = root / f"intel-rapl:{n}"
    folder.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", str(uj)), ("max_energy_range_uj", str(span))):
        (folder / file).write_text(text + "\n")
    return folder


def test_packages_are_found_and_their_parts_are_not_counted_again(tmp_path: Path) -> None:
    _package(tmp_path, "0", "package-0", 500)
    _package(tmp_path, "0:0", "core", 300)
    _package(tmp_path, "1", "package-1", 100)
    _package(tmp_path, "2", "psys", 900)
    counters = counters_here(root=tmp_path)
    assert [counter.name for counter in counters] == ["RAPL package-0", "RAPL package-1"]
    assert [counter.read_mj() for counter in counters] == [0.5, 0.1]


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    folder = _package(tmp_path, "0", "package-0", 900)
    (counter,) = counters_here(root=tmp_path)
    before = counter.read_mj()
    (folder / "energy_uj").write_text("50")
    assert counter.read_mj() - before == pytest.approx(0.150)


@pytest.mark.parametrize("broken", ["energy_uj", "name"])
def test_a_counter_that_cannot_be_read_is_none(tmp_path: Path, broken: str) -> None:
    (_package(tmp_path, "0", "package-0", 1) / broken).unlink()
    assert counters_here(root=tmp_path) == []
    assert counters_here(root=tmp_path / "nowhere") == []


class Ticking:
    """3 mJ a call of `work`."""

    name = "ticking"

    def __init__(self) -> None:
        self.calls = 0

    def work(self) -> None:
        self.calls += 1

    def read_mj(self) -> float:
        return 3.0 * self.calls


def test_what_is_measured_is_for_one_sample() -> None:
    ticking = Ticking()
    found = measure_energy(ticking.work, [ticking], seconds=0.0, blocks=4, batch=2)
    assert (found.value, found.low, found.high, found.source, found.n) == (1.5, 1.5, 1.5, "measured", 4)
    assert ticking.calls == 5  # one to warm up, and one in each block
    assert measure_energy(ticking.work, [ticking, ticking], seconds=0.0, blocks=2).value == 6.0


def test_without_a_counter_nothing_is_made_up() -> None:
    with pytest.raises(InputError, match=r"no energy counter can be read here .* modelled"):
        measure_energy(lambda: None, [])
    with pytest.raises(InputError, match="blocks must be 2 or more"):
        measure_energy(lambda: None, [Ticking()], blocks=1)
