"""Cores and memory of one node, on a machine that exists in a folder only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paredown.evaluators import pinned
from paredown.evaluators.latency import _numa as numa
from paredown.evaluators.latency import _pinned as pinning_module
from paredown.evaluators.latency import last_cores, numa_node, numa_nodes

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system cannot pin a thread to a core")


def machine(folder: Path, nodes: dict[int, list[int]]) -> Path:
    """A /sys/devices/system that says which node each core is on."""
    for node, cores in nodes.items():
        (folder / "node" / f"node{node}").mkdir(parents=True)
        for core in cores:
            (folder / "cpu" / f"cpu{core}" / f"node{node}").mkdir(parents=True)
    return folder


def test_nodes_are_read_from_the_system(tmp_path: Path) -> None:
    system = machine(tmp_path, {0: [0, 1], 1: [2, 3]})
    assert [numa_node(core, system) for core in (0, 3, 9)] == [0, 1, None]
    assert numa_nodes(system) == [0, 1]
    assert numa_nodes(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("nodes", "allowed", "n", "cores"),
    [
        ({0: [0, 2, 4], 1: [1, 3, 5]}, range(6), 2, [3, 5]),  # interleaved numbering: neighbours are far apart
        ({0: [0, 1, 2], 1: [3]}, range(4), 2, [1, 2]),  # the last node has too few
        ({0: [0, 1], 1: [2, 3]}, [0, 1, 3], 2, [0, 1]),  # and here too, of those that may be used
        ({0: [0, 1], 1: [2, 3]}, range(4), 3, [1, 2, 3]),  # no node has three
        ({}, range(4), 2, [2, 3]),  # the system says nothing
    ],
)
def test_cores_are_taken_from_one_node(
    tmp_path: Path, nodes: dict[int, list[int]], allowed: list[int], n: int, cores: list[int]
) -> None:
    assert numa.cores_of_one_node(n, allowed, machine(tmp_path, nodes)) == cores


@linux
def test_on_a_machine_of_several_nodes_memory_is_bound_to_the_cores_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    @contextmanager
    def bind(node: int) -> Iterator[bool]:
        asked.append(node)
        yield True
        asked.append(-1)

    monkeypatch.setattr(pinning_module, "memory_from", bind)
    core = max(os.sched_getaffinity(0))
    two = machine(tmp_path / "two", {0: [1000], 3: sorted(os.sched_getaffinity(0))})
    assert last_cores(1, system=two) == [core]
    with pinned(core, system=two) as pinning:
        assert (pinning.got, pinning.nodes, pinning.memory_node) == ((core,), (3,), 3)
        assert asked == [3]
    assert asked == [3, -1]
    one = machine(tmp_path / "one", {3: sorted(os.sched_getaffinity(0))})
    with pinned(core, system=one) as pinning:  # there is nothing to choose
        assert (pinning.nodes, pinning.memory_node) == ((3,), None)
    assert asked == [3, -1]


@linux
def test_a_system_that_binds_no_memory_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "_set_policy", lambda mode, mask: False)
    system = machine(tmp_path, {0: [1000], 3: sorted(os.sched_getaffinity(0))})
    with pinned(system=system) as pinning:
        assert (pinning.nodes, pinning.memory_node) == ((3,), None)


_BOUND = """
from paredown.evaluators.latency._numa import _policy, memory_from, numa_nodes
before = _policy()
node = numa_nodes()[0]
with memory_from(node) as bound:
    mode, mask = _policy()
    print(bound, mode == 2, mask[0] == 1 << node)
after = _policy()
print(before[0] == after[0], list(before[1]) == list(after[1]))
with memory_from(len(mask) * 64 - 2) as bound:
    print(bound)
"""


@linux
@pytest.mark.skipif(numa._policy() is None or not numa_nodes(), reason="the system does not say whence memory comes")
def test_memory_is_bound_for_real_and_let_go_again(repository: Path) -> None:
    """In a process of its own: a policy that stayed would be every later test's."""
    done = subprocess.run(
        [sys.executable, "-c", _BOUND], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(repository / "src")},
    )  # fmt: skip
    lines = done.stdout.split("\n")
    if lines[0].startswith("False"):
        pytest.skip("the system refuses to bind memory")
    assert lines[:3] == ["True True True", "True True", "False"]  # a node that is not there is refused
