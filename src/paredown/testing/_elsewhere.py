"""Other process of the contract suite: a searcher runs there and prints its asks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from ..search import Candidate, SearchContext, Searcher
from ._problems import SyntheticProblem

SearcherFactory: TypeAlias = Callable[[SearchContext], Searcher]


class ContractViolation(AssertionError):
    """A searcher broke a clause; the message begins with the clause's name."""


def play(searcher: Searcher, problem: SyntheticProblem, n: int, *, start: int = 0) -> list[Candidate]:
    """Run a searcher, asking and telling one by one."""
    asked: list[Candidate] = []
    for i in range(n):
        for candidate in searcher.ask(1):
            asked.append(candidate)
            searcher.tell([problem.trial(start + i, candidate)])
    return asked


def asked_elsewhere(make: SearcherFactory, hash_seed: str, state: str | None, n: int) -> list[list[int]]:
    module = inspect.getmodule(make)
    if module is None or "<" in make.__qualname__ or "." in make.__qualname__:
        raise ContractViolation(
            f"another process: {make!r} must be a function at the top of a module, to be found from there"
        )
    order = {
        "file": str(Path(inspect.getfile(make)).resolve()),
        "module": module.__name__,
        "function": make.__qualname__,
        "state": state,
        "n": n,
    }
    done = subprocess.run(
        [sys.executable, "-c", "from paredown.testing._elsewhere import answer; answer()"],
        input=json.dumps(order),
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise ContractViolation(f"another process: it failed there:\n{done.stderr[-2000:]}")
    asked: list[list[int]] = json.loads(done.stdout)
    return asked


def answer() -> None:
    """Main function of the other process: run a searcher and print its asks."""
    order = json.loads(sys.stdin.read())
    problem = SyntheticProblem(n_groups=8)
    searcher = _find(order)(problem.context(seed=4))
    start = 0
    if order["state"] is not None:
        searcher.load_state_dict(json.loads(order["state"]))
        start = 20
    print(json.dumps([list(c.levels) for c in play(searcher, problem, order["n"], start=start)]))


def _find(order: dict[str, Any]) -> SearcherFactory:
    try:
        module = importlib.import_module(order["module"])
        if not hasattr(module, order["function"]):
            raise ImportError(f"{order['module']} has no {order['function']}")
    except ImportError:  # a test file, which is on no path, or a script
        spec = importlib.util.spec_from_file_location("paredown_searcher_under_test", order["file"])
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    factory: SearcherFactory = getattr(module, order["function"])
    return factory
