"""The one way from exported model files to measurements: fresh process, parity with PyTorch, judgement, bytes.

The verification of a search, `export_point` and `verify_artifact` all go this way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ...evaluators import Measurement
from ...evaluators.runtimes import STRUCTURE_FILE
from ..problem import Problem
from ._exporter import Exporter
from ._formats import is_for_elsewhere
from ._judge import check_parity, judge_outputs, latency_metrics
from ._load_notes import LOAD
from ._manifest import CONFIG, MANIFEST
from ._measure_fresh import REFERENCE, Loaded, Watch, measure_fresh
from ._parity import ParityResult

if TYPE_CHECKING:
    from ..task import Task

_STORED_BYTES = 512 << 20
"""Bytes of outputs on the disk at a time (those of one artifact may be more)."""
_THROUGHPUT_S = 0.3
"""Seconds of runs for each batch size, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """The model files of one assignment.

    folder      of the artifact
    main        the file that the runtime loads
    assignment  group or layer -> spec
    format      of the files
    runtime     name of the runtime that loads them here
    """

    folder: Path
    main: Path
    assignment: Mapping[str, LayerSpec]
    format: str
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredArtifact:
    """Measurements of an exported model on the report split.

    quality    quality and divergence from the original
    scores     the metric's score of each sample
    latencies  percentiles, speed-up, energy and throughput; empty where nothing was timed
    parity     comparison with PyTorch's outputs; None where the artifact did not run
    sizes      `bytes` of the stored model and `file_bytes` of the model files; empty where they were not wanted
    facts      process, threads, cores and load of the machine during the measurement
    reason     why there is nothing else: it did not run, or it is not what PyTorch computes; else None
    """

    quality: Mapping[str, Measurement] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    latencies: Mapping[str, Measurement] = field(default_factory=dict)
    parity: ParityResult | None = None
    sizes: Mapping[str, Measurement] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def ran(self) -> bool:
        """True where the artifact was loaded and run in the fresh process."""
        return self.parity is not None

    @property
    def parity_text(self) -> str:
        """Sentence on the parity with PyTorch; "" where it was not compared."""
        return self.parity.text if self.parity is not None else ""

    @property
    def metrics(self) -> dict[str, Measurement]:
        """Quality, latencies and parity, in this order; without the sizes."""
        return {**self.quality, **self.latencies, **(self.parity.metrics if self.parity is not None else {})}


def run_fresh(
    problem: Problem,
    artifacts: Mapping[str, Path],
    *,
    runtime: str,
    folder: Path,
    watch: Watch | None = None,
    throughput: bool | None = None,
    timed: bool = True,
    only: Collection[str] | None = None,
) -> dict[str, Loaded]:
    """Run artifacts (id -> main file) in a fresh process as the task says: outputs on the report split, and latencies
    where the search is for this machine.

    folder      for the files that the two processes exchange
    throughput  whether samples a second are measured too; None: where the task asks for them
    timed       False for artifacts of another device, which run here for their outputs only
    only        ids that are measured; None: all
    """
    task, names = problem.task, problem.devices[0].names
    if throughput is None:
        throughput = "ms_per_sample" in names
    return measure_fresh(
        artifacts, runtime=runtime, split=problem.report, batch_size=problem.context.batch_size,
        threads=task.hardware.threads, folder=folder, model_source=problem.model_source, watch=watch,
        seconds=task.hardware.latency_seconds, plugins=problem.context.plugins,
        latency=problem.times_here and timed,
        energy_batch=task.hardware.batch if "energy_mj" in names else 0,
        capacity=capacity_options(task) if throughput else None, only=only,
    )  # fmt: skip


