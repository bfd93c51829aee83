"""Command `paredown ui`: MLflow's own UI on loopback, at the store that a run is mirrored to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .._command import command
from ..errors import InputError, ParedownError
from . import _console as console
from ._signals import terminated_as_interrupted

HOST = "127.0.0.1"
PORT = 5000
PATIENCE_S = 120.0
"""Longest time until the server must answer."""

VIEW = "workflowType=machine_learning"
"""Query that opens MLflow's pages for training; its default is pages for language-model applications."""

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment of the server: no telemetry, and no workers for jobs that paredown does not have."""


def serve(run: Path, port: int | None) -> None:
    """Start the server, print the address of the run's page, and wait until Ctrl-C, SIGTERM or the server's end.

    If the run is mirrored to a tracking server, only the address is printed.
    Raises `InputError` if the run has no mirror or the port is taken, `ParedownError` if the server does not come up.
    """
    mirror = _mirror(run)
    uri = mirror["tracking_uri"]
    page = f"#/experiments/{mirror['experiment_id']}/runs/{mirror['run_id']}?{VIEW}"
    if uri.startswith(("http://", "https://")):
        print(f"{uri.rstrip('/')}/{page}")
        return
    chosen = _port(port)
    server = subprocess.Popen(
        server_command(uri, chosen),
        env={**os.environ, **QUIET},
        stdout=sys.stderr.fileno(),
        stderr=None,
        start_new_session=True,
    )
    try:
        with terminated_as_interrupted():
            _wait_until_up(server, chosen)
            print(f"http://{HOST}:{chosen}/{page}", flush=True)
            console.say("Ctrl-C ends it")
            code = server.wait()
        raise ParedownError(f"MLflow's server ended by itself with exit code {code}; its output is above")
    except KeyboardInterrupt:
        console.say("the UI has ended")
    finally:
        _stop(server)


def server_command(uri: str, port: int) -> list[str]:
    """Make the command of the server. One worker is enough for one person.

    The server refuses requests in the name of another host.
    """
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri,
        "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def _mirror(run: Path) -> dict[str, Any]:
    path = run / "mlflow.json"
    if not run.is_dir():
        raise InputError(f"no run at {run}: expected a folder, as made by `paredown search`")
    if not path.is_file():
        raise InputError(f"{run} is not mirrored to MLflow yet: {path} is missing; `{command('resume', run)}` makes it")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); delete it and run `{command('resume', run)}`") from None
    wanted = ("tracking_uri", "experiment_id", "run_id")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in wanted):
        raise InputError(f"{path} must hold {', '.join(wanted)}; delete it and run `{command('resume', run)}`")
    return data


def _port(wanted: int | None) -> int:
    """Choose a port: the wanted one (an error if it is taken), else `PORT`, else any free one."""
    if wanted is not None:
        if not _free(wanted):
            raise InputError(
                f"port {wanted} of {HOST} is taken; give another with --port, or leave out --port to use a free one"
            )
        return wanted
    if _free(PORT):
        return PORT
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a port in TIME_WAIT is free, a listening one is not
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ParedownError(f"MLflow's server did not start (exit code {server.returncode}); its output is above")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.2)
    raise ParedownError(f"MLflow's server did not answer on {HOST}:{port} within {PATIENCE_S:.0f} s")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and all its children: first with SIGTERM, then with SIGKILL."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, how)
        except ProcessLookupError:
            return  # the whole group is gone
        try:
            server.wait(10.0)
        except subprocess.TimeoutExpired:
            continue
        return
