"""From arguments to exit codes: what each command prints, where, and how errors look. The search itself is faked."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from paredown.cli import _artifact_commands, _search_commands, main
from paredown.errors import IntegrityError, Interrupted, LimitsNotMet, MissingExtra, ParedownError, TaskError
from paredown.search import Progress
from paredown.testing._fronts import example_front


class FakeRun:
    state = SimpleNamespace(verified={17: SimpleNamespace(agreement="agrees with PyTorch to 1e-06")})

    def __init__(self, path):
        self.path = path

    def front(self, all=False, *, profile=None):
        return dataclasses.replace(example_front(self.path), profile=profile or "")

    def status(self):
        return {
            "run": str(self.path),
            "phase": "stopped",
            "spent_s": 75.0,
            "trials": {"completed": 3, "failed": 7},
            "seconds": {"evaluation": 61.0},
            "notes": [],
            "failures": [{"number": n, "reason": f"divergence is NaN {n}"} for n in range(7)],
        }

    def explain(self, point_id):
        if point_id not in ("t17", "t8"):
            raise TaskError(f"no point {point_id!r}")
        row = {
            "weight_bytes": 1234,
            "bytes_saved": 20000,
            "macs": 332000,
            "sensitivity": 0.0089,
            "weight_error": 0.0352,
        }
        return [
            {
                "group": "conv1",
                "layers": ["conv1", "conv2"],
                "spec": {"weight_bits": 4},
                "label": "w4",
                "runs_as": "x",
                **row,
            }
        ]


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setattr("paredown.search.open_run", FakeRun)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "task.json").write_text("{}")
    return tmp_path / "run"


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "task.toml"
    path.write_text('[model]\nfactory = "m:f"\n[data]\nfactory = "m:d"\n[quality]\nmetric = "accuracy"\n')
    return path


@pytest.fixture
def searched(monkeypatch):
    """Calls of the faked `search` and `resume`; set `.error` to have them raise."""

    class Calls(list):
        error = None

    calls = Calls()

    def fake(first, *, out=None, progress, **options):
        calls.append({"first": first, "out": out, **options})
        progress(Progress(phase="search", done=1, total=2))
        if calls.error is not None:
            raise calls.error
        return example_front(out or first)

    monkeypatch.setattr("paredown.search.search", fake)
    monkeypatch.setattr("paredown.search.resume", fake)
    return calls


# ── help and usage ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [
        "search",
        "resume",
        "status",
        "front",
        "explain",
        "export",
        "apply",
        "resolve",
        "verify",
        "diff",
        "ui",
        "doctor",
        "schema",
    ],
)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert f"paredown {command}" in captured.out
    assert captured.err == ""


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from paredown.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'ray', 'mlflow', 'pydantic', 'optuna', 'matplotlib', 'plotly', 'onnx', 'sklearn'}; "
        "print(*sorted({m.split('.')[0] for m in sys.modules} & heavy), file=sys.stderr)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stderr.strip() == ""
    assert "verify" in done.stdout


def test_without_a_command_the_help_goes_to_stderr(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands" in captured.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serch"], "serch"),
        (["search", "--wrkers", "2"], "--wrkers"),
        (["search", "--trials", "many"], "--trials"),
        (["search", "--workers", "-1"], "--workers"),
        (["export", "run"], "--out"),
        (["schema", "model"], "model"),
        (["explain", "run"], "POINT"),
        (["resolve", "run", "--points", "1"], "--points"),
        (["ui", "run", "--port", "70000"], "65535"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments, named, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("paredown: ")
    assert named in line


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


# ── errors ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskError("no such\n  file: x.toml"), 2),
        (IntegrityError("a.safetensors was changed"), 2),
        (MissingExtra("pip install 'paredown[onnx]'"), 2),
        (ParedownError("the export does not run"), 1),
        (LimitsNotMet("no point meets the limits; the nearest is t3"), 3),
        (Interrupted("stopped; paredown resume x"), 130),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(error, code, searched, run_dir, task_file, capsys):
    searched.error = error
    assert main(["search", str(task_file), "--out", str(run_dir)]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"paredown: {' '.join(str(error).split())}"
    assert not any("Traceback" in line for line in lines)


def test_an_unexpected_error_says_where_its_traceback_is(searched, run_dir, task_file, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    searched.error = ZeroDivisionError("float division by zero")
    assert main(["search", str(task_file), "--out", str(run_dir)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("paredown: unexpected ZeroDivisionError: float division by zero (traceback in ")
    (written,) = tmp_path.glob("paredown-*.log")
    assert str(written) in last
    assert "ZeroDivisionError" in written.read_text()


@pytest.mark.parametrize("how", ["option first", "option last", "environment"])
def test_debug_shows_the_traceback(how, searched, run_dir, task_file, capsys, monkeypatch):
    searched.error = ZeroDivisionError("float division by zero")
    arguments = ["search", str(task_file), "--out", str(run_dir)]
    if how == "environment":
        monkeypatch.setenv("PAREDOWN_DEBUG", "1")
    else:
        arguments = ["--debug", *arguments] if how == "option first" else [*arguments, "--debug"]
    assert main(arguments) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(searched, run_dir, task_file, capsys):
    searched.error = KeyboardInterrupt()
    assert main(["search", str(task_file), "--out", str(run_dir)]) == 130
    assert f"paredown resume {run_dir}" in capsys.readouterr().err


def test_a_printed_command_can_be_pasted(searched, tmp_path, task_file, capsys):
    run = tmp_path / "my  runs #1 50%20?" / "it's :bug: [red]r1"
    run.mkdir(parents=True)
    (run / "task.json").write_text("{}")
    searched.error = KeyboardInterrupt()
    assert main(["search", str(task_file), "--out", str(run)]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert shlex.split(line.partition("to continue: ")[2]) == ["paredown", "resume", str(run)]


def test_the_next_steps_can_be_pasted(capsys, tmp_path):
    run = tmp_path / "my  runs #1 :bug:"
    _search_commands._finish(example_front(run), run, False)
    said = [line.partition(" paredown ")[2] for line in capsys.readouterr().err.splitlines()]
    words = [shlex.split(line) for line in said if line]
    assert words == [
        ["explain", str(run), "knee"],
        ["export", str(run), "--point", "knee", "--format", "onnx", "--out", "DIR"],
        ["ui", str(run)],
    ]


def test_ctrl_c_before_there_is_a_run(searched, tmp_path, task_file, capsys):
    searched.error = KeyboardInterrupt()
    assert main(["search", str(task_file), "--out", str(tmp_path / "new")]) == 130
    assert "resume" not in capsys.readouterr().err


def test_sigterm_is_like_ctrl_c(searched, run_dir, task_file, capsys, monkeypatch):
    def terminated(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("paredown.search.search", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["search", str(task_file), "--out", str(run_dir)]) == 130
    assert f"paredown resume {run_dir}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_elsewhere(run_dir, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("paredown.search.open_run", interrupted)
    assert main(["front", str(run_dir)]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_unmet_limits_show_what_was_reached(as_json, searched, run_dir, task_file, capsys):
    searched.error = LimitsNotMet("no point meets the limits; the nearest is t3")
    assert main(["search", str(task_file), "--out", str(run_dir), *(["--json"] if as_json else [])]) == 3
    captured = capsys.readouterr()
    assert "t17" in captured.out
    if as_json:
        assert json.loads(captured.out)["points"]


# ── search and resume ──────────────────────────────────────────────────────────────────────────


def test_search_hands_everything_on(searched, tmp_path, task_file, capsys):
    out = tmp_path / "new"
    arguments = ["search", str(task_file), "--out", str(out), "--trials", "12", "--budget", "30m", "--workers", "2"]
    arguments += ["--ray-address", "1.2.3.4:6379", "--searcher", "tpe", "--seed", "7", "--mlflow-children", "none"]
    arguments += ["-o", "space.weight_bits=[4, 8]", "-o", "hardware.threads=2", "--json"]
    assert main(arguments) == 0
    (call,) = searched
    task = call["first"]
    assert (task.budget.trials, task.budget.time) == (12, 1800.0)
    assert (task.search.searcher, task.search.seed, task.mlflow.children) == ("tpe", 7, "none")
    assert (list(task.space.weight_bits), task.hardware.threads) == ([4, 8], 2)
    assert (call["out"], call["workers"], call["ray_address"]) == (out, 2, "1.2.3.4:6379")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == example_front(out).to_dict()
    assert "search 1/2" in captured.err


def test_an_override_wins_over_the_option(searched, tmp_path, task_file):
    main(["search", str(task_file), "--out", str(tmp_path / "r"), "--seed", "1", "-o", "search.seed=2"])
    assert searched[0]["first"].search.seed == 2


def test_without_a_task_the_embedded_one_is_searched(searched, tmp_path, capsys):
    assert main(["search", "--out", str(tmp_path / "r")]) == 0
    assert searched[0]["first"].model.factory
    assert "embedded" in capsys.readouterr().err


def test_a_missing_task_is_named(capsys, tmp_path):
    assert main(["search", str(tmp_path / "no.toml")]) == 2
    assert "no.toml" in capsys.readouterr().err


def test_resume_needs_only_the_folder(searched, run_dir, capsys):
    assert main(["resume", str(run_dir)]) == 0
    assert searched[0]["first"] == run_dir
    assert "t17" in capsys.readouterr().out


# ── looking at a run ───────────────────────────────────────────────────────────────────────────


def test_front_for_people(run_dir, capsys):
    assert main(["front", str(run_dir)]) == 0
    captured = capsys.readouterr()
    (knee,) = [line for line in captured.out.splitlines() if " knee" in line]
    for part in ("t17", "mixed", "90.44 % [89.62, 91.25]", "5.90 kB", "7.13×", "0.426 ms", "2.73×", "yes", "★"):
        assert part in knee
    assert "uniform w4 a8" in captured.out
    assert "within noise" in captured.out
    assert "accuracy ≥ 88.00 %" in captured.err


def test_front_is_shown_as_another_device_sees_it(run_dir, capsys):
    assert main(["front", str(run_dir), "--profile", "raspberry-pi-5-onnxruntime"]) == 0
    assert "device: raspberry-pi-5-onnxruntime" in capsys.readouterr().err
    assert main(["front", str(run_dir), "--profile", "raspberry-pi-5-onnxruntime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "raspberry-pi-5-onnxruntime"


def test_front_for_programs(run_dir, capsys):
    assert main(["front", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == example_front(run_dir).to_dict()


def test_no_colour_and_no_wrapping_in_a_pipe(run_dir, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    main(["front", str(run_dir)])
    assert "\x1b" not in capsys.readouterr().out


def test_no_color_is_respected_on_a_terminal(monkeypatch):
    from paredown.cli import _console

    class Terminal:
        encoding = "utf-8"

        def isatty(self):
            return True

        def write(self, text): ...
        def flush(self): ...

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not _console.out().no_color
    monkeypatch.setenv("NO_COLOR", "1")
    assert _console.out().no_color


def test_status(run_dir, capsys):
    assert main(["status", str(run_dir)]) == 0
    captured = capsys.readouterr()
    for part in ("stopped", "1 m 15 s", "1 m 01 s", "divergence is NaN 6", "t17"):
        assert part in captured.out
    assert "divergence is NaN 1" not in captured.out
    assert main(["status", str(run_dir), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["failures"]) == 7


@pytest.mark.parametrize(
    ("point", "point_id"), [("knee", "t17"), ("t17", "t17"), ("accuracy>=0.913,bytes<=9000", "t8")]
)
def test_explain(point, point_id, run_dir, capsys):
    assert main(["explain", str(run_dir), point, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["point"] == point_id
    assert main(["explain", str(run_dir), point]) == 0
    out = capsys.readouterr().out
    for part in ("conv1, conv2", "w4", "1.23 kB", "20.0 kB", "332 k", "0.00890", "0.0352"):
        assert part in out


def test_explain_an_unknown_point(run_dir, capsys):
    assert main(["explain", str(run_dir), "t999"]) == 2
    assert "t999" in capsys.readouterr().err


# ── artifacts ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def agreeing(monkeypatch):
    """Whatever was exported agrees."""
    monkeypatch.setattr(_artifact_commands, "_agreement", lambda path: "agrees with PyTorch to 1e-06")


def test_export_prints_the_path_and_nothing_else(run_dir, tmp_path, capsys, monkeypatch, agreeing):
    calls = []
    monkeypatch.setattr("paredown.search.export_point", lambda *a, entropy: calls.append(a) or tmp_path / "art")
    assert (
        main(["export", str(run_dir), "--point", "smallest", "--format", "onnx", "--out", str(tmp_path / "art")]) == 0
    )
    assert calls == [(run_dir, "smallest", "onnx", tmp_path / "art")]
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'art'}\n"
    assert "agrees with PyTorch to 1e-06\n" in captured.err
    assert f"paredown verify {tmp_path / 'art'} --task {run_dir}\n" in captured.err
    assert main(["export", str(run_dir), "--out", str(tmp_path / "art"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "art"), "point": "knee", "format": "paredown"}


def test_apply(tmp_path, capsys, monkeypatch, agreeing):
    calls = []
    monkeypatch.setattr(
        "paredown.search.apply_config", lambda *a, format, say: calls.append((*a, format)) or tmp_path / "art"
    )
    assert main(["apply", "c.json", "--task", "t.toml", "--out", str(tmp_path / "art")]) == 0
    assert [str(part) for part in calls[0]] == ["c.json", "t.toml", str(tmp_path / "art"), "None"]
    assert capsys.readouterr().out == f"{tmp_path / 'art'}\n"


@pytest.mark.parametrize("holds", [True, False])
def test_verify(holds, tmp_path, capsys, monkeypatch):
    result = {"ok": holds, "checks": [{"name": "accuracy", "ok": holds, "detail": "claimed 0.98, measured 0.97"}]}
    monkeypatch.setattr("paredown.search.verify_artifact", lambda path, task=None: result)
    assert main(["verify", str(tmp_path)]) == (0 if holds else 1)
    captured = capsys.readouterr()
    assert "claimed 0.98, measured 0.97" in captured.out
    assert ("does NOT hold" in captured.err) != holds
    assert main(["verify", str(tmp_path), "--json"]) == (0 if holds else 1)
    assert json.loads(capsys.readouterr().out) == result


@pytest.mark.parametrize("kind", ["task", "config", "profile"])
def test_schema_is_json_schema(kind, capsys):
    assert main(["schema", kind]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["type"] == "object"
    assert schema["properties"]


def test_config_schema_knows_every_field_of_a_spec(capsys):
    from paredown.compressors import LayerSpec

    main(["schema", "config"])
    fields = json.loads(capsys.readouterr().out)["properties"]["layers"]["additionalProperties"]["properties"]
    assert {name: field["default"] for name, field in fields.items()} == {
        name: getattr(LayerSpec(), name) for name in LayerSpec.__dataclass_fields__ if name != "extra"
    }
    assert 4 in fields["weight_bits"]["enum"]
