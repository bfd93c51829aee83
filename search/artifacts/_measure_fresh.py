"""Measurement of artifacts in a fresh process, seen from the parent.

`measure_fresh` writes a spec, starts `python -m paredown.search.artifacts._fresh_process SPEC.json`, and reads the
results. The child judges nothing: the parent computes the quality from the outputs that the child wrote. If the child
dies on an artifact, that artifact has failed, and a new child goes on with the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..run import write_atomic
from ..workers import python_path
from ._stored_outputs import StoredOutputs

if TYPE_CHECKING:
    from ...evaluators import Split
    from ..task import Plugins

REFERENCE = "original"
"""Id of the artifact that the latencies of the others are compared with."""
_PATIENCE_S = 3600.0
"""Seconds that a child may run."""
_SHOWN = 300
"""Characters of a child's last line that a reason quotes."""

Watch = Callable[[int], None]
"""Called a few times a second with the number of artifacts that are done; may raise, which ends the child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Results of one artifact in a fresh process.

    outputs       on the whole split; None with a `reason`, or where they were not wanted
    latency_ms    raw samples at batch 1; empty if it was not timed
    reference_ms  raw samples of the original in the same runtime, interleaved with the above
    eager_ms      raw samples of the original in PyTorch eager; only for the original
    energy_mj     energy of one sample as a `Measurement`'s dict; None if it was not wanted or no counter can be read
    capacity      results of the function `capacity`, name -> a `Measurement`'s dict; empty if it was not wanted
    facts         process, threads, cores and their node, the machine's load; `aa_floor` for the original
    reason        why the artifact could not be run, or None
    """

    outputs: StoredOutputs | None = None
    latency_ms: tuple[float, ...] = ()
    reference_ms: tuple[float, ...] = ()
    eager_ms: tuple[float, ...] = ()
    energy_mj: Mapping[str, Any] | None = None
    capacity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


def measure_fresh(
    artifacts: Mapping[str, Path],
    *,
    runtime: str,
    split: Split,
    batch_size: int,
    threads: int,
    folder: Path,
    model_source: Mapping[str, Any] | None,
    plugins: Plugins | None = None,
    latency: bool = True,
    seconds: float = 1.0,
    energy_batch: int = 0,
    capacity: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Loaded]:
    """Load and run every artifact (id -> main file) in a new process; gives id -> results.

    The artifact with the id "original", if there is one, is the reference for the latencies.

    threads       cores that one run may use
    folder        for the files that the two processes exchange
    model_source  source of the model for a runtime that holds no graph: `{"task": …, "base_dir": …}`
    plugins       imported there before anything else
    latency       whether runs at batch 1 are timed
    seconds       seconds of runs for each measurement
    energy_batch  samples of a call whose energy is measured, where there is a counter; 0: not wanted
    capacity      arguments of the function `capacity`; None: samples a second are not wanted. It needs `latency`
    watch         see `Watch`
    only          ids that are measured; None: all. The original is loaded for comparison in either case
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_inputs(folder, split)
    spec = {
        "runtime": runtime, "batch_size": batch_size, "threads": threads, "latency": latency, "seconds": seconds,
        "energy_batch": energy_batch, "capacity": dict(capacity) if capacity is not None else None,
        "model_source": model_source, "plugins": plugins.to_dict() if plugins else None,
        "artifacts": {key: str(path) for key, path in artifacts.items()},
    }  # fmt: skip
    results: dict[str, Loaded] = {}
    for key in artifacts:
        (folder / f"{key}.json").unlink(missing_ok=True)
    wanted = [key for key in artifacts if only is None or key in only]
    while todo := [key for key in wanted if key not in results]:
        write_atomic(folder / "spec.json", json.dumps({**spec, "todo": todo}))
        ended = _run_child(folder, todo, watch)
        for key in todo:
            path = folder / f"{key}.json"
            if path.exists():
                results[key] = _read_result(folder, key)
            else:  # the one that it died on; the rest gets a new child
                results[key] = Loaded(reason=ended or "the process ended before it came to this artifact")
                break
    return results


def _read_result(folder: Path, key: str) -> Loaded:
    data: dict[str, Any] = json.loads((folder / f"{key}.json").read_text())
    times = {name: tuple(data.get(name, ())) for name in ("latency_ms", "reference_ms", "eager_ms")}
    return Loaded(
        outputs=StoredOutputs.of(folder, key) if data["reason"] is None else None,
        facts=data.get("facts", {}), reason=data["reason"], energy_mj=data.get("energy_mj"),
        capacity=data.get("capacity", {}), **times,
    )  # fmt: skip


def _run_child(folder: Path, todo: Sequence[str], watch: Watch | None) -> str | None:
    """Run a child to its end; gives None if it ended well, else the reason. An exception of `watch` ends the child."""
    command = [sys.executable, "-m", "paredown.search.artifacts._fresh_process", str(folder / "spec.json")]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    deadline = time.monotonic() + _PATIENCE_S
    with (folder / "log.txt").open("ab") as log:
        # a session of its own: Ctrl-C in the terminal is the parent's to answer
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if watch is not None:
                    watch(sum((folder / f"{key}.json").exists() for key in todo))
                if time.monotonic() > deadline:
                    return f"still running after {_PATIENCE_S:g} s{_last_words(folder)}"
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    code = process.returncode
    return None if code == 0 else f"the process ended with code {code}{_last_words(folder)}"


def _last_words(folder: Path) -> str:
    """The last line of the log. Reasons quote it, because the folder is removed once its results are read."""
    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[:_SHOWN]}" if last else ""


def _write_inputs(folder: Path, split: Split) -> None:
    from safetensors.torch import save_file

    inputs = split.inputs
    named = (
        inputs
        if isinstance(inputs, Mapping)
        else dict(enumerate(inputs))
        if isinstance(inputs, tuple)
        else {"x": inputs}
    )
    tensors = {str(key): tensor.contiguous() for key, tensor in named.items()}
    kind = "dict" if isinstance(inputs, Mapping) else "tuple" if isinstance(inputs, tuple) else "tensor"
    save_file(tensors, folder / "inputs.safetensors", metadata={"kind": kind, "name": split.name})


def read_inputs(folder: Path) -> Split:
    """The inputs that the parent wrote for the child."""
    from safetensors import safe_open

    from ...evaluators import Split

    with safe_open(folder / "inputs.safetensors", framework="pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    inputs: Any = tensors
    if facts["kind"] == "tensor":
        inputs = tensors["x"]
    elif facts["kind"] == "tuple":
        inputs = tuple(tensors[str(i)] for i in range(len(tensors)))
    return Split(name=facts["name"], inputs=inputs, targets=None)
