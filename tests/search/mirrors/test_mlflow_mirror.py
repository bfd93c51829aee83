"""The mirror, against a real SQLite store in a temporary folder."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paredown.search.mirrors import MlflowMirror, _mlflow, _mlflow_page, axes_of, children_of
from paredown.search.report import write_report
from paredown.search.run import front_hypervolume
from paredown.testing._fronts import LAYERS, example_front, example_space, example_trials


class FakeTask:
    def to_dict(self):
        return {
            "name": "demo",
            "budget": {"trials": 24, "time": None},
            "space": {"weight_bits": [2, 8], "overrides": {"layer*": {"rank": [0.5]}}},
            "model": {"args": {}, "factory": "model.py:build"},
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store: making its tables takes seconds, so it is done once."""
    root = tmp_path_factory.mktemp("template")
    (root / "run").mkdir()
    MlflowMirror(f"sqlite:///{root}/mlflow.db", "exp", root / "run", "none").sync(
        FakeTask(), example_space(), [], None, timings=dict, final=True
    )
    return root / "mlflow.db"


@pytest.fixture
def runs(tmp_path, template):
    root = tmp_path / "runs"
    (root / "demo").mkdir(parents=True)
    (root / "mlflow.db").write_bytes(template.read_bytes())
    return root


def mirror(runs, children="pareto", experiment="digits"):
    return MlflowMirror(f"sqlite:///{runs}/mlflow.db", experiment, runs / "demo", children)


def sync(mirror, runs, n=None, *, front=True, final=False):
    trials = example_trials()[:n]
    mirror.sync(
        FakeTask(),
        example_space(),
        trials,
        example_front(runs / "demo") if front else None,
        timings=lambda: {"evaluation": 1.5, "start workers": 0.5},
        final=final,
    )


def state(runs):
    return json.loads((runs / "demo" / "mlflow.json").read_text())


def client(runs):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")


def children(runs):
    c, s = client(runs), state(runs)
    found = c.search_runs([s["experiment_id"]], f"tags.`mlflow.parentRunId` = '{s['run_id']}'")
    return {run.data.tags["paredown.point"]: run for run in found}


