"""Measurement of this machine: forms that a runtime really runs faster, their rates, and the bandwidth of memory."""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, ParedownError
from ._compare import compare
from ._figures import KernelFigure, MachineFigure, MachineFigures
from ._interleaved import Timer, interleaved
from ._machine import caches, instruction_sets, machine_facts, memory_bytes
from ._micro_graphs import FORMS, STANDARD, LayerShape, chain_of_tiny, empty_graph, graph_of, reason_against
from ._numa import numa_nodes
from ._pinned import last_cores, pinned
from ._rates import CLASSES, rate_of
from ._slot import exclusive_slot

if TYPE_CHECKING:
    from ..runtimes import Session

N_TINY = 33
WORKING_SETS = tuple(1 << n for n in (14, 18, 21, 24, 27))
"""Bytes that a copy reads: within L1, L2, L3 and beyond on this class of machine."""
RUNTIMES = ("openvino", "onnxruntime")

Say = Callable[[str], None]


def measure_machine(
    runtime: str,
    *,
    threads: int = 1,
    shapes: Sequence[LayerShape] = STANDARD,
    seconds: float = 0.4,
    cores: Sequence[int] | None = None,
    say: Say = lambda text: None,
) -> MachineFigures:
    """Measure this machine in about a minute for the standard shapes.

    Layers are timed on one core, whatever `threads` is; with more, what further cores add is measured too.
    Pins this thread, and holds the machine's latency slot while it times. Raises `InputError` for a runtime that reads
    no ONNX, `MissingExtra` for one that is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"a machine is measured with {' or '.join(RUNTIMES)}, got {runtime!r}")
    from ..runtimes import require

    require("measuring this machine", "openvino" if runtime == "openvino" else "onnx", runtime, "onnx")
    start = time.monotonic()
    with pinned(cores) as pinning, tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        probe = _Probe(runtime, Path(folder))
        with exclusive_slot():
            say("bandwidth")
            bandwidth = _bandwidth(probe)
            say("overheads")
            overhead = _overheads(probe)
        kernels: list[KernelFigure] = []
        for shape in shapes:
            say(f"{shape.operator} {shape.label}")
            with exclusive_slot():
                kernels += _forms_of(probe, shape, seconds, overhead["session"].value)
        facts = machine_facts(probe.last, threads=1, pinning=pinning)
    if threads > 1:
        say(f"{threads} cores")
    scaling = _scaling(runtime, threads, seconds) if threads > 1 else None
    return MachineFigures(
        cpu=facts["cpu"],
        architecture=platform.machine(),
        n_cores=_n_cores(),
        n_numa_nodes=max(1, len(numa_nodes())),
        memory_bytes=memory_bytes(),
        scaling=scaling,
        isa=tuple(instruction_sets()),
        cores=tuple(facts["cores"]),
        numa_nodes=tuple(facts["numa_nodes"]),
        caches=tuple(caches(pinning.got[0] if pinning.got else 0)),
        runtime=runtime,
        runtime_version=probe.version,
        threads=threads,
        runtime_threads=facts.get("runtime_threads"),
        rates_gmac_s=_rates(probe, kernels, overhead["kernel"].value),
        bandwidth_gb_s=bandwidth,
        overhead_us=overhead,
        kernels=tuple(kernels),
        natively=_natively(kernels),
        seconds=round(time.monotonic() - start, 1),
        date=probe.date,
    )


def _n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Probe:
    def __init__(self, runtime: str, folder: Path, threads: int = 1) -> None:
        self.runtime, self.threads, self.folder = runtime, threads, folder
        self.date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.rng = np.random.default_rng(0)
        self.last: Session | None = None
        self._n = 0
        from importlib.metadata import version

        self.version = version(runtime)

    def load(self, model: bytes) -> Any:
        """Load a session. Raises `ParedownError` where the runtime refuses the graph."""
        from ..runtimes import get_runtime

        self._n += 1
        path = self.folder / f"{self._n}.onnx"
        path.write_bytes(model)
        self.last = session = get_runtime(self.runtime).load(path, threads=self.threads)
        return session

    def kernels(self, model: bytes, session: Any) -> str:
        """Operators of the last run without mere data movement, most frequent first."""
        if self.runtime == "openvino":
            ran = [f"{k['type']} {k['kernel']} {k['precision']}" for k in session.kernels()]
            idle = ("Input", "Output", "Const", "Reorder", "Reshape", "Convert", "Eltwise", "Transpose",
                    "FakeQuantize")  # fmt: skip
            counted = Counter(name for name in ran if not name.startswith(idle))
        else:
            counted = Counter(self._optimized(model))
        return ", ".join(name for name, _ in counted.most_common(3))

    def _optimized(self, model: bytes) -> list[str]:
        import onnx

        from ..runtimes import OnnxRuntimeSession

        path, seen = self.folder / "probe.onnx", self.folder / "seen.onnx"
        path.write_bytes(model)
        OnnxRuntimeSession(path, self.threads, seen)
        idle = ("QuantizeLinear", "DequantizeLinear", "Relu", "ReorderInput", "ReorderOutput", "Transpose")
        return [node.op_type for node in onnx.load(seen).graph.node if node.op_type not in idle]

    def figure(self, value: float, unit: str) -> MachineFigure:
        source = f"measured with {self.runtime} {self.version}" if unit != "GB/s" else "measured with numpy"
        return MachineFigure(value=value, unit=unit, source=source, date=self.date)


def _forms_of(probe: _Probe, shape: LayerShape, seconds: float, session_us: float) -> list[KernelFigure]:
    import torch

    x = torch.from_numpy(probe.rng.standard_normal((1, *shape.input)).astype(np.float32))
    sessions: dict[str, Any] = {}
    graphs: dict[str, bytes] = {}
    notes: dict[str, str] = {}
    for form in FORMS:
        if (why := reason_against(shape, form)) is not None:
            notes[form] = why
            continue
        graphs[form] = graph_of(shape, form)
        try:
            session = probe.load(graphs[form])
            session.run(x)
        except ParedownError as error:  # this runtime has no such kernel: that is a finding
            notes[form] = str(error).splitlines()[0][:200]
            continue
        sessions[form] = session
    timers = {form: (lambda session=session: session.run(x)) for form, session in sessions.items()}
    samples = interleaved(timers, min_rounds=60, min_seconds=seconds, max_seconds=10 * seconds + 1.0, rng=probe.rng)
    figures = []
    for form in FORMS:
        if form not in sessions:
            figures.append(_no_figure(shape, form, notes[form]))
            continue
        each = one_layer_ms(samples[form].percentile(10), session_us, shape.n)
        apart = compare(samples[form], samples["fp32"]) if "fp32" in samples else None
        figures.append(
            replace(
                _no_figure(shape, form, ""),
                ms=each,
                n=len(samples[form]),
                speedup=1.0 / apart.ratio if apart else None,
                verdict=apart.verdict if apart else None,
                gmac_s=shape.macs / each * 1e-6,
                kernel=probe.kernels(graphs[form], sessions[form]),
                source=f"measured with {probe.runtime} {probe.version}",
                date=probe.date,
            )
        )
    return figures


def one_layer_ms(call_ms: float, session_us: float, n: int) -> float:
    """Milliseconds of one layer, from calls that run `n` equal layers; `session_us` is the cost of a call beside its
    kernels.

    At most half of the call is taken off: layers that are lost beside the session get too low a rate, where noise alone
    would give them any.
    """
    return max(call_ms - session_us / 1e3, call_ms / 2) / n


def _no_figure(shape: LayerShape, form: str, note: str) -> KernelFigure:
    out, inner = shape.weight[0] // shape.groups, shape.weight[1]
    return KernelFigure(
        operator=shape.operator, shape=shape.label, form=form, depthwise=shape.groups > 1 and out == 1,
        channels=(out, inner), positions=shape.positions, note=note,
    )  # fmt: skip


def _scaling(runtime: str, threads: int, seconds: float) -> MachineFigure:
    """Gain of each further core for the widest convolution, as a share of the first; at least a hundredth."""
    import torch

    shape = max((s for s in STANDARD if s.operator == "conv2d"), key=lambda s: s.macs)
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder, pinned(last_cores(threads)), exclusive_slot():
        probe = _Probe(runtime, Path(folder), threads)
        x = torch.from_numpy(probe.rng.standard_normal((1, *shape.input)).astype(np.float32))
        timers = {}
        for name, n in (("one", 1), ("all", threads)):
            probe.threads = n
            timers[name] = partial(probe.load(graph_of(shape, "fp32")).run, x)
        samples = interleaved(timers, min_rounds=60, min_seconds=seconds, max_seconds=10 * seconds + 1.0, rng=probe.rng)
        faster = 1.0 / compare(samples["all"], samples["one"]).ratio
        return probe.figure(min(1.0, max(0.01, (faster - 1.0) / (threads - 1))), "share of one core")


def _overheads(probe: _Probe) -> dict[str, MachineFigure]:
    import torch

    x = torch.zeros(1, 8, 2, 2)
    sessions = [probe.load(model) for model in (empty_graph(), chain_of_tiny(1), chain_of_tiny(N_TINY))]
    timers = {str(n): (lambda session=session: session.run(x)) for n, session in enumerate(sessions)}
    samples = interleaved(timers, min_rounds=200, min_seconds=0.3, rng=probe.rng)
    empty, one, many = (samples[str(n)].percentile(10) * 1e3 for n in range(3))
    return {
        "session": probe.figure(empty, "µs"),
        "kernel": probe.figure(max((many - one) / (N_TINY - 1), 1e-3), "µs"),
    }


def _bandwidth(probe: _Probe) -> dict[str, MachineFigure]:
    """Bandwidth of copies and triads (McCalpin 1995) of one thread, by bytes read and written.

    The time of an empty numpy call is subtracted, up to half of the measured time.
    """
    found = {}
    little = [np.ones(2) for _ in range(3)]
    for size in WORKING_SETS:
        n = size // 8
        a, b, c = np.zeros(n), np.ones(n), np.ones(n)
        repeat = max(1, (1 << 18) // size)

        def copy(a: Any = a, b: Any = b, repeat: int = repeat) -> None:
            for _ in range(repeat):
                np.copyto(a, b)

        def triad(a: Any = a, b: Any = b, c: Any = c, repeat: int = repeat) -> None:
            for _ in range(repeat):
                np.multiply(c, 3.0, out=a)
                np.add(a, b, out=a)

        timers: dict[str, Timer] = {
            "copy": copy, "triad": triad,
            "no copy": partial(copy, little[0], little[1], repeat),
            "no triad": partial(triad, little[0], little[1], little[2], repeat),
        }  # fmt: skip
        samples = interleaved(timers, min_rounds=20, min_seconds=0.1, max_seconds=2.0, rng=probe.rng)
        label = f"{size // 1024} kB" if size < 1 << 20 else f"{size >> 20} MB"
        for kind, moved in (("copy", 2), ("triad", 5)):
            took, call = (samples[name].percentile(10) for name in (kind, f"no {kind}"))
            seconds = max(took - call, took / 2) / 1e3
            found[f"{kind} {label}"] = probe.figure(moved * size * repeat / seconds * 1e-9, "GB/s")
    return found


def _rates(probe: _Probe, kernels: Sequence[KernelFigure], kernel_us: float) -> dict[str, MachineFigure]:
    found = {}
    for layers in CLASSES:
        for form in ("fp32", "int8", "w4"):
            if (rate := rate_of(layers.of(kernels, form), kernel_us)) is not None:
                found[f"{layers.name} {form}"] = probe.figure(rate.gmac_s, "GMAC/s")
    return found


def _natively(kernels: Sequence[KernelFigure]) -> dict[str, bool]:
    """Tell for each form whether some layer ran in other kernels than fp32 and faster than it, beyond noise."""
    plain = {(k.operator, k.shape): k.kernel for k in kernels if k.form == "fp32"}
    found = {}
    for form in FORMS[1:]:
        found[form] = any(
            k.verdict == "faster" and (form == "rank25" or k.kernel != plain.get((k.operator, k.shape)))
            for k in kernels
            if k.form == form
        )
    return found
