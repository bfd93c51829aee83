"""Choice of the runtime for `[hardware] runtime = "auto"`: the fastest of those installed here that keep the outputs.

Each runtime runs the original, and every layer at INT8 as that runtime needs it, at batch 1. All are interleaved on
pinned cores. A runtime whose outputs are not those of PyTorch is left out, however fast. The choice is written into the
run, so that a resumed run has the same runtime.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import IntegrityError, TaskError
from ..values import reason
from ._user_errors import user_errors

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration, LayerSpec, Variant
    from ...compressors.anatomy import Outputs
    from ..task import Task

AUTO = "auto"
FILE = "runtime.json"
CANDIDATES = ("onnxruntime", "openvino", "torch")
"""Runtimes to try; a tie goes to the first. "torch-compile" takes minutes to load, so a task has to name it."""
_EXACT = 1e-3
_ROUNDED = 0.05
"""Limits of the error against PyTorch's outputs, relative to their root mean square: in FP32, and in INT8, where values
between two codes fall on either side."""
_TIE = 1.03
"""Times within this factor of the fastest count as a tie."""
_CALIBRATION = 64
"""Number of calibration samples to run."""


@dataclass(slots=True, kw_only=True)
class RuntimeTrial:
    """The trial of a runtime with one setting.

    setting  "fp32" or "int8"
    run      runs one sample; None if the runtime is out
    off      error of the outputs, relative to their root mean square
    ms       time of a sample at batch 1
    why_not  reason why the runtime is out; None if it is not
    """

    runtime: str
    setting: str
    run: Callable[[], None] | None = None
    off: float | None = None
    ms: float | None = None
    why_not: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as it is stored in `runtime.json`."""
        return {key: getattr(self, key) for key in ("runtime", "setting", "ms", "off", "why_not")}


def settle_runtime(
    task: Task,
    *,
    model: nn.Module | None = None,
    run: Path | None = None,
    candidates: Sequence[str] = CANDIDATES,
) -> tuple[Task, Mapping[str, Any] | None]:
    """Return the task with the runtime chosen for it, and the record of the choice; None if the task names a runtime.

    model       the model, if it was handed over as an object
    run         folder of a run that may have begun: its runtime is kept
    candidates  runtimes to try; a tie goes to the first

    Raises `TaskError` if no runtime keeps the outputs, and `IntegrityError` for a record that cannot be read.
    """
    if task.hardware.runtime != AUTO:
        return task, None
    choice = _stored(run) if run is not None else None
    if choice is None:
        from ...evaluators import pinned
        from ...evaluators.latency import last_cores

        with pinned(last_cores(task.hardware.threads)):  # before any runtime starts its threads
            choice = _measure(task, model, candidates)
    return task.with_overrides([f"hardware.runtime={json.dumps(choice['runtime'])}"]), choice


