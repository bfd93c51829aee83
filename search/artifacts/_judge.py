"""Judgement of what a fresh process saw of an artifact: quality, latencies, memory, and parity with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ParedownError
from ...evaluators import Measurement
from ..problem import Problem, judge
from ..task import saturates_here
from ._explain_mismatch import describe_float64_difference, explain_mismatch
from ._exporter import Exporter
from ._measure_fresh import Loaded
from ._parity import Parity, ParityResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...compressors import LayerSpec
    from ...compressors.anatomy import Outputs
    from ...evaluators import ReferenceOutputs, Split


def judge_outputs(
    problem: Problem, reference: ReferenceOutputs, outputs: Outputs
) -> tuple[dict[str, Measurement], tuple[Any, ...]]:
    """(quality and divergence from the original, score or row of each sample) on the report split.

    outputs  of the artifact on the report split
    Raises `ParedownError` for outputs of another shape than the original's, and whatever a metric raises.
    """
    from ...evaluators import Scores, evaluate_outputs

    context, split = problem.context, problem.report
    outputs = named_alike(outputs, reference.outputs, "the artifact's outputs")
    scores = evaluate_outputs(context.metric, split, outputs, reference)
    divergence = context.distance.per_sample(outputs, reference)
    metrics = judge(context, Scores(metric=scores, divergence=divergence), split=split.name)
    return metrics, _stored(context.metric.compact(scores))


def _stored(rows: Tensor) -> tuple[Any, ...]:
    """Scores (N,) to 6 decimals; rows (N, K) to 12 digits, for ranks among them must stay."""
    if rows.dim() == 1:
        return tuple(round(float(score), 6) for score in rows)
    return tuple([float(f"{number:.12g}") for number in row] for row in rows.tolist())


def named_alike(outputs: Outputs, expected: Outputs, what: str) -> Outputs:
    """Give outputs of a runtime the names and the structure of the expected ones.

    Raises `ParedownError` where their number or a shape differs.
    """
    from ...compressors.anatomy import NamedOutputs, named_tensors

    if isinstance(outputs, NamedOutputs) and isinstance(expected, NamedOutputs):
        outputs = outputs.like(expected)
    came, wanted = (
        {name: tuple(tensor.shape) for name, tensor in named_tensors(found).items()} for found in (outputs, expected)
    )
    if came != wanted:
        raise ParedownError(f"{what} have shape {_shapes(came)}, not {_shapes(wanted)}")
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
    exporter: Exporter, assignment: Mapping[str, LayerSpec], outputs: Outputs, main: Path, *, runtime: str
) -> ParityResult:
    """Compare an artifact's outputs on the report split with PyTorch's for the same weights and quantizers.

    main, runtime  of the artifact. Where integers miss their bound it is loaded once more, to name its kernels; the
                   runtime "" names none.
    Raises `ParedownError` for outputs of another shape.
    """
    from ...evaluators import ReferenceOutputs
    from ...evaluators.runtimes import kernels_by_layer

    context, split = exporter.problem.context, exporter.problem.report
    batch_size = context.batch_size
    real = exporter.reference.real  # before the model is compressed: the original runs when it is first asked for
    with exporter.as_compressed(assignment) as (model, plain, anatomy):
        expected = ReferenceOutputs.of(exporter.outputs_of(model), real)
        outputs = named_alike(outputs, expected.outputs, "the export's outputs")
        parity = Parity.of_outputs(outputs, expected, context.distance)
        integer = any(spec.changes_activation for spec in plain.values())
        is_within, text = parity.verdict(integer=integer)
        if integer and not is_within:
            kernels = kernels_by_layer(main, runtime, anatomy.fqns, split.take(1).inputs)
            reference = describe_float64_difference(model, split, batch_size, expected, context.distance)
            why = explain_mismatch(kernels, anatomy, plain, reference, saturates=saturates_here(runtime))
            text = f"{text}. Why: {why}"
    return ParityResult(
        is_within=is_within, is_broken=not is_within and not integer, text=text, metrics=parity.metrics(split.name)
    )
