"""Throughput with a fake clock, and peak memory of a session that must hold what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paredown.errors import InputError, ParedownError
from paredown.evaluators.latency import LayerShape, graph_of, memory_bytes, peak_memory, throughput


class Clock:
    """Runs cost 2 ms and 1 ms a sample: 64 samples 66 ms, so the largest batch has the most samples a second."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def timer(self, batch: int) -> Callable[[], None]:
        def run() -> None:
            self.now_ns += (2 + batch) * 1_000_000

        return run


def test_the_largest_batch_within_the_limit_is_the_best() -> None:
    clock, rng = Clock(), np.random.default_rng(0)
    free = throughput(clock.timer, rng=rng, clock=clock)
    assert free.best is not None
    assert [times.batch for times in free.tried] == [1, 2, 4, 8, 16, 32, 64]
    assert free.best.batch == 64
    assert free.best.samples_per_s == pytest.approx(64 / 0.066)
    bound = throughput(clock.timer, p95_limit_ms=12.0, rng=rng, clock=clock)
    assert bound.best is not None
    assert (bound.best.batch, bound.best.p95_ms) == (8, pytest.approx(10.0))
    assert [times.batch for times in bound.tried] == [1, 2, 4, 8, 16]  # the first that misses ends it
    assert throughput(clock.timer, p95_limit_ms=1.0, rng=rng, clock=clock).best is None


def test_no_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"must be 1 or more, got \[0\]"):
        throughput(Clock().timer, batches=[0], rng=np.random.default_rng(0))


def test_memory_is_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t  2048 kB\n")
    assert memory_bytes("VmHWM", tmp_path / "status") == 2048 * 1024
    with pytest.raises(ParedownError, match="has no field VmRSS"):
        memory_bytes("VmRSS", tmp_path / "status")


def test_a_session_takes_at_least_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    import torch

    found = {}
    for width in (64, 2048):
        shape = LayerShape(operator="linear", weight=(width, width), input=(1, width))
        path = tmp_path / f"{width}.onnx"
        path.write_bytes(graph_of(shape, "fp32"))
        found[width] = peak_memory(path, "onnxruntime", torch.zeros(1, 1, width)).value
    assert found[2048] - found[64] > 0.9 * 4 * 2048**2
    with pytest.raises(ParedownError, match=r"could not be measured: .*no such file"):
        peak_memory(tmp_path / "none.onnx", "onnxruntime", torch.zeros(1, 1, 64))
