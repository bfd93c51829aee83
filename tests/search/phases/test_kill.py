"""SIGKILL at random moments: every acknowledged trial stays, none is there twice, and the end is exactly N."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Task, open_run
from paredown.search.run import read

N_TRIALS = 60

_SEARCH = """
import json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
from paredown.search import Task, search
search(Task.from_dict(json.loads(sys.argv[3]), base_dir=sys.argv[2]), out=Path(sys.argv[4]), workers=2)
"""


def _start(task: Task, run: Path, repository: Path) -> subprocess.Popen[bytes]:
    arguments = [str(repository / "src"), str(task.base_dir), json.dumps(task.to_dict()), str(run)]
    with (run.parent / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", _SEARCH, *arguments], stdout=log, stderr=log, env=os.environ)


def _trials(run: Path) -> list[dict[str, Any]]:
    """What the ledger acknowledges, torn end or not."""
    path = run / "ledger.log"
    return [r for r in read(path)[0] if r["type"] == "trial"] if path.exists() else []


def _kill_and_resume(task: Task, run: Path, repository: Path, n_kills: int) -> None:
    rng = random.Random(0)
    acknowledged: list[dict[str, Any]] = []
    progressed = 0
    for n in range(n_kills):
        process = _start(task, run, repository)
        if n % 2:  # at any moment of a sitting: loading, starting Ray, building, evaluating, verifying
            patience, wanted = rng.uniform(0.5, 14.0), N_TRIALS * 2
        else:  # among the trials
            patience, wanted = 120.0, len(acknowledged) + rng.randint(1, 6)
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline and len(_trials(run)) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = _trials(run)
        assert now[: len(acknowledged)] == acknowledged
        progressed += len(now) > len(acknowledged)
        acknowledged = now
    assert progressed > 0
    process = _start(task, run, repository)
    assert process.wait(timeout=280) == 0, (run.parent / "log.txt").read_text()[-2000:]
    final = _trials(run)
    assert final[: len(acknowledged)] == acknowledged
    mixed = [tuple(t["levels"]) for t in final if t["kind"] == "mixed"]
    assert len(mixed) == N_TRIALS
    assert len(set(mixed)) == N_TRIALS
    numbers = [t["number"] for t in final]
    assert sorted(numbers) == list(range(len(numbers)))
    found = open_run(run)
    assert found.state.ended == "done"
    assert found.front().original.verified


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_and_resumed(tiny_task: Callable[..., Task], tmp_path: Path, repository: Path, n_kills: int) -> None:
    task = tiny_task(f"budget.trials={N_TRIALS}", "mlflow.enabled=true")
    _kill_and_resume(task, tmp_path / "run", repository, n_kills)