def most_at_once(problem: Problem) -> int:
    """Number of artifacts whose outputs on the report split may be on the disk together, at least 1."""
    from ...evaluators.values import output_bytes

    size = output_bytes(problem.context.reference.between(0, 1).outputs)
    return max(1, _STORED_BYTES // (size * len(problem.report)))


def capacity_options(task: Task) -> dict[str, Any]:
    """Arguments of `capacity` for a task: its batch, its limit of the latency, and the seconds for each batch size."""
    hardware = task.hardware
    return {
        "batch": hardware.batch, "p95_limit_ms": hardware.throughput_p95_ms,
        "seconds": min(_THROUGHPUT_S, hardware.latency_seconds),
    }  # fmt: skip


def measure_beside_original(
    exporter: Exporter,
    exported: ExportedModel,
    original: Path,
    folder: Path,
    *,
    throughput: bool | None = None,
    must_agree: bool = True,
    with_sizes: bool = True,
) -> MeasuredArtifact:
    """Run one exported model beside the original in a fresh process, and measure it.

    original  main file of the original in the same format
    folder    for files that are needed meanwhile
    The other arguments are those of `run_fresh` and `measure_artifact`.
    """
    loaded = run_fresh(
        exporter.problem, {REFERENCE: original, "artifact": exported.main.resolve()}, runtime=exported.runtime,
        folder=folder / "fresh", throughput=throughput, timed=not is_for_elsewhere(exported.format),
        only=["artifact"],
    )["artifact"]  # fmt: skip
    return measure_artifact(exporter, exported, loaded, must_agree=must_agree, scratch=folder if with_sizes else None)


def measure_artifact(
    exporter: Exporter, exported: ExportedModel, loaded: Loaded, *, must_agree: bool = True, scratch: Path | None = None
) -> MeasuredArtifact:
    """Compare with PyTorch what a fresh process saw of an exported model, judge it, and weigh its files.

    loaded      from `run_fresh`
    must_agree  stop with a reason where the outputs are not those of PyTorch and integers are no excuse. Formats for
                other devices may round more than the search did; they never have to agree
    scratch     folder for the stored model, which is written to learn its length; None: sizes are not wanted
    Raises what a metric raises, and `ParedownError` for outputs of another shape.
    """
    outputs = loaded.outputs
    if outputs is None:
        return MeasuredArtifact(reason=loaded.reason or "the fresh process gave no outputs", facts=loaded.facts)
    reference = exporter.reference  # before the model is compressed: the original runs when it is first asked for
    elsewhere = is_for_elsewhere(exported.format)
    parity = check_parity(
        exporter, exported.assignment, outputs.pieces(), exported.main, runtime="" if elsewhere else exported.runtime,
        rounding=loaded.facts.get("rounding", ""),
    )  # fmt: skip
    if parity.is_broken and must_agree and not elsewhere:
        reason = f"the export does not compute what PyTorch computes: {parity.text}"
        return MeasuredArtifact(reason=reason, parity=parity, facts=loaded.facts)
    quality, scores = judge_outputs(exporter.problem, reference, outputs.pieces())
    outputs.remove()
    return MeasuredArtifact(
        quality=quality,
        scores=scores,
        latencies=latency_metrics(loaded, exporter.problem.task.hardware.grid_g_per_kwh),
        parity=parity,
        sizes=_sizes(exporter, exported, scratch) if scratch is not None else {},
        facts=loaded.facts,
    )


def _sizes(exporter: Exporter, exported: ExportedModel, scratch: Path) -> dict[str, Measurement]:
    is_stored = exported.format == "paredown"
    stored = stored_length(exported.main) if is_stored else exporter.stored_bytes(exported.assignment, scratch)
    return {
        "bytes": Measurement(value=float(stored), unit="B"),
        "file_bytes": Measurement(value=float(file_bytes(exported.folder)), unit="B"),
    }


def stored_length(main: Path) -> int:
    """Length in bytes of a stored model (format "paredown"), its structure file included."""
    return sum(file.stat().st_size for file in (main, main.with_name(STRUCTURE_FILE)) if file.exists())


def file_bytes(folder: Path) -> int:
    """Length in bytes of the model files: every file of an artifact's folder and of the folders in it, but the
    artifact's own manifest, config and notes."""
    own = {folder / MANIFEST, folder / CONFIG, folder / LOAD}
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file not in own)