def test_parent_run_is_the_page_to_read(runs):
    run_dir = runs / "demo"
    write_report(run_dir, example_front(run_dir), example_trials(), space=example_space())
    (run_dir / "task.json").write_text("{}")
    sync(mirror(runs), runs, final=True)
    c, s = client(runs), state(runs)
    run = c.get_run(s["run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "demo")
    assert c.get_experiment(s["experiment_id"]).name == "digits"
    tags = run.data.tags
    assert (tags["pick.knee"], tags["pick.best"]) == ("t17", "t8")
    assert "| t17 | mixed |" in tags["mlflow.note.content"]
    assert run.data.params["budget.trials"] == "24"
    assert run.data.params["model.factory"] == "model.py:build"
    assert run.data.params["space.overrides.layer_.rank"] == "[0.5]"
    assert "budget.time" not in run.data.params
    assert run.data.metrics["pick/knee.bytes"] == example_front(run_dir)["t17"].metrics["bytes"].value
    assert run.data.metrics["seconds/start workers"] == 0.5
    names = {f.path for f in c.list_artifacts(s["run_id"])}
    assert names == {"front.png", "front.html", "trials.csv", "trials.json", "task.json", "environment.json"}
    assert (runs / "mlartifacts" / s["run_id"] / "artifacts" / "front.png").is_file()


def test_hypervolume_has_a_step_for_each_trial_and_only_one(runs):
    m = mirror(runs)
    sync(m, runs, 12)
    sync(m, runs, 12)
    sync(m, runs)
    sync(mirror(runs), runs, final=True)  # another process would do the same
    trials, front = example_trials(), example_front(runs / "demo")
    history = client(runs).get_metric_history(state(runs)["run_id"], "front/hypervolume")
    expected = {
        n: v
        for n in range(1, len(trials) + 1)
        if (v := front_hypervolume(trials[:n], front.objectives, front.limits)) is not None
    }
    assert {m.step: m.value for m in history} == expected
    assert len(history) == len(expected) > 20


def test_children_are_the_front_and_the_baselines_with_the_same_parameter_names(runs):
    sync(mirror(runs), runs, final=True)
    found = children(runs)
    assert set(found) == {p.id for p in example_front(runs / "demo").points}
    names = {frozenset(run.data.params) for run in found.values()}
    assert len(names) == 1
    (one,) = names
    assert {"point", "kind", "mean w", "mean a", *(f"w {fqn}" for fqn in LAYERS)} <= one
    assert found["t4"].data.params["w stem.conv"] == "4"
    assert found["t0"].data.params["w stem.conv"] == "32"
    assert (found["t4"].info.run_name, found["t17"].info.run_name) == ("t4 uniform w4 a8", "t17 mixed knee")
    assert found["t17"].data.metrics["accuracy.low"] < found["t17"].data.metrics["accuracy"]
    assert found["t17"].data.tags["recommended"] == "true"
    run_id = found["t17"].info.run_id
    config = json.loads((runs / "mlartifacts" / run_id / "artifacts" / "config.json").read_text())
    assert config == example_front(runs / "demo")["t17"].config


def test_children_wait_for_the_end_and_are_not_made_twice(runs):
    m = mirror(runs)
    sync(m, runs)
    assert children(runs) == {}
    sync(m, runs, final=True)
    before = {k: v.info.run_id for k, v in children(runs).items()}
    sync(mirror(runs), runs, final=True)
    assert {k: v.info.run_id for k, v in children(runs).items()} == before


def test_no_children_where_none_are_wanted(runs):
    sync(mirror(runs, "none"), runs, final=True)
    assert children(runs) == {}


def test_all_children_come_as_the_trials_do(runs):
    m = mirror(runs, "all")
    sync(m, runs, 12, front=False)
    assert set(children(runs)) == {f"t{n}" for n in range(12)}
    sync(m, runs, final=True)
    found = children(runs)
    assert {f"t{n}" for n in range(31)} <= set(found)
    failed = [run for run in found.values() if run.data.tags["note"] == "divergence is NaN"]
    assert [run.info.status for run in failed] == ["FAILED"]


def test_a_later_verification_reaches_the_child(runs):
    front, space = example_front(runs / "demo"), example_space()
    before = dataclasses.replace(
        front, points=tuple(dataclasses.replace(p, verified=False, recommended=False) for p in front.points)
    )
    for current in (before, front):
        mirror(runs).sync(FakeTask(), space, example_trials(), current, timings=dict, final=True)
    tags = children(runs)["t17"].data.tags
    assert (tags["verified"], tags["recommended"]) == ("true", "true")


@pytest.mark.parametrize("lost", ["state", "store", "torn state", "run"])
def test_what_is_lost_is_made_again_from_everything(runs, template, lost):
    sync(mirror(runs), runs, final=True)
    old = state(runs)["run_id"]
    if lost == "state":
        (runs / "demo" / "mlflow.json").unlink()
    elif lost == "torn state":
        (runs / "demo" / "mlflow.json").write_text('{"schema_ver')
    elif lost == "run":
        client(runs).delete_run(old)
    else:
        other = runs.parent / "other"  # another file: MLflow keeps connections to the old one
        other.mkdir()
        (other / "mlflow.db").write_bytes(template.read_bytes())
        (runs / "demo").rename(other / "demo")
        runs = other
    sync(mirror(runs), runs, final=True)
    assert state(runs)["run_id"] != old
    assert len(client(runs).get_metric_history(state(runs)["run_id"], "front/hypervolume")) > 20
    assert len(children(runs)) == 12


def test_a_resumed_run_is_running_again(runs):
    sync(mirror(runs), runs, 12, final=True)
    sync(mirror(runs), runs, 14)
    assert client(runs).get_run(state(runs)["run_id"]).info.status == "RUNNING"


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_run_that_was_stopped_is_not_finished(runs, status):
    mirror(runs).sync(FakeTask(), example_space(), example_trials(), None, timings=dict, final=True, status=status)
    assert client(runs).get_run(state(runs)["run_id"]).info.status == status


def test_the_parent_run_began_when_the_run_did(runs):
    mirror(runs).sync(FakeTask(), example_space(), [], None, timings=dict, final=True, spent_s=3600.0)
    info = client(runs).get_run(state(runs)["run_id"]).info
    assert 3_600_000 <= info.end_time - info.start_time < 3_700_000


def test_the_picks_come_first_and_without_clutter(runs):
    front = example_front(runs / "demo")
    sync(mirror(runs), runs, final=True)
    run = client(runs).get_run(state(runs)["run_id"])
    note = run.data.tags["mlflow.note.content"].splitlines()
    assert note[1].startswith("- **smallest, fastest** t29: accuracy 0.")
    assert {n for n in run.data.metrics if n.startswith("pick/knee")} == {
        "pick/knee.accuracy", "pick/knee.bytes", "pick/knee.latency_ms"
    }  # fmt: skip
    everything = {**front["t17"].metrics, "latency_p99_ms": front["t17"].metrics["latency_ms"]}
    points = tuple(dataclasses.replace(p, metrics=everything) if p.id == "t17" else p for p in front.points)
    assert "pick/knee.latency_p99_ms" not in {
        name for name, _ in _mlflow._pick_metrics(dataclasses.replace(front, points=points), 1)
    }
    assert _mlflow_page._picks(dataclasses.replace(front, picks={}), []) == ["No mixed point is recommended."]


def test_the_page_says_where_the_time_went(runs):
    seconds = {"evaluation": 40.0, "mirrors": 3.25, "table": 20.0}
    mirror(runs).sync(
        FakeTask(), example_space(), example_trials(), example_front(runs / "demo"), timings=lambda: seconds,
        final=True, spent_s=80.0,
    )  # fmt: skip
    run = client(runs).get_run(state(runs)["run_id"])
    (line,) = [s for s in run.data.tags["mlflow.note.content"].splitlines() if s.startswith("Where the time went")]
    assert all(part in line for part in ("evaluation 40 s", "table 20 s", "mirrors 3.2 s", "other"))
    assert run.data.metrics["seconds/mirrors"] == 3.25


def test_times_are_a_line_that_adds_up():
    seconds = {"ledger": 0.01, "mirrors": 3.25, "evaluation": 40.0, "table": 20.0}
    assert _mlflow_page.times_line(seconds, 80.0) == (
        "Where the time went (80 s): evaluation 40 s (50 %), table 20 s (25 %), mirrors 3.2 s (4 %), other 17 s (21 %)."
    )
    assert _mlflow_page.times_line({}, 80.0) == ""


def test_opened_ahead_it_has_no_run_yet(runs):
    m = mirror(runs)
    m.connect()
    experiment = client(runs).get_experiment_by_name("digits")
    assert client(runs).search_runs([experiment.experiment_id]) == []
    sync(m, runs, 3)
    assert len(client(runs).search_runs([experiment.experiment_id])) == 1


def test_a_child_that_a_kill_cut_short_gets_its_parameters(runs):
    sync(mirror(runs), runs, final=True)
    left = state(runs)
    child = next(iter(left["children"].values()))
    del child["digest"]
    fresh = client(runs).create_run(left["experiment_id"], tags={"mlflow.parentRunId": left["run_id"]})
    child["run_id"] = fresh.info.run_id
    (runs / "demo" / "mlflow.json").write_text(json.dumps(left))
    sync(mirror(runs), runs, final=True)
    found = client(runs).get_run(fresh.info.run_id)
    assert "mean w" in found.data.params
    assert [f.path for f in client(runs).list_artifacts(fresh.info.run_id)] == ["config.json"]


def test_what_is_modelled_says_so_wherever_it_is_shown(runs):
    front = example_front(runs / "demo")
    modelled = dataclasses.replace(front["t17"].metrics["latency_ms"], value=1.2345, source="modelled")
    metrics = {**front["t17"].metrics, "latency_ms": modelled}
    points = tuple(dataclasses.replace(p, metrics=metrics) if p.id == "t17" else p for p in front.points)
    front = dataclasses.replace(front, points=points)
    note = _mlflow_page.note(front, {}, 0.0)
    assert note.count("1.2345 (modelled)") == 2  # as a pick, and in the table
    assert note.count("(modelled)") == 2  # the other points' latencies were measured
    tags = {child.id: child.tags["modelled"] for child in children_of([], example_space(), front, everything=False)}
    assert tags["t17"] == "latency_ms"
    assert tags["t0"] == ""


def test_a_deleted_experiment_is_restored(runs):
    sync(mirror(runs), runs, 12)
    client(runs).delete_experiment(state(runs)["experiment_id"])
    sync(mirror(runs), runs, final=True)
    assert client(runs).get_experiment(state(runs)["experiment_id"]).lifecycle_stage == "active"


def test_the_trial_table_is_one_of_mlflow_and_is_replaced(runs):
    import pandas

    m = mirror(runs)
    sync(m, runs, 12)
    sync(m, runs)
    run_id = state(runs)["run_id"]
    tagged = json.loads(client(runs).get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tagged == [{"path": "trials.json", "type": "table"}]
    stored = runs / "mlartifacts" / run_id / "artifacts" / "trials.json"
    table = pandas.read_json(stored, orient="split")  # as `mlflow.load_table` does
    assert list(table["trial"]) == [f"t{t.number}" for t in example_trials()]


def test_telemetry_is_off_before_mlflow_is_imported(runs):
    """In a process of its own, where nobody imported MLflow before."""
    code = (
        "import os, sys; from pathlib import Path; import test_mlflow_mirror as t; "
        "assert 'mlflow' not in sys.modules; r = Path(sys.argv[1]); t.sync(t.mirror(r), r, 8); "
        "from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off(), os.environ['DO_NOT_TRACK'])"
    )
    drop = ("PYTEST_CURRENT_TEST", "CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    env["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", code, str(runs)], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "true"], done.stderr


def test_two_processes_may_open_a_new_store_at_once(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo2").mkdir()
    code = (
        "import sys; from pathlib import Path; import test_mlflow_mirror as t; r = Path(sys.argv[1]); "
        "t.MlflowMirror(f'sqlite:///{r}/mlflow.db', 'new', r / sys.argv[2], 'none')"
        ".sync(t.FakeTask(), t.example_space(), [], None, timings=dict, final=True)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], env=env, stderr=subprocess.PIPE, text=True)
        for name in ("demo", "demo2")
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    c = client(tmp_path)
    experiment = c.get_experiment_by_name("new")
    assert {run.info.run_name for run in c.search_runs([experiment.experiment_id])} == {"demo", "demo2"}


def test_axes_are_those_that_vary():
    assert axes_of(example_space()) == ["weight_bits", "activation_bits"]


def test_without_a_front_only_all_trials_are_children(tmp_path):
    assert children_of(example_trials(), example_space(), None, everything=False) == []
    assert len(children_of(example_trials(), example_space(), None, everything=True)) == 31
