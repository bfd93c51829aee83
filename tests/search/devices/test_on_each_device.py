"""Objectives and limits on each device of a task."""

from __future__ import annotations

from paredown.search import Objective, Task
from paredown.search.devices import guides_of, limits_of

DATA = {"model": {"factory": "tiny.py:model"}, "data": {"factory": "tiny.py:data"}, "space": {"weight_bits": [4, 32]}}


def test_objectives_and_limits_are_those_of_each_device() -> None:
    guide = (Objective(name="divergence"), Objective(name="latency_ms"), Objective(name="bytes"))
    names = [[o.name for o in each] for each in guides_of(guide, ["a", "b"])]
    assert names == [["divergence", "latency_ms", "bytes"], ["divergence", "latency_ms@b", "bytes"]]
    limits = {"latency_ms": {"max_ratio": 0.5}, "bytes": {"max_ratio": 0.5}, "energy_mj": {"max": 3.0}}
    task = Task.from_dict({**DATA, "limits": limits})
    bound = {"latency_ms": (None, 1.0), "bytes": (None, 50.0), "energy_mj": (None, 3.0)}
    original = {"latency_ms": 2.0, "latency_ms@b": 40.0, "energy_mj@b": 9.0, "bytes": 100.0}
    assert limits_of(task, bound, original, ["a", "b"]) == [
        bound, {"latency_ms@b": (None, 20.0), "bytes": (None, 50.0), "energy_mj@b": (None, 3.0)}
    ]  # fmt: skip
