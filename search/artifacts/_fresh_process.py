"""The fresh process: it loads artifacts from their files alone, runs them, and writes outputs and milliseconds.

`_measure_fresh.py` starts it as `python -m paredown.search.artifacts._fresh_process SPEC.json`; nothing imports it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..run import write_atomic
from ._measure_fresh import REFERENCE, read_inputs
from ._stored_outputs import write_outputs

if TYPE_CHECKING:
    from ...evaluators import Pinning


class _Child:
    """State of the child: the split, and the session of the original, which stays loaded."""

    def __init__(self, spec: Mapping[str, Any], folder: Path, pinning: Pinning) -> None:
        import torch

        from ...evaluators.runtimes import get_runtime
        from ..task import Plugins

        if spec["plugins"]:
            Plugins.from_dict(spec["plugins"]).load()
        torch.set_num_threads(spec["threads"])
        self.spec, self.folder, self.pinning = spec, folder, pinning
        self.runtime = get_runtime(spec["runtime"])
        self.split = read_inputs(folder)
        self.one = self.split.take(1).inputs
        self.source = spec["model_source"]
        self.reference = self.load(Path(spec["artifacts"][REFERENCE])) if REFERENCE in spec["artifacts"] else None

    def model(self) -> Any:
        """The original, built by the task's factory."""
        from ..task import Task, load_task_model

        return load_task_model(Task.from_dict(self.source["task"], base_dir=Path(self.source["base_dir"])))

    def load(self, path: Path) -> Any:
        """A session of an artifact's main file."""
        return self.runtime.load(path, threads=self.spec["threads"], model_factory=self.model if self.source else None)

    def measure(self, key: str, path: Path) -> dict[str, Any]:
        """Write the outputs of one artifact; gives the other results."""
        from ...evaluators import run_batches

        session = self.reference if key == REFERENCE and self.reference is not None else self.load(path)
        write_outputs(run_batches(session.run, self.split, self.spec["batch_size"]), self.folder, key)
        found: dict[str, Any] = {"reason": None, "facts": _rounding_of(session)}
        if self.spec["latency"]:
            times = self.time(key, session, path)
            found |= times | {"facts": found["facts"] | times["facts"]}
            if self.spec["energy_batch"]:
                found |= self.energy(session)
            if self.spec["capacity"] is not None:
                found["capacity"] = self.capacity(session)
        return found

    def capacity(self, session: Any) -> dict[str, Any]:
        """Samples a second, alone in the slot."""
        from ...evaluators import exclusive_slot
        from ._throughput import capacity

        with exclusive_slot():
            found = capacity(session, self.split, **self.spec["capacity"])
        return {name: measured.to_dict() for name, measured in found.items()}

    def energy(self, session: Any) -> dict[str, Any]:
        """Energy of one sample by the processor's counter, alone in the slot. Empty where no counter can be read."""
        from ...evaluators import exclusive_slot, measure_energy
        from ...evaluators.energy import counters_here

        if not (counters := counters_here()):
            return {}
        batch = self.spec["energy_batch"]
        inputs = self.split.take(batch).inputs
        with exclusive_slot():
            measured = measure_energy(lambda: session.run(inputs), counters, seconds=self.spec["seconds"], batch=batch)
        return {"energy_mj": measured.to_dict(samples=False)}

    def time(self, key: str, session: Any, path: Path) -> dict[str, Any]:
        """Latencies at batch 1, pinned, alone in the slot, interleaved with the original."""
        import numpy as np

        from ...evaluators import aa_floor, exclusive_slot, interleaved
        from ...evaluators.latency import machine_facts

        # the reference is timed against itself: a speed-up of it other than 1 is noise
        timers = {"latency_ms": lambda: session.run(self.one)}
        if (reference := self.reference) is not None:
            timers["reference_ms"] = lambda: reference.run(self.one)
        rng = np.random.default_rng(0)
        facts = machine_facts(session, threads=self.spec["threads"], pinning=self.pinning)
        facts |= {"pid": os.getpid(), "pinned_cores": facts.pop("cores")}
        with exclusive_slot():
            samples = interleaved(timers, min_rounds=60, min_seconds=self.spec["seconds"], rng=rng)
            if key == REFERENCE:
                again = self.load(path)
                facts["aa_floor"] = aa_floor(timers["latency_ms"], lambda: again.run(self.one), rng=rng)
                if self.source:  # timed after the others, because PyTorch empties the caches that they use
                    samples |= interleaved({"eager_ms": self.eager()}, min_seconds=self.spec["seconds"] / 2, rng=rng)
        return {name: list(s.ms) for name, s in samples.items()} | {"facts": facts}

    def eager(self) -> Any:
        """A function that runs the original in PyTorch eager on one sample."""
        import torch

        from ...compressors import forward

        model = self.model().eval()

        def run() -> None:
            with torch.inference_mode():
                forward(model, self.one)

        return run


def _rounding_of(session: Any) -> dict[str, str]:
    """Rounding by the runtime itself as a fact: its clause, or nothing."""
    tell = getattr(session, "rounding", None)
    text = tell() if callable(tell) else ""
    return {"rounding": text} if text else {}


def main(argv: Sequence[str]) -> int:
    """Entry of the child: `argv` is the path of the spec; gives the exit code."""
    from ...evaluators import pinned
    from ...evaluators.latency import last_cores

    path = Path(argv[0])
    spec = json.loads(path.read_text())
    with pinned(last_cores(spec["threads"])) as pinning:  # before any runtime starts its threads
        return _measure_all(spec, path.parent, pinning)


def _measure_all(spec: Mapping[str, Any], folder: Path, pinning: Pinning) -> int:
    from ..values import reason

    parent = os.getppid()
    child: _Child | None = None
    trouble = ""
    try:
        child = _Child(spec, folder, pinning)
    except Exception as exception:  # without the original to compare with, none of them can be measured
        trouble = reason(exception)
    for key in spec["todo"]:
        if os.getppid() != parent:
            return 1  # the parent is gone, and nobody reads the results
        try:
            found = child.measure(key, Path(spec["artifacts"][key])) if child else {"reason": trouble}
        except Exception as exception:  # this artifact cannot be run; the others may
            found = {"reason": reason(exception)}
        write_atomic(folder / f"{key}.json", json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
