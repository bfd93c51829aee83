"""`[hardware] runtime = "auto"`: the runtimes that are installed here run the model, and the fastest is taken.

Each runs the original, and every layer at INT8 as that runtime needs it, at batch 1, all interleaved on pinned cores.
One whose outputs are not PyTorch's is out, however fast. What was found is written into the run, so that it goes on
with the same runtime.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors.anatomy._trace import trace_anatomy
from ...errors import IntegrityError, TaskError
from ..values import reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy, Calibration, LayerSpec, Variant
    from ..task import Task

AUTO = "auto"
FILE = "runtime.json"
CANDIDATES = ("onnxruntime", "openvino", "torch")
"""In the order in which ties are decided. "torch-compile" takes minutes to load, and has to be asked for by name."""
_EXACT = 1e-3
_ROUNDED = 0.05
"""How far outputs may be from PyTorch's, as a share of their size (root mean square): in FP32, and in INT8, where
values between two codes fall on either side."""
_TIE = 1.03
_CALIBRATION = 64


@dataclass(slots=True, kw_only=True)
class _Tried:
    """A runtime and a setting ("fp32", "int8"): its session, or why there is none."""

    runtime: str
    setting: str
    run: Callable[[], None] | None = None
    off: float | None = None
    ms: float | None = None
    why_not: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("runtime", "setting", "ms", "off", "why_not")}


def settle_runtime(
    task: Task, *, model: nn.Module | None = None, run: Path | None = None
) -> tuple[Task, Mapping[str, Any] | None]:
    """The task with a runtime of its own, and what was measured for it; as it is where it names one.

    run  folder of a run that may have begun; what it was begun with is kept
    Raises `TaskError` where no runtime keeps the outputs, `IntegrityError` for a record that cannot be read.
    """
    if task.hardware.runtime != AUTO:
        return task, None
    choice = _stored(run) if run is not None else None
    if choice is None:
        from ...evaluators import pinned
        from ...evaluators.latency import last_cores

        with pinned(last_cores(task.hardware.threads)):  # before any runtime starts its threads
            choice = _measure(task, model)
    return task.with_overrides([f"hardware.runtime={json.dumps(choice['runtime'])}"]), choice


def _stored(run: Path) -> Mapping[str, Any] | None:
    path = run / FILE
    if not path.is_file():
        return None
    try:
        choice = json.loads(path.read_text())
        if not isinstance(choice["runtime"], str):
            raise TypeError(f"its runtime is {choice['runtime']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} should say which runtime was chosen, and cannot be read: {error}") from error
    found: Mapping[str, Any] = choice
    return found


def _measure(task: Task, model: nn.Module | None) -> Mapping[str, Any]:
    import torch

    from ...compressors import CompressedModel, calibrate, forward
    from ..task import Plugins, load_task_data, load_task_model

    Plugins.of(task).load()
    model = (load_task_model(task) if model is None else copy.deepcopy(model)).cpu().eval().requires_grad_(False)
    splits = load_task_data(task)
    samples = splits.calibration.take(min(_CALIBRATION, len(splits.calibration))).inputs
    anatomy = trace_anatomy(model, splits.calibration.take(1).inputs)
    calibration = calibrate(model, [samples], anatomy, tensors=True)
    tried: list[_Tried] = []
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        with torch.no_grad():
            plain = forward(model, samples)
        for runtime in CANDIDATES:
            made = _Maker(task, model, anatomy, calibration, samples, runtime, Path(folder) / runtime)
            tried.append(made.tried("fp32", {}, {}, plain, _EXACT))
            if tried[-1].run is None or runtime == "torch":  # PyTorch computes FP32 whatever is stored
                continue
            assignment, variants = made.int8()
            with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
                expected = forward(model, samples)
            tried.append(made.tried("int8", assignment, variants, expected, _ROUNDED))
        _time(tried)
    return _chosen(tried)


@dataclass(slots=True)
class _Maker:
    """Exports for one runtime, and loads what it exported."""

    task: Task
    model: nn.Module
    anatomy: Anatomy
    calibration: Calibration
    samples: Any
    runtime: str
    folder: Path

    def int8(self) -> tuple[dict[str, LayerSpec], dict[str, Variant]]:
        from ...compressors import LayerSpec, applicable, compress, weight_at
        from ..space import SAFE, native_scope
        from ..task import saturates_here

        plain = LayerSpec(weight_bits=SAFE if saturates_here(self.runtime) else 8, activation_bits=8)
        wanted = (replace(plain, activation_scope=native_scope(self.runtime)), plain, LayerSpec())
        assignment = {
            group_fqn: next(
                spec for spec in wanted if all(applicable(spec, self.anatomy[fqn]) is None for fqn in group)
            )
            for group in self.anatomy.groups
            for group_fqn in group
        }
        variants = {
            fqn: compress(weight_at(self.model, fqn).detach(), spec, self.anatomy[fqn])
            for fqn, spec in assignment.items()
        }
        return assignment, variants

    def tried(
        self,
        setting: str,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        expected: Tensor,
        most: float,
    ) -> _Tried:
        """Whatever a runtime raises is why it is not taken."""
        from ...evaluators import Split
        from ...evaluators.runtimes import get_runtime

        found, runtime = _Tried(runtime=self.runtime, setting=setting), get_runtime(self.runtime)
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
            found.off = float((output - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(1e-12))
        except Exception as error:  # the exporter's, or the runtime's own
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


def _time(tried: Sequence[_Tried]) -> None:
    import numpy as np

    from ...evaluators import exclusive_slot, interleaved

    timers = {f"{each.runtime} {each.setting}": each.run for each in tried if each.run is not None}
    if not timers:
        return
    with exclusive_slot():
        # PyTorch apart from the others: it empties the caches that they would find full
        for of_torch in (False, True):
            group = {name: run for name, run in timers.items() if name.startswith("torch") == of_torch}
            if not group:
                continue
            samples = interleaved(group, min_rounds=60, min_seconds=1.0, max_seconds=20.0, rng=np.random.default_rng(0))
            for each in tried:
                if (name := f"{each.runtime} {each.setting}") in samples:
                    each.ms = samples[name].percentile(10)


def _chosen(tried: Sequence[_Tried]) -> dict[str, Any]:
    timed = [each for each in tried if each.ms is not None]
    if not timed:
        raise TaskError(
            "hardware.runtime 'auto': no runtime gives this model's outputs: "
            + "; ".join(f"{each.runtime} {each.setting}: {each.why_not}" for each in tried)
            + "; install one, or name the one that you want"
        )
    fastest = min(each.ms for each in timed if each.ms is not None)
    best = next(each for each in timed if each.ms is not None and each.ms <= _TIE * fastest)
    others = ", ".join(f"{each.runtime} {each.setting} {each.ms:.3g} ms" for each in timed if each is not best)
    why = f"{best.setting} takes {best.ms:.3g} ms at batch 1 there"
    why += f", and {others}" if others else "; nothing else runs this model here"
    out = [f"{each.runtime} {each.setting}: {each.why_not}" for each in tried if each.why_not]
    return {
        "asked": AUTO,
        "runtime": best.runtime,
        "why": why + (f". Out: {'; '.join(out)}" if out else ""),
        "tried": [each.to_dict() for each in tried],
    }


def said(choice: Mapping[str, Any]) -> str:
    """A line for the user."""
    return f"runtime auto: {choice['runtime']}, because {choice['why']}"
