"""Several devices in one search: each has a searcher, limits of its own, and its say in what is tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import InputError
from paredown.hardware_profiles import load_profile
from paredown.search import Candidate, Completed, Front, Infeasible, Task, Trial, open_run
from paredown.search.searchers import RoundRobinSearcher

TINY = Path(__file__).parents[1] / "tiny"


class Numbered:
    """Asks for (name, 0), (name, 1), … as long as it has some."""

    def __init__(self, name: int, left: int = 100) -> None:
        self.name, self.left, self.asked, self.told = name, left, 0, 0

    def ask(self, n: int) -> list[Candidate]:
        found = [Candidate(levels=(self.name, self.asked + i)) for i in range(min(n, self.left - self.asked))]
        self.asked += len(found)
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += len(trials)

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]

    def report(self) -> dict[str, Any]:
        return {"divergence": {"n": self.name}, f"latency_ms@{self.name}": {"n": self.name}}


def test_each_is_asked_in_turn_and_told_of_everything() -> None:
    one, two, three = Numbered(1), Numbered(2, left=1), Numbered(3)
    turns = RoundRobinSearcher([one, two, three])
    assert [c.levels for c in turns.ask(5)] == [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1)]  # the second has nothing left
    trial = Completed(number=0, candidate=Candidate(levels=(0,)), kind="mixed", metrics={})
    turns.tell([trial])
    assert [s.told for s in (one, two, three)] == [1, 1, 1]
    assert turns.report() == {
        "divergence": {"n": 1}, "latency_ms@1": {"n": 1}, "latency_ms@2": {"n": 2}, "latency_ms@3": {"n": 3}
    }  # fmt: skip
    again = RoundRobinSearcher([Numbered(1), Numbered(2, left=1), Numbered(3)])
    again.load_state_dict(json.loads(json.dumps(turns.state_dict())))
    assert again.ask(3) == turns.ask(3)
    assert RoundRobinSearcher([Numbered(1), Numbered(2)], turn=7).ask(1)[0].levels == (2, 0)
    assert RoundRobinSearcher([Numbered(1, left=0), Numbered(2, left=2)]).ask(3) == Numbered(2).ask(2)
    with pytest.raises(InputError, match="needs at least one searcher"):
        RoundRobinSearcher([])


def _task(**sections: Any) -> Task:
    data = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [2, 4, 8, 32], "rank": [1.0, 0.25]},
        "quality": {"max_loss": 1.0},
        "search": {"table_samples": 32},
        "mlflow": {"enabled": False},
        **sections,
    }
    return Task.from_dict(data, base_dir=TINY)


def _device(folder: Path, name: str, *, int8: float, fp32: float) -> str:
    """A server with these rates, so slow that nothing but arithmetic counts."""
    data = load_profile("x86-64-onnxruntime").to_dict()
    for key, rate in data["rates_gmac_s"].items():
        rate["value"] = 0.01 * (int8 if key.startswith("int8") else fp32)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data | {"name": name, "channels_multiple": 1}))
    return str(path)


def test_a_device_that_wants_something_else_gets_it(tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    """One runs INT8 fast and the other only FP32, where a low rank is the only gain."""
    integers = _device(tmp_path, "integers", int8=4.0, fp32=1.0)
    floats = _device(tmp_path, "floats", int8=0.25, fp32=1.0)
    asked = _task(
        hardware={"runtime": "torch", "profile": [integers, floats]}, limits={"latency_ms": {"max_ratio": 0.95}},
        objectives={"names": ["accuracy", "latency_ms"]}, budget={"trials": 24},
    )  # fmt: skip
    search_unverified(asked, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    original = next(t for t in run.trials if t.kind == "original")
    assert isinstance(original, Completed)
    kept = {"latency_ms": 0, "latency_ms@floats": 0}
    for trial in run.trials:
        if trial.kind == "mixed" and isinstance(trial, Completed):
            for name in kept:
                kept[name] += trial.metrics[name].value <= 0.95 * original.metrics[name].value
    assert kept["latency_ms"] >= 5
    assert kept["latency_ms@floats"] >= 1  # led by the first alone, none: the front there was worth .07, and now .24
    for trial in run.trials:  # given up is only what breaks the limits of both
        if isinstance(trial, Infeasible):
            assert all(trial.metrics[name].value > 0.95 * original.metrics[name].value for name in kept)
    assert [p for p in run.front(profile="floats").points if p.kind != "original" and p.on_front]
