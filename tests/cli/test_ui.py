"""`paredown ui`: the right store, loopback only, a clean end. The server is a stand-in; MLflow's own starts slowly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from paredown.cli import _ui, main
from paredown.errors import InputError, ParedownError


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "mlflow.json").write_text(
        json.dumps({"tracking_uri": "sqlite:////runs/mlflow.db", "experiment_id": "1", "run_id": "abc"})
    )
    return tmp_path


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_server_listens_on_loopback_only_at_the_runs_store():
    command = _ui.server_command("sqlite:////runs/mlflow.db", 5005)
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert options == {
        "--backend-store-uri": "sqlite:////runs/mlflow.db",
        "--host": "127.0.0.1",
        "--port": "5005",
        "--workers": "1",
    }


def test_mlflow_knows_these_options():
    done = subprocess.run([sys.executable, "-m", "mlflow", "ui", "--help"], capture_output=True, text=True, check=True)
    for option in _ui.server_command("x", 1)[4::2]:
        assert option in done.stdout


def serve_in_a_process(run_dir, port, server):
    """`paredown ui` in a process of its own, with `server` (code) in place of MLflow's."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        "import sys; from paredown.cli import _ui, main; "
        f"_ui.server_command = lambda uri, port: [sys.executable, '-c', {server!r}, str(port)]; "
        f"sys.exit(main(['ui', {str(run_dir)!r}, '--port', '{port}']))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )


SERVER = (
    "import socket, sys, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); "
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); time.sleep(600)"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prints_the_address_and_ends_cleanly(number, run_dir, free_port):
    process = serve_in_a_process(run_dir, free_port, SERVER)
    assert (
        process.stdout.readline().strip()
        == f"http://127.0.0.1:{free_port}/#/experiments/1/runs/abc?workflowType=machine_learning"
    )
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    for _ in range(100):  # the server is gone, too
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", free_port)):
                return
        time.sleep(0.1)
    pytest.fail("the server still listens")


def test_a_server_that_does_not_start_is_an_error(run_dir, free_port):
    process = serve_in_a_process(run_dir, free_port, "import sys; sys.exit('no such store')")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "no such store" in err
    assert err.splitlines()[-1].startswith("paredown: MLflow's server did not start (exit code 1)")


def test_a_tracking_server_needs_no_other(run_dir, capsys):
    mirror = {"tracking_uri": "http://tracking.example:8080/", "experiment_id": "4", "run_id": "r"}
    (run_dir / "mlflow.json").write_text(json.dumps(mirror))
    assert main(["ui", str(run_dir)]) == 0
    assert (
        capsys.readouterr().out == "http://tracking.example:8080/#/experiments/4/runs/r?workflowType=machine_learning\n"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"tracking_uri": "sqlite:///x"}'])
def test_a_broken_state_is_named(content, run_dir, capsys):
    (run_dir / "mlflow.json").write_text(content)
    assert main(["ui", str(run_dir)]) == 2
    assert "mlflow.json" in capsys.readouterr().err


def test_no_run_and_no_mirror(tmp_path, capsys):
    assert main(["ui", str(tmp_path / "none")]) == 2
    assert "no run at" in capsys.readouterr().err
    assert main(["ui", str(tmp_path)]) == 2
    assert "paredown resume" in capsys.readouterr().err


def test_ports(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            _ui._port(port)
        monkeypatch.setattr(_ui, "PORT", port)
        assert _ui._port(None) not in (0, port)


def test_a_server_that_never_answers(monkeypatch, free_port):
    monkeypatch.setattr(_ui, "PATIENCE_S", 0.5)
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        with pytest.raises(ParedownError, match="did not answer"):
            _ui._wait_until_up(server, free_port)
    finally:
        _ui._stop(server)
    assert server.returncode == -signal.SIGTERM