def _stored(run: Path) -> Mapping[str, Any] | None:
    """Return the record of the choice that the run began with; None if there is none."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        choice = json.loads(path.read_text())
        if not isinstance(choice["runtime"], str):
            raise TypeError(f"its runtime must be a name, got {choice['runtime']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path} should say which runtime was chosen, and cannot be read: {error}; delete it to choose again"
        ) from error
    found: Mapping[str, Any] = choice
    return found


def _measure(task: Task, model: nn.Module | None, candidates: Sequence[str]) -> Mapping[str, Any]:
    """Try every runtime on the original and at INT8, time those that keep the outputs, and choose."""
    import torch

    from ...compressors import CompressedModel, calibrate, forward, trace_anatomy
    from ...compressors.anatomy import copied, plain_model
    from ..task import Plugins, load_task_data, load_task_model, widened

    Plugins.of(task).load()
    own = load_task_model(task) if model is None else plain_model(copied(widened(model)))
    model = own.cpu().eval().requires_grad_(False)
    splits = load_task_data(task)
    batches = [x for x, _ in splits.calibration.take(_CALIBRATION).batches(min(_CALIBRATION, task.data.batch_size))]
    samples = batches[0]
    with user_errors(task.data.batch_size):
        anatomy = trace_anatomy(model, splits.calibration.take(1).inputs)
        calibration = calibrate(model, batches, anatomy, tensors=True, mask=splits.calibration.mask)
    trials: list[RuntimeTrial] = []
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        with torch.no_grad():
            plain = forward(model, samples)
        for runtime in candidates:
            maker = _Maker(task, model, anatomy, calibration, samples, runtime, Path(folder) / runtime)
            trials.append(maker.trial("fp32", {}, {}, plain, _EXACT))
            if trials[-1].run is None or runtime == "torch":  # PyTorch computes in FP32, whatever is stored
                continue
            assignment, variants = maker.int8()
            with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
                expected = forward(model, samples)
            trials.append(maker.trial("int8", assignment, variants, expected, _ROUNDED))
        _time(trials)
    return choose_runtime(trials)


@dataclass(slots=True)
class _Maker:
    """Exporter for one runtime, which also loads its exports."""

    task: Task
    model: nn.Module
    anatomy: Anatomy
    calibration: Calibration
    samples: Any
    runtime: str
    folder: Path

    def int8(self) -> tuple[dict[str, LayerSpec], dict[str, Variant]]:
        """Return every layer at INT8 as the runtime runs it natively, where that applies."""
        from ...compressors import LayerSpec, applicable, compress, weight_at
        from ...compressors.variants import lacks
        from ..space import SAFE, native_scope
        from ..task import saturates_here

        plain = LayerSpec(weight_bits=SAFE if saturates_here(self.runtime) else 8, activation_bits=8)
        wanted = (replace(plain, activation_scope=native_scope(self.runtime)), plain, LayerSpec())

        def fits(spec: LayerSpec, fqn: str) -> bool:
            layer = self.anatomy[fqn]
            if spec.changes_weight and not bool(weight_at(self.model, fqn).isfinite().all()):
                return False
            return applicable(spec, layer) is None and lacks(spec, layer, self.calibration) is None

        assignment = {
            group_fqn: next(spec for spec in wanted if all(fits(spec, fqn) for fqn in group))
            for group in self.anatomy.groups
            for group_fqn in group
        }
        variants = {
            fqn: compress(weight_at(self.model, fqn).detach(), spec, self.anatomy[fqn])
            for fqn, spec in assignment.items()
        }
        return assignment, variants

    def trial(
        self,
        setting: str,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        expected: Outputs,
        most: float,
    ) -> RuntimeTrial:
        """Export, load and compare the outputs. Any exception of the runtime puts it out, with the reason."""
        from ...evaluators import Split
        from ...evaluators.runtimes import get_runtime

        found, runtime = RuntimeTrial(runtime=self.runtime, setting=setting), get_runtime(self.runtime)
        if (line := runtime.available()) is not None:
            found.why_not = line
            return found
        try:
            path = runtime.export(
                self.model, assignment, variants, self.calibration, self.samples, self.folder / setting
            )
            session = runtime.load(
                path, threads=self.task.hardware.threads, model_factory=lambda: copy.deepcopy(self.model)
            )
            output = session.run(self.samples)
            found.off = _off(output, expected)
        except Exception as error:  # of the exporter or the runtime
            found.why_not = reason(error)
            return found
        if not found.off <= most:
            found.why_not = f"its outputs are off by {found.off:.1%} of their size, and {most:.1%} is the most"
            return found
        one = Split("one", self.samples).take(1).inputs

        def run() -> None:
            session.run(one)

        found.run = run
        return found


def _off(outputs: Outputs, expected: Outputs) -> float:
    """Root mean square of the difference, relative to that of the expected outputs; of several the largest."""
    from ...compressors.anatomy import NamedOutputs, compared_tensors

    if isinstance(outputs, NamedOutputs) and isinstance(expected, NamedOutputs):
        outputs = outputs.like(expected)
    found = compared_tensors(outputs)
    return max(
        float((found[name] - wanted).square().mean().sqrt() / wanted.square().mean().sqrt().clamp(1e-12))
        for name, wanted in compared_tensors(expected).items()
    )


def _time(trials: Sequence[RuntimeTrial]) -> None:
    """Set `ms` of the trials that can run: the 10th percentile of interleaved times."""
    import numpy as np

    from ...evaluators import exclusive_slot, interleaved

    timers = {f"{each.runtime} {each.setting}": each.run for each in trials if each.run is not None}
    if not timers:
        return
    with exclusive_slot():
        # PyTorch runs apart from the others: it empties the caches that they would find full
        for of_torch in (False, True):
            group = {name: run for name, run in timers.items() if name.startswith("torch") == of_torch}
            if not group:
                continue
            samples = interleaved(group, min_rounds=60, min_seconds=1.0, max_seconds=20.0, rng=np.random.default_rng(0))
            for each in trials:
                if (name := f"{each.runtime} {each.setting}") in samples:
                    each.ms = samples[name].percentile(10)


def choose_runtime(trials: Sequence[RuntimeTrial]) -> dict[str, Any]:
    """Return the record of the choice, for `runtime.json`. Raises `TaskError` if no trial has a time."""
    timed = [each for each in trials if each.ms is not None]
    if not timed:
        raise TaskError(
            "hardware.runtime 'auto': no runtime gives this model's outputs: "
            + "; ".join(f"{each.runtime} {each.setting}: {each.why_not}" for each in trials)
            + "; install one, or name a runtime in [hardware]"
        )
    fastest = min(each.ms for each in timed if each.ms is not None)
    best = next(each for each in timed if each.ms is not None and each.ms <= _TIE * fastest)
    others = ", ".join(f"{each.runtime} {each.setting} {each.ms:.3g} ms" for each in timed if each is not best)
    why = f"{best.setting} takes {best.ms:.3g} ms at batch 1 there"
    why += f", and {others}" if others else "; nothing else runs this model here"
    out = [f"{each.runtime} {each.setting}: {each.why_not}" for each in trials if each.why_not]
    return {
        "asked": AUTO,
        "runtime": best.runtime,
        "why": why + (f". Out: {'; '.join(out)}" if out else ""),
        "tried": [each.to_dict() for each in trials],
    }


def describe_runtime_choice(choice: Mapping[str, Any]) -> str:
    """Describe a choice to the user in one line."""
    return f"runtime auto: {choice['runtime']}, because {choice['why']}"
