"""Timing of whole models, each against the FP32 original, interleaved run by run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..latency import LatencySamples, compare, interleaved
from ..runtimes import runtime_with
from ._forms import Form

if TYPE_CHECKING:
    from ...compressors import Inputs
    from ..runtimes import RuntimeOptions, Session
    from ._template import Template

LEAST_ROUNDS = 40
LEAST_S, MOST_S = 0.12, 1.5
GOOD = 0.004
"""Relative standard error at which a model has been timed long enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One model: its latency relative to the original's, that ratio's standard error, and the raw times of both."""

    ratio: float
    error: float
    ms: tuple[float, ...]
    original_ms: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ratio": self.ratio, "error": self.error, "ms": [round(x, 5) for x in self.ms],
            "original_ms": [round(x, 5) for x in self.original_ms],
        }  # fmt: skip


class Bed:
    """Test bed that holds the original's session. Pin the thread, and take the machine's slot, before it is made."""

    def __init__(
        self,
        template: Template,
        one: Inputs,
        *,
        runtime: str,
        threads: int,
        seed: int = 0,
        options: RuntimeOptions | None = None,
    ) -> None:
        self._template, self._one = template, one
        self._runtime, self._threads, self._options = runtime, threads, options
        self._rng = np.random.default_rng(seed)
        self._folder = tempfile.TemporaryDirectory(prefix="paredown-")
        self.original: Session | None = None

    def close(self) -> None:
        self._folder.cleanup()

    def load(self, forms: Mapping[str, Form]) -> Session:
        path = Path(self._folder.name) / "model.onnx"
        path.unlink(missing_ok=True)  # a session may have the old file mapped: it must not be written over
        self._template.write(forms, path, guarded=self._runtime == "onnxruntime")
        return runtime_with(self._runtime, self._options).load(path, threads=self._threads)

    def original_ms(self) -> float:
        """Rough p10 of the original alone, from a fifth of a second."""
        original = self.original = self.load({})
        run = {"original": lambda: _call(lambda: original.run(self._one))}
        return interleaved(run, min_seconds=0.2, max_seconds=MOST_S, rng=self._rng)["original"].percentile(10)

    def time(self, forms: Mapping[str, Form]) -> Timed:
        """Time a model, longer on a noisy machine: until the ratio's standard error is below 0.4 %, or 1.5 s are spent.

        The original is loaded anew each time: one load of a model was seen to differ from the next by 0.2 to 0.6 %
        (CNNs), which would be in every ratio alike if one session were the reference of all.
        """
        original = self.original = self.load({})
        session = self.load(forms)
        return timed(lambda: session.run(self._one), lambda: original.run(self._one), rng=self._rng)


def timed(
    run: Callable[[], object],
    original: Callable[[], object],
    *,
    rng: np.random.Generator,
    good: float = GOOD,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timed:
    """Time `run` against `original`: at least 40 rounds and 0.12 s, then on until the ratio is known well enough."""
    mine: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    spent, warm = 0.0, 5
    while True:
        found = interleaved(
            {"mine": lambda: _call(run), "original": lambda: _call(original)},
            min_rounds=LEAST_ROUNDS, min_seconds=LEAST_S, max_seconds=MOST_S, warmup_rounds=warm, rng=rng, clock=clock,
        )  # fmt: skip
        mine, theirs = mine + found["mine"].ms, theirs + found["original"].ms
        spent, warm = (sum(mine) + sum(theirs)) / 1e3, 0
        against = compare(LatencySamples(mine), LatencySamples(theirs))
        if against.error <= good or spent >= MOST_S:
            return Timed(ratio=against.ratio, error=against.error * against.ratio, ms=mine, original_ms=theirs)


def _call(run: Callable[[], object]) -> None:
    run()
