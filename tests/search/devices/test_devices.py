"""Costs on devices: what is modelled and marked, several profiles in one run, devices that are not here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.errors import InputError, ParedownError, TaskError
from paredown.evaluators import Measurement, Split, modelled_energy_mj, modelled_latency_ms
from paredown.hardware_profiles import HardwareProfile, load_profile
from paredown.search import Completed, Front, Run, Task, export_point, open_run, resolve, search, verify_artifact
from paredown.search._search import run_search
from paredown.search.artifacts import capacity, read_artifact
from paredown.search.devices import Device, describe_latency_mismatch, describe_profile_mismatch, is_here, wanted
from paredown.search.phases import verify_points
from paredown.search.run import RunFacts
from paredown.search.task import environment
from paredown.search.values import static_measurements

TINY = Path(__file__).parents[1] / "tiny"
SERVER, PHONE, CHIP = "x86-64-onnxruntime", "arm-cortex-a76-phone", "arm-cortex-m7-cmsis-nn"


def task(**sections: Any) -> Task:
    data = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [2, 4, 8, 32]},
        "quality": {"max_loss": 1.0},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "search": {"table_samples": 32},
        "budget": {"trials": 20},
        "mlflow": {"enabled": False},
        **sections,
    }
    return Task.from_dict(data, base_dir=TINY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, search_unverified: Callable[..., Front]) -> Run:
    """One search for three devices, of which two are not here; not verified."""
    asked = task(
        hardware={"runtime": "torch", "profile": [SERVER, PHONE, CHIP], "batch": 8, "grid_g_per_kwh": 400.0},
        objectives={"names": ["accuracy", "throughput", "bytes"]},
        limits={"energy_mj": {"max_ratio": 1.0}, "memory_bytes": {"max_ratio": 1.0}, "throughput": {"min": 1.0}},
    )
    out = tmp_path_factory.mktemp("devices") / "run"
    search_unverified(asked, out=out, workers=0)
    return open_run(out)


def mixed(run: Run) -> list[Completed]:
    return [t for t in run.trials if isinstance(t, Completed) and t.kind != "original"]


def test_every_trial_has_the_costs_of_every_device(run: Run) -> None:
    assert run.facts().profiles == (SERVER, PHONE, CHIP)
    anatomy = run.facts().anatomy
    assert anatomy is not None
    for trial in mixed(run):
        specs = run.space.assignment(trial.candidate)
        for name, suffix in ((SERVER, ""), (PHONE, f"@{PHONE}"), (CHIP, f"@{CHIP}")):
            profile = load_profile(name)
            latency = modelled_latency_ms(anatomy, specs, profile)
            batched = modelled_latency_ms(anatomy, specs, profile, batch=8)
            energy = modelled_energy_mj(anatomy, specs, profile, batch=8)
            assert trial.metrics[f"latency_ms{suffix}"].value == pytest.approx(latency.total_ms)
            assert trial.metrics[f"ms_per_sample{suffix}"].value == pytest.approx(batched.total_ms / 8)
            assert trial.metrics[f"throughput{suffix}"].value == pytest.approx(batched.throughput)
            assert trial.metrics[f"energy_mj{suffix}"].value == pytest.approx(energy.total_mj)
            assert trial.metrics[f"co2_g_per_million{suffix}"].value == pytest.approx(energy.total_mj / 3600 * 400)


def test_all_of_it_is_marked_as_modelled(run: Run) -> None:
    for point in run.front(all=True).points:
        for name, metric in point.metrics.items():
            quality = name in ("accuracy", "divergence", "bytes", "macs", "bops")
            assert metric.source == ("measured" if quality else "modelled"), name
    data = json.loads((run.path / "front.json").read_text())
    assert data["points"][0]["metrics"]["throughput"]["source"] == "modelled"
    page = (run.path / "front.html").read_text()
    assert "(modelled)" in page


def test_memory_is_that_of_the_whole_candidate(run: Run) -> None:
    original = next(t for t in run.trials if t.kind == "original")
    assert isinstance(original, Completed)
    specs = {t.number: run.space.assignment(t.candidate).values() for t in mixed(run)}
    reduce_space = [
        t for t in mixed(run) if all(s.activation_bits == 8 and s.weight_bits <= 8 for s in specs[t.number])
    ]
    assert reduce_space
    for trial in reduce_space:
        assert trial.metrics["peak_activation_bytes"].value < original.metrics["peak_activation_bytes"].value
        assert trial.metrics[f"memory_bytes@{CHIP}"].value == trial.metrics[f"peak_activation_bytes@{CHIP}"].value
    assert original.metrics["memory_bytes"].value > original.metrics["peak_activation_bytes"].value


def test_the_same_trials_make_a_front_for_each_device(run: Run) -> None:
    here, there = run.front(), run.front(profile=CHIP)
    assert (here.profile, there.profile) == (SERVER, CHIP)
    chip = {f"t{t.number}": t.metrics for t in mixed(run)}
    for point in there.points:
        if point.kind != "original":
            assert point.metrics["latency_ms"].value == pytest.approx(chip[point.id][f"latency_ms@{CHIP}"].value)
            assert point.metrics["accuracy"] == chip[point.id]["accuracy"]
            assert not any("@" in name for name in point.metrics)
    assert there.original.metrics["latency_ms"].value > here.original.metrics["latency_ms"].value
    shares = there.limits["energy_mj"][1], here.limits["energy_mj"][1]
    assert shares[0] == pytest.approx(there.original.metrics["energy_mj"].value)
    assert shares[0] != shares[1]
    assert run.front(profile=SERVER).to_dict() == here.to_dict()


def test_a_front_can_be_asked_for_any_device(run: Run, tmp_path: Path) -> None:
    front = run.front(profile="nvidia-h100-tensorrt")
    assert front.original.metrics["latency_ms"].source == "modelled"
    path = load_profile(PHONE).save(tmp_path / "copied.json")
    assert run.front(profile=path).points == run.front(profile=PHONE).points
    with pytest.raises(InputError, match="no hardware profile is named 'h100'"):
        run.front(profile="h100")


def test_a_run_of_an_older_version_has_a_front_on_another_device_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    there = run.front(profile=PHONE)
    newer = ("schema_version", "profiles", "activations")
    older = {key: value for key, value in run.facts().to_record().items() if key not in newer}
    monkeypatch.setattr(run.state, "facts", RunFacts.from_record(older))
    seen = run.front(profile=PHONE)
    assert seen.original.metrics["latency_ms"] == there.original.metrics["latency_ms"]
    assert "latency_ms" in run.front().original.metrics
    monkeypatch.setattr(run.state, "facts", replace(run.facts(), anatomy=None))
    with pytest.raises(InputError, match="did not keep the model's anatomy"):
        run.front(profile=PHONE)


def test_energy_and_memory_lead_a_search(tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    names = ["accuracy", "energy_mj", "memory_bytes"]
    asked = task(hardware={"runtime": "torch", "profile": PHONE}, objectives={"names": names})
    front = search_unverified(asked, out=tmp_path / "run", workers=0)
    points = [p for p in front.points if p.on_front]
    original = front.original.metrics
    assert any(p.metrics["energy_mj"].value < original["energy_mj"].value for p in points)
    assert any(p.metrics["memory_bytes"].value < original["memory_bytes"].value for p in points)
    lightest = min(p.metrics["memory_bytes"].value for p in points)
    limited = task(
        hardware={"runtime": "torch", "profile": PHONE}, limits={"memory_bytes": {"max": lightest}},
        budget={"trials": 10},
    )  # fmt: skip
    kept = search_unverified(limited, out=tmp_path / "limited", workers=0)
    within = [p.metrics["memory_bytes"].value for p in kept.points if p.on_front]
    assert within
    assert max(within) <= lightest
    with pytest.raises(TaskError, match=r"the least that this space can reach is \d+ .modelled from the profile"):
        search_unverified(task(limits={"peak_activation_bytes": {"max": 1.0}}), out=tmp_path / "none", workers=0)


@pytest.mark.parametrize("first", [CHIP, SERVER])
def test_a_limit_that_one_device_alone_can_keep(
    first: str, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    """Whichever is named first: the search goes on for the one, and says of the other that nothing will do."""
    profiles = [first, SERVER if first == CHIP else CHIP]
    hardware = {"runtime": "torch", "profile": profiles}
    limited = task(hardware=hardware, limits={"latency_ms": {"max": 0.02}}, budget={"trials": 2})
    front = search_unverified(limited, out=tmp_path / "run", workers=0)
    assert front.profile == SERVER
    assert any(point.on_front for point in front.points)
    said = [note for note in open_run(tmp_path / "run").state.notes if note.startswith("no candidate can keep")]
    assert len(said) == 1
    assert f"on {CHIP}: limits.latency_ms: at most 0.02" in said[0]
    assert f"modelled from the profile {CHIP}" in said[0]
    with pytest.raises(TaskError, match=f"modelled from the profile {first}"):
        search_unverified(
            task(hardware=hardware, limits={"latency_ms": {"max": 1e-9}}), out=tmp_path / "none", workers=0
        )


def test_resolve_answers_for_each_of_them(run: Run) -> None:
    original = run.front(profile=CHIP).original.metrics["energy_mj"].value
    found = resolve(run, limits="energy_mj<=60%", profile=CHIP)
    assert found.profile == CHIP
    metrics = found.points[0].metrics
    assert metrics["energy_mj"].value <= 0.6 * original
    assert metrics["memory_bytes"].value == metrics["peak_activation_bytes"].value
    with pytest.raises(
        InputError, match="a limit is on one of bytes, macs, bops, latency_ms, ms_per_sample, energy_mj"
    ):
        resolve(run, limits="watts<=3")


def test_what_a_person_is_told_of_them(run: Run) -> None:
    notes = " ".join(run.state.notes)
    assert f"the device of the profile {PHONE}" in notes
    assert f"the profile {SERVER} is of the runtime onnxruntime, and the task's is torch" in notes


def test_an_exported_config_says_what_was_modelled(run: Run, tmp_path: Path) -> None:
    point = mixed(run)[-1]
    out = export_point(run.path, f"t{point.number}", "config", tmp_path / "config")
    claims = json.loads((out / "config.json").read_text())["claims"]
    assert claims["latency_ms"]["source"] == "modelled"
    assert claims["accuracy"]["source"] == "measured"


def test_for_a_device_that_is_not_here_no_latency_is_measured(tmp_path: Path) -> None:
    asked = task(hardware={"runtime": "torch", "profile": CHIP}, budget={"trials": 2})
    front = search(asked, out=tmp_path / "run", workers=0)
    point = next(p for p in front.points if p.verified and p.kind != "original")
    assert point.metrics["accuracy"].split == "report"  # quality was verified all the same
    assert point.metrics["latency_ms"].source == "modelled"
    assert "speedup" not in point.metrics
    artifact = tmp_path / "run" / "verified" / point.id
    checked = verify_artifact(artifact, task=asked)
    assert checked["ok"]
    assert checked["claims"]["latency_ms"]["source"] == "modelled"
    assert "latency_ms" not in checked["measured"]
    assert [check["name"] for check in checked["checks"]] == [
        "files", "claims", "data", "accuracy", "bytes", "agreement",
    ]  # fmt: skip


def test_energy_is_measured_where_a_counter_can_be_read(tmp_path: Path) -> None:
    """The plugin stands in for a machine that has one; it is imported by the fresh process before anything else."""
    (tmp_path / "counter.py").write_text(
        "import time\nimport paredown.evaluators.energy as energy\n"
        "class Counter:\n    name = 'clock'\n    def read_mj(self):\n        return 1e6 * time.perf_counter()\n"
        "energy.counters_here = lambda: [Counter()]\n"
    )
    limits, plugins = {"energy_mj": {"max_ratio": 1.0}}, [str(tmp_path / "counter.py")]
    hardware = {"runtime": "torch", "latency_seconds": 0.02, "grid_g_per_kwh": 360.0}
    asked = task(limits=limits, plugins=plugins, budget={"trials": 1}, hardware=hardware)
    front = search(asked, out=tmp_path / "run", workers=0)
    measured = front.original.metrics["energy_mj"]
    assert (measured.source, measured.unit) == ("measured", "mJ")
    carbon = front.original.metrics["co2_g_per_million"]  # of the energy that was measured; nobody measured the grid
    assert (carbon.value, carbon.source) == (pytest.approx(measured.value * 0.1), "modelled")
    assert measured.low is not None
    assert carbon.low == pytest.approx(measured.low * 0.1)
    assert front.original.search_metrics["energy_mj"].source == "modelled"
    elsewhere = open_run(tmp_path / "run").front(profile=PHONE).original.metrics
    assert elsewhere["energy_mj"].source == "modelled"  # what this machine draws says nothing of a phone
    assert not any(name.startswith(("latency_p", "speedup", "eager")) for name in elsewhere)


def test_throughput_is_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    hardware = {"runtime": "torch", "latency_seconds": 0.02, "batch": 4, "throughput_p95_ms": 1e4}
    asked = task(hardware=hardware, objectives={"names": ["accuracy", "throughput"]}, budget={"trials": 1})
    front = search(asked, out=tmp_path / "run", workers=0)
    seen = front.original.metrics
    assert (seen["throughput"].source, seen["ms_per_sample"].source) == ("measured", "measured")
    assert seen["throughput"].value == pytest.approx(1000 / seen["ms_per_sample"].value)
    assert seen["ms_per_sample"].low is not None
    assert seen["ms_per_sample"].low <= seen["ms_per_sample"].value
    assert seen["throughput_per_s"].source == "measured"
    assert seen["best_batch"].value in (1, 2, 4, 8, 16, 32, 64)
    assert front.original.search_metrics["throughput"].source == "modelled"
    speedup = seen["speedup"]  # of the original over itself
    assert speedup.low is not None
    assert speedup.high is not None
    assert speedup.low <= speedup.value <= speedup.high
    assert seen["latency_p50_ms"].low is not None
    facts = read_artifact(tmp_path / "run" / "verified" / "t0").machine
    assert {"pid", "threads", "pinned_cores", "numa_nodes", "memory_node", "load", "aa_floor"} <= set(facts)
    assert facts["cores"] == environment()["cores"]  # of the machine, and not those that were pinned
    elsewhere = open_run(tmp_path / "run").front(profile=PHONE).original.metrics
    assert elsewhere["throughput"].source == "modelled"
    assert not {"throughput_per_s", "best_batch"} & set(elsewhere)
    assert "best throughput" in (tmp_path / "run" / "front.html").read_text()
    columns = (tmp_path / "run" / "trials.csv").read_text().splitlines()[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=False)) for line in _lines(tmp_path / "run" / "trials.csv")]
    assert {row["latency_ms_source"] for row in rows} == {row["ms_per_sample_source"] for row in rows} == {"modelled"}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def test_no_batch_within_the_limit_is_no_best_one() -> None:
    class Session:
        def run(self, inputs: torch.Tensor) -> None:
            time.sleep(0.001)

    split = Split("report", torch.zeros(3, 2), None)
    within = capacity(Session(), split, batch=2, p95_limit_ms=None, seconds=0.01)
    assert set(within) == {"throughput_per_s", "best_batch", "throughput", "ms_per_sample"}
    assert within["best_batch"].value == 2  # of 1 and 2: there are no four samples
    none = capacity(Session(), split, batch=64, p95_limit_ms=0.5, seconds=0.01)
    assert none == {}  # and the split has no 64


def test_memory_is_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    hardware = {"runtime": "onnxruntime", "latency_seconds": 0.02}
    limits, space = {"memory_bytes": {"max_ratio": 1.0}}, {"weight_bits": [32], "activation_bits": [8]}
    asked = task(hardware=hardware, limits=limits, space=space, budget={"trials": 1})
    front = search(asked, out=tmp_path / "run", workers=0)
    assert front.original.metrics["peak_memory_bytes"].source == "measured"
    assert front.original.metrics["memory_bytes"].source == "modelled"  # another thing: without the runtime's own
    assert "peak memory" in (tmp_path / "run" / "front.html").read_text()


def test_a_memory_that_cannot_be_measured_costs_no_point(tmp_path: Path) -> None:
    def refuse(*args: Any, **options: Any) -> dict[str, Measurement]:
        raise ParedownError("the system does not say")

    asked = task(limits={"memory_bytes": {"max_ratio": 1.0}}, budget={"trials": 1})
    verify = partial(verify_points, measure_memory=refuse)
    front = run_search(asked, out=tmp_path / "run", workers=0, verify=verify)
    assert front.original.verified
    assert "the system does not say" in open_run(tmp_path / "run").state.notes


def test_carbon_leads_a_search(tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    hardware = {"runtime": "torch", "profile": PHONE, "grid_g_per_kwh": 400.0}
    objectives = {"names": ["accuracy", "co2_g_per_million"]}
    limits = {"co2_g_per_million": {"max_ratio": 1.0}}
    front = search_unverified(
        task(hardware=hardware, objectives=objectives, limits=limits), out=tmp_path / "run", workers=0
    )
    original = front.original.metrics
    assert original["co2_g_per_million"].value == pytest.approx(original["energy_mj"].value / 3600 * 400)
    assert front.limits["co2_g_per_million"][1] == pytest.approx(original["co2_g_per_million"].value)
    assert any(p.metrics["co2_g_per_million"].value < original["co2_g_per_million"].value for p in front.points)
    there = open_run(tmp_path / "run").front(profile=CHIP)
    for point in there.points:
        metrics = point.metrics
        assert metrics["co2_g_per_million"].value == pytest.approx(metrics["energy_mj"].value / 3600 * 400)
        assert metrics["co2_g_per_million"].source == "modelled"


X86 = {"architecture": "x86_64", "instruction_sets": ["avx2"]}


def test_a_profile_that_does_not_fit_the_machine_is_remarked_on() -> None:
    assert describe_profile_mismatch(load_profile("x86-64-avx2-openvino"), "openvino", X86) == []
    (line,) = describe_profile_mismatch(load_profile("x86-64-amx-openvino"), "openvino", X86)
    assert "assumes avx512f, avx512_vnni, amx_int8, amx_bf16, which this CPU does not have" in line
    (line,) = describe_profile_mismatch(load_profile(PHONE), "torch", X86)
    assert "is not here: its latency stays modelled" in line
    assert (
        describe_profile_mismatch(load_profile("x86-64-amx-openvino"), "openvino", {**X86, "instruction_sets": []})
        == []
    )
    assert is_here(load_profile("x86-64-torch"), {**environment(), "architecture": "x86_64"})
    assert not is_here(load_profile("nvidia-h100-tensorrt"), X86)
    mac = {"architecture": "arm64", "instruction_sets": []}
    assert is_here(load_profile(PHONE), mac)
    (line,) = describe_profile_mismatch(load_profile("x86-64-torch"), "torch", mac, by_default=True)
    assert "the default profile x86-64-torch is of x86_64, and this machine is arm64" in line


def test_a_profile_that_was_measured_on_another_cpu_is_remarked_on() -> None:
    data = load_profile("x86-64-avx2-openvino").to_dict()
    measured = HardwareProfile.from_dict({**data, "name": "mine", "isa": ["avx2"], "cpu": "EPYC"})
    here = {**X86, "processor": "EPYC"}
    assert describe_profile_mismatch(measured, "openvino", here) == []
    (line,) = describe_profile_mismatch(measured, "openvino", {**here, "processor": "Xeon"})
    assert "profile mine were measured on another CPU than this: on a EPYC, and this one is a Xeon" in line
    (line,) = describe_profile_mismatch(measured, "openvino", {**here, "instruction_sets": ["avx2", "avx512f"]})
    assert "this one of that name also has avx512f" in line


def test_a_measured_profile_that_does_not_foresee_the_original_is_remarked_on(tmp_path: Path) -> None:
    """Its rates are a thousandth of what any machine reaches."""
    data = load_profile("x86-64-torch").to_dict()
    slow = {key: {**rate, "value": rate["value"] / 1e4} for key, rate in data["rates_gmac_s"].items()}
    here = environment()
    data |= {"name": "liar", "cpu": here["processor"], "isa": here["instruction_sets"], "rates_gmac_s": slow}
    path = HardwareProfile.from_dict(data).save(tmp_path / "liar.json")
    hardware = {"runtime": "torch", "profile": str(path), "latency_seconds": 0.02}
    search(task(hardware=hardware, budget={"trials": 1}), out=tmp_path / "run", workers=0)
    (note,) = [note for note in open_run(tmp_path / "run").state.notes if "the profile liar says" in note]
    assert "either it was not measured on this machine" in note
    said, took = (Measurement(value=x, unit="ms", source=s) for x, s in ((9.0, "modelled"), (1.0, "measured")))
    liar = load_profile(path)
    assert describe_latency_mismatch(liar, said, took) is not None
    assert describe_latency_mismatch(liar, said, replace(took, value=5.0)) is None
    assert describe_latency_mismatch(liar, replace(said, source="predicted"), took) is None
    assert (
        describe_latency_mismatch(load_profile("x86-64-torch"), said, took) is None
    )  # it claims nothing of this machine


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"hardware": {"profile": []}}, "has an empty list of profiles"),
        ({"hardware": {"profile": [PHONE, PHONE]}}, "names a profile twice"),
        ({"hardware": {"batch": 0}}, "batch"),
        ({"hardware": {"grid_g_per_kwh": 0}}, "grid_g_per_kwh"),
        ({"hardware": {"throughput_p95_ms": 0}}, "throughput_p95_ms"),
        ({"limits": {"co2_g_per_million": {"max_ratio": 0.5}}}, "needs hardware.grid_g_per_kwh"),
        ({"limits": {"throughput": {"max_ratio": 2.0}}}, "throughput: takes min"),
        ({"limits": {"throughput": {"min": 0.0}}}, "must be more than zero samples a second"),
        ({"limits": {"throughput": {"min": 5.0}, "ms_per_sample": {"max": 5.0}}}, "are one thing"),
        ({"limits": {"energy_mj": {"max": 0.0}}}, "no model costs nothing"),
        ({"objectives": {"names": ["accuracy", "energy"]}}, "did you mean 'energy_mj'"),
    ],
)
def test_what_cannot_be_asked_for(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task(**sections)


def test_a_throughput_is_a_time_a_sample_inside() -> None:
    limits = task(limits={"throughput": {"min": 500.0}}).cost_limits
    assert (limits["ms_per_sample"].max, limits["ms_per_sample"].min) == (2.0, None)
    assert wanted(task(limits={"throughput": {"min": 500.0}})) == ("latency_ms", "ms_per_sample")
    assert wanted(task()) == ("latency_ms",)
    found = static_measurements({"ms_per_sample": 2.0, "ms_per_sample@x": 4.0}, None)
    assert (found["throughput"].value, found["throughput@x"].value) == (500.0, 250.0)


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    copied = load_profile(PHONE).save(tmp_path / "copied.json")
    with pytest.raises(TaskError, match="two of the profiles are named alike"):
        search(task(hardware={"runtime": "torch", "profile": [PHONE, str(copied)]}), out=tmp_path / "run", workers=0)


def test_energy_without_energies_is_refused_before_anything_is_searched(tmp_path: Path) -> None:
    data = load_profile("x86-64-torch").to_dict()
    del data["energy"]
    (tmp_path / "bare.json").write_text(json.dumps(data | {"name": "bare"}))
    hardware = {"runtime": "torch", "profile": str(tmp_path / "bare.json")}
    with pytest.raises(InputError, match="bare has no energies"):
        search(task(hardware=hardware, limits={"energy_mj": {"max": 1.0}}), out=tmp_path / "run", workers=0)


def test_rows_and_the_whole_agree(run: Run) -> None:
    anatomy, space = run.facts().anatomy, run.space
    assert anatomy is not None
    device = Device(profile=load_profile(PHONE), names=("latency_ms", "energy_mj"), batch=4, threads=2)
    rows = device.rows(anatomy, space)
    for trial in mixed(run)[:5]:
        whole = device.whole(anatomy, space.assignment(trial.candidate))
        for name, values in rows.costs.items():
            summed = rows.fixed[name] + sum(row[i] for row, i in zip(values, trial.candidate.levels, strict=True))
            assert summed == pytest.approx(whole[name])
