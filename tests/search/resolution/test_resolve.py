"""Other limits and other devices, answered from a finished run; the run is a real one of the tiny task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paredown.errors import ConfigError, InputError, LimitsNotMet
from paredown.search import Completed, Front, Run, Task, apply_config, open_run, resolve
from paredown.search.run import Ledger, read
from paredown.search.space import assignment_of

TINY = Path(__file__).parents[1] / "tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, search_unverified: Callable[..., Front]) -> Path:
    data = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [2, 3, 4, 6, 8, 32]},
        "quality": {"max_loss": 1.0},
        "objectives": {"names": ["accuracy", "bytes", "latency_ms"]},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "search": {"table_samples": 64},
        "budget": {"trials": 40},
        "mlflow": {"enabled": False},
    }
    out = tmp_path_factory.mktemp("resolve") / "run"
    search_unverified(Task.from_dict(data, base_dir=TINY), out=out, workers=0)
    return out


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return open_run(folder)


def done(run: Run) -> list[Completed]:
    return [t for t in run.trials if isinstance(t, Completed) and t.kind != "original"]


def bytes_of(run: Run, share: float) -> float:
    """A budget this far between the fewest bytes and the most."""
    costs, fixed = run.facts().costs["bytes"], run.facts().fixed["bytes"]
    low, high = (fixed + sum(pick(row) for row in costs) for pick in (min, max))
    return float(low + share * (high - low))


def copy_without(run: Run, folder: Path, *, key: str | None = None, record: str | None = None) -> Run:
    """The run as an older ledger, without a version and a key of its facts, or without a type of record, has it."""
    folder.mkdir()
    shutil.copy(run.path / "task.json", folder)
    with Ledger(folder / "ledger.log") as ledger:
        for line in read(run.path / "ledger.log")[0]:
            kept = {name: value for name, value in line.items() if name not in (key, "schema_version")}
            if line["type"] != record:
                ledger.append(kept)
    return open_run(folder)


def test_one_limit(run: Run, folder: Path) -> None:
    before = (folder / "ledger.log").read_bytes()
    budget = bytes_of(run, 0.15)
    found = resolve(folder, limits=f"bytes<={budget}")
    ((point,), (best,)) = found.points, found.evaluated
    assert found.minimised == "divergence"
    assert point.metrics["bytes"].value <= budget
    assert point.metrics["divergence"].source == ("measured" if point.evaluated else "predicted")
    assert point.metrics["latency_ms"].source == "modelled"
    assert point.gap <= 1e-4
    assert best is not None
    within = [t for t in done(run) if t.metrics["bytes"].value <= budget]
    assert best.metrics["divergence"].value == min(t.metrics["divergence"].value for t in within)
    assert best.id in {f"t{t.number}" for t in within}
    assert found.trust["divergence"].n == len(done(run))
    assert found.trust["divergence"].rank > 0.8
    # what was evaluated is not far better than the predicted best
    low = point.metrics["divergence"].low
    assert low is not None
    assert low < 1.5 * best.metrics["divergence"].value
    assert (folder / "ledger.log").read_bytes() == before
    json.dumps(found.to_dict(), allow_nan=False)


def planted(run: Run, folder: Path, number: int, **values: float) -> Run:
    """The run, in which one trial has other figures."""
    changed = copy_without(run, folder)
    trials = changed.state.trials
    place = next(i for i, t in enumerate(trials) if t.number == number)
    trial = trials[place]
    assert isinstance(trial, Completed)
    own = {name: replace(trial.metrics[name], value=value, low=None, high=None) for name, value in values.items()}
    trials[place] = replace(trial, metrics={**trial.metrics, **own})
    return changed


def test_the_answer_is_at_least_the_best_trial(run: Run, tmp_path: Path) -> None:
    """A trial may be better than all that the table foresees; the answer is then that trial, and says so."""
    trial = max(done(run), key=lambda t: t.metrics["divergence"].value)  # nothing foresees that this one is good
    lucky = planted(run, tmp_path / "run", trial.number, divergence=1e-9, accuracy=0.9999)
    budget = bytes_of(run, 0.5)
    found = resolve(lucky, limits=f"bytes<={budget}")
    (point,) = found.points
    assert (point.evaluated, point.status) == (f"t{trial.number}", "evaluated")
    assert point.candidate == trial.candidate
    assert point.metrics["divergence"].value == 1e-9
    anatomy = run.facts().anatomy
    assert anatomy is not None
    assert assignment_of(point.config, anatomy) == run.space.assignment(trial.candidate)
    assert f"t{trial.number}" in found.notes[-1]
    sweep = resolve(lucky, sweep="bytes", points=5)
    for one, best in zip(sweep.points, sweep.evaluated, strict=True):
        assert best is None or one.metrics["divergence"].value <= best.metrics["divergence"].value
    reached = resolve(lucky, limits="accuracy>=0.9995")  # nothing is foreseen there
    assert reached.points[0].evaluated == f"t{trial.number}"
    json.dumps(reached.to_dict(), allow_nan=False)


def test_every_limit_is_kept_at_once(run: Run) -> None:
    budget, original = bytes_of(run, 0.3), run.trials[0]
    assert isinstance(original, Completed)
    ms = original.metrics["latency_ms"].value  # nothing is faster than that here
    point = resolve(run, limits=[f"bytes<={budget}", f"latency_ms<={ms},bops<=60%"]).points[0]
    assert point.metrics["bytes"].value <= budget
    assert point.metrics["latency_ms"].value <= ms
    assert point.metrics["bops"].value <= 0.6 * original.metrics["bops"].value


def test_a_limit_on_the_quality_minimises_the_first_free_cost(run: Run) -> None:
    found = resolve(run, limits="divergence<=0.05")
    assert found.minimised == "bytes"
    point, best = found.points[0], found.evaluated[0]
    assert point.metrics["divergence"].value <= 0.05
    assert best is not None
    assert point.metrics["bytes"].value <= 1.1 * best.metrics["bytes"].value
    looser = resolve(run, limits="divergence<=0.5").points[0]
    assert looser.metrics["bytes"].value < point.metrics["bytes"].value
    assert resolve(run, limits=["divergence<=0.05", "bytes<=90%"]).minimised == "latency_ms"
    accuracy = resolve(run, limits="accuracy>=0.8")
    assert accuracy.minimised == "bytes"
    assert accuracy.points[0].metrics["accuracy"].value >= 0.8


def test_a_candidate_that_was_evaluated_is_known_again(run: Run) -> None:
    trial = next(t for t in done(run) if t.kind == "uniform" and t.metrics["bytes"].value == bytes_of(run, 0.0))
    point = resolve(run, limits=f"bytes<={bytes_of(run, 0.0)},bops<={trial.metrics['bops'].value}").points[0]
    assert point.candidate == trial.candidate
    assert point.evaluated == f"t{trial.number}"
    assert {name: m.value for name, m in point.metrics.items()} == {n: m.value for n, m in trial.metrics.items()}
    assert resolve(run, limits="bytes<=1e9").points[0].evaluated == "t0"


def test_limits_out_of_reach_are_named(run: Run) -> None:
    with pytest.raises(LimitsNotMet, match=r"bytes <= 10 is out of reach: the least that this space allows is \d+"):
        resolve(run, limits="bytes<=10")
    with pytest.raises(LimitsNotMet, match=r"accuracy >= 0.999 is out of reach: the prediction is 0\.\d+ at best$"):
        resolve(run, limits="accuracy>=0.999")
    tight = f"divergence<=1e-6,bytes<={bytes_of(run, 0.1)}"
    with pytest.raises(LimitsNotMet, match=r"divergence <= 1e-06 is out of reach: .* at best within the other limits"):
        resolve(run, limits=tight)


def test_a_sweep_is_every_budget(run: Run) -> None:
    found = resolve(run, sweep="bytes", points=9)
    costs = [p.metrics["bytes"].value for p in found.points]
    assert costs == sorted(set(costs))
    assert costs[0] == pytest.approx(bytes_of(run, 0.0))
    assert costs[-1] <= bytes_of(run, 1.0)
    assert 5 <= len(costs) <= 9
    assert found.minimised == "divergence"
    for best in found.evaluated[1:]:
        assert best is not None
    # each point is what its budget alone gives
    middle = costs[len(costs) // 2]
    assert resolve(run, limits=f"bytes<={middle}").points[0].metrics["bytes"].value == middle


def test_a_sweep_keeps_the_other_limits(run: Run) -> None:
    original = run.trials[0]
    assert isinstance(original, Completed)
    found = resolve(run, sweep="bytes", points=5, limits="bops<=50%,divergence<=0.5")
    assert len(found.points) >= 2
    for point in found.points:
        assert point.metrics["bops"].value <= 0.5 * original.metrics["bops"].value
        assert point.metrics["divergence"].value <= 0.5
    with pytest.raises(InputError, match="a sweep is over one of bytes, macs, bops, latency_ms, got 'accuracy'"):
        resolve(run, sweep="accuracy")
    with pytest.raises(InputError, match="a sweep needs at least 2 points, got 1"):
        resolve(run, sweep="bytes", points=1)


def test_another_device(run: Run) -> None:
    same = resolve(run, limits="bytes<=40%", profile=run.facts().profile)
    here, there = (resolve(run, limits="bytes<=40%", **over) for over in ({}, {"profile": "x86-64-openvino"}))
    assert same.to_dict() == {**here.to_dict(), "points": same.to_dict()["points"]}
    assert same.points[0].metrics == here.points[0].metrics
    assert there.profile == "x86-64-openvino" != here.profile
    assert there.points[0].metrics["latency_ms"] != here.points[0].metrics["latency_ms"]
    assert there.points[0].metrics["bytes"] == here.points[0].metrics["bytes"]


def test_costs_on_a_device_are_those_that_a_search_for_it_would_have(run: Run) -> None:
    from paredown.evaluators import modelled_latency_ms
    from paredown.hardware_profiles import load_profile

    profile = load_profile("x86-64-openvino")
    point = resolve(run, limits="bytes<=40%", profile="x86-64-openvino").points[0]
    anatomy = run.facts().anatomy
    assert anatomy is not None
    whole = modelled_latency_ms(anatomy, run.space.assignment(point.candidate), profile)
    assert point.metrics["latency_ms"].value == pytest.approx(whole.total_ms)


def test_the_config_is_one_that_apply_takes(run: Run, tmp_path: Path) -> None:
    point = resolve(run, limits="bytes<=40%").points[0]
    anatomy = run.facts().anatomy
    assert anatomy is not None
    assert assignment_of(point.config, anatomy) == run.space.assignment(point.candidate)
    artifact = apply_config(point.config, run.task, tmp_path / "artifact")
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["claims"]["bytes"]["value"] == point.metrics["bytes"].value
    with pytest.raises(ConfigError):
        assignment_of({**point.config, "layers": {"no.such": {}}}, anatomy)


def test_without_limits_the_runs_own_hold(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the run has no limits of its own: give some"):
        resolve(run)
    limited = copy_without(run, tmp_path / "run")
    limited.state.facts = replace(run.facts(), limits={"bytes": (None, bytes_of(run, 0.2))})
    assert resolve(limited).limits == {"bytes": (None, bytes_of(run, 0.2))}


def test_a_run_of_an_older_paredown_has_no_other_device_until_it_is_resumed(
    run: Run, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    old = copy_without(run, tmp_path / "run", key="anatomy")
    assert resolve(old, limits="bytes<=40%").points
    with pytest.raises(InputError, match=r"did not keep the model's anatomy.*`paredown resume .*` adds it"):
        resolve(old, limits="bytes<=40%", profile="x86-64-openvino")
    search_unverified(old.task, out=old.path, workers=0)
    assert resolve(old.path, limits="bytes<=40%", profile="x86-64-openvino").points


def test_rows_that_were_never_measured_are_estimated_and_said(run: Run, tmp_path: Path) -> None:
    cut = copy_without(run, tmp_path / "run")
    for key in list(cut.state.rows)[::3]:
        del cut.state.rows[key], cut.state.row_facts[key]
    found = resolve(cut, limits="bytes<=40%")
    assert "estimates stand for them" in found.notes[0]
    whole = resolve(run, limits="bytes<=40%").points[0].metrics["divergence"].value
    assert found.points[0].metrics["divergence"].value == pytest.approx(whole, rel=1.0)


def test_a_run_without_a_table_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    bare = copy_without(run, tmp_path / "run", record="row")
    with pytest.raises(InputError, match="has no sensitivity table"):
        resolve(bare, limits="bytes<=40%")


def test_a_quality_that_cannot_be_predicted_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    short = copy_without(run, tmp_path / "run")
    short.state.trials = short.state.trials[:6]
    with pytest.raises(InputError, match="accuracy cannot be predicted from 5 trials; limit the divergence instead"):
        resolve(short, limits="accuracy>=0.5")
    found = resolve(short, sweep="bytes", points=9)
    assert found.trust == {}
    unknown = [point for point in found.points if point.evaluated is None]
    assert len(unknown) >= 3
    assert all(point.metrics["divergence"].low is None for point in unknown)
