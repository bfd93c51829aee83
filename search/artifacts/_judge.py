"""Judgement of what a fresh process saw of an artifact: quality, latencies, memory, and parity with PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ParedownError
from ...evaluators import Measurement
from ..problem import Problem, judge
from ..task import saturates_here
from ._explain_mismatch import describe_float64_difference, explain_mismatch
from ._exporter import Exporter
from ._measure_fresh import Loaded
from ._parity import FLOAT_BOUND, Parity, ParityResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

    from ...compressors import LayerSpec
    from ...compressors.anatomy import Outputs
    from ...evaluators import OutputDistance, Reference, ReferenceOutputs, Split


def judge_outputs(
    problem: Problem, reference: Reference, outputs: Iterable[Outputs]
) -> tuple[dict[str, Measurement], tuple[Any, ...]]:
    """(quality and divergence from the original, score or row of each sample) on the report split.

    outputs  of the artifact on the report split, some samples at a time
    Raises `ParedownError` for outputs of another shape than the original's, and whatever a metric raises.
    """
    from ...evaluators import evaluate_batches

    context, split = problem.context, problem.report
    like = reference.between(0, 1).outputs
    named = (named_alike(part, like, "the artifact's outputs") for part in outputs)
    scores = evaluate_batches(named, split, context.metric, reference=reference, divergence=context.distance)
    return judge(context, scores, split=split.name), _stored(scores.metric)


def _stored(rows: Tensor) -> tuple[Any, ...]:
    """Scores (N,) to 6 decimals; rows (N, K) to 12 digits, for ranks among them must stay."""
    if rows.dim() == 1:
        return tuple(round(float(score), 6) for score in rows)
    return tuple([float(f"{number:.12g}") for number in row] for row in rows.tolist())


def named_alike(outputs: Outputs, expected: Outputs, what: str) -> Outputs:
    """Give outputs of a runtime the names and the structure of the expected ones.

    Raises `ParedownError` where their number or a sample's shape differs.
    """
    from ...compressors.anatomy import NamedOutputs, named_tensors

    if isinstance(outputs, NamedOutputs) and isinstance(expected, NamedOutputs):
        outputs = outputs.like(expected)
    came, wanted = (
        {name: tuple(tensor.shape[1:]) for name, tensor in named_tensors(found).items()}
        for found in (outputs, expected)
    )
    if came != wanted:
        raise ParedownError(f"{what} have shape {_shapes(came)} a sample, not {_shapes(wanted)}")
    return outputs


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}".strip() for name, shape in shapes.items())


def latency_metrics(loaded: Loaded, grid_g_per_kwh: float | None) -> dict[str, Measurement]:
    """Percentiles of the latency with their intervals, the speed-up over the original in the same runtime (`compare`),
    energy and throughput where they were measured. CO2 stays modelled, for no counter reads it.

    Empty where nothing was timed.
    """
    from ...evaluators import LatencySamples, Measurement
    from ...evaluators.energy import co2_measurement
    from ...evaluators.latency import compare

    if not loaded.latency_ms:
        return {}
    samples = LatencySamples(loaded.latency_ms)
    metrics = {"latency_ms": samples.measurement()}
    metrics |= {f"latency_{name}_ms": percentile for name, percentile in samples.measurements().items()}
    if loaded.energy_mj is not None:
        metrics["energy_mj"] = energy = Measurement.from_dict(loaded.energy_mj)
        if grid_g_per_kwh is not None:
            metrics["co2_g_per_million"] = co2_measurement(energy, grid_g_per_kwh)
    metrics |= {name: Measurement.from_dict(measured) for name, measured in loaded.capacity.items()}
    if loaded.reference_ms:
        compared = compare(LatencySamples(loaded.reference_ms), samples)
        metrics["speedup"] = Measurement(
            value=compared.ratio, low=compared.low, high=compared.high, unit="x", n=len(samples)
        )
    if loaded.eager_ms:
        metrics["eager_ms"] = LatencySamples(loaded.eager_ms).measurement()
    if "aa_floor" in loaded.facts:
        metrics["aa_floor"] = Measurement(value=float(loaded.facts["aa_floor"]), unit="share")
    return metrics


def measure_peak_memory(main: Path, runtime: str, split: Split, *, threads: int) -> dict[str, Measurement]:
    """`peak_memory_bytes` of a session at batch 1, measured in a process of its own.

    Empty for a runtime whose sessions need the user's code. Raises `ParedownError` where it cannot be measured.
    """
    from ...evaluators.latency import peak_memory

    if runtime not in ("onnxruntime", "openvino"):
        return {}
    return {"peak_memory_bytes": peak_memory(main, runtime, split.take(1).inputs, threads=threads)}


def check_parity(
    exporter: Exporter,
    assignment: Mapping[str, LayerSpec],
    outputs: Iterable[Outputs],
    main: Path,
    *,
    runtime: str,
    rounding: str = "",
) -> ParityResult:
    """Compare an artifact's outputs on the report split with PyTorch's for the same weights and quantizers.

    outputs        some samples at a time
    main, runtime  of the artifact. Where integers miss their bound it is loaded once more, to name its kernels; the
                   runtime "" names none.
    rounding       clause on what the runtime rounded by itself; "" for nothing. Where the outputs then miss the bound
                   of floating point, the file is loaded once more without that rounding, and must keep the bound
    Raises `ParedownError` for outputs of another shape.
    """
    from ...evaluators.runtimes import kernels_by_layer

    context, split = exporter.problem.context, exporter.problem.report
    with exporter.as_compressed(assignment) as (model, plain, anatomy):
        distance = answers_of(exporter.problem)
        parity = Parity.of_pairs(_beside(model, split, context.batch_size, outputs), distance)
        integer = any(spec.changes_activation for spec in plain.values())
        is_within, text = parity.verdict(integer=integer, rounding=bool(rounding))
        is_broken = not is_within and not integer
        if rounding and not integer and not parity.is_exact:
            exact = _exact_parity(main, runtime, model, split.take(context.batch_size), distance)
            is_broken = exact is None or not exact.is_exact
            text = f"{text}. Why: {rounding}; {_describe_exact(exact)}"
        elif integer and not is_within:
            kernels = kernels_by_layer(main, runtime, anatomy.fqns, split.take(1).inputs)
            reference = describe_float64_difference(model, split, context.batch_size, distance)
            why = explain_mismatch(kernels, anatomy, plain, reference, saturates=saturates_here(runtime))
            text = f"{text}. Why: {'; '.join(filter(None, (rounding, why)))}"
    return ParityResult(
        is_within=is_within and not is_broken, is_broken=is_broken, text=text, metrics=parity.metrics(split.name)
    )


def _exact_parity(main: Path, runtime: str, model: nn.Module, rows: Split, distance: OutputDistance) -> Parity | None:
    """Compare a file's outputs on some samples with PyTorch's, without rounding at run time, which hides what else
    might be wrong with the file. None for a runtime that cannot leave it out.

    model  the compressed model in PyTorch, with its hooks
    """
    from ...evaluators import ReferenceOutputs
    from ...evaluators.runtimes import get_runtime

    load = getattr(get_runtime(runtime), "load_exactly", None) if runtime else None
    if load is None:
        return None
    expected = ReferenceOutputs.compute(model, rows, len(rows))
    outputs = named_alike(load(main, threads=1).run(rows.inputs), expected.outputs, "the export's outputs")
    return Parity.of_outputs(outputs, expected, distance)


def _describe_exact(parity: Parity | None) -> str:
    if parity is None:
        return "the runtime cannot be asked to leave that out, so that the file cannot be checked"
    found = f"without that the same file is within {parity.max_difference:.1e} of PyTorch's"
    return found if parity.is_exact else f"{found}, not within {FLOAT_BOUND:.0e}: it computes something else"


def answers_of(problem: Problem) -> OutputDistance:
    """Give the distance of the problem, without a class axis where the largest number of an output is no answer.

    It is one where outputs are compared as logits ("kl"), the metric reads classes, or the task names their axis. The
    outputs of an embedding, a regression or a controller have none, and no "same answer".
    """
    distance, first = problem.context.distance, problem.context.distance.outputs[0]
    named = problem.task.quality.class_axis is not None
    if named or first.kind == "kl" or problem.context.metric.reads_classes:
        return distance
    return replace(distance, outputs=(replace(first, class_axis=None), *distance.outputs[1:]))


def _beside(
    model: nn.Module, split: Split, batch_size: int, outputs: Iterable[Outputs]
) -> Iterator[tuple[Outputs, ReferenceOutputs]]:
    """Yield an artifact's outputs, some samples at a time, and the model's own on the same samples."""
    from ...evaluators import ReferenceOutputs

    at = 0
    for part in outputs:
        expected = ReferenceOutputs.compute(model, split.between(at, at + len(part)), batch_size)
        yield named_alike(part, expected.outputs, "the export's outputs"), expected
        at += len(part)
