"""Made-up finished run: trials, a space and a front with everything that a page or a table may have to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from ..compressors import LayerSpec
from ..evaluators import Measurement
from ..search import Candidate, Completed, Failed, Front, Group, Infeasible, Point, SearchSpace, Trial
from ..search.values import Kind, Objective

LAYERS = ("stem.conv", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "head.fc")
WIDTHS = (32, 8, 6, 5, 4, 3, 2)
_WEIGHTS = (432, 2304, 2304, 4608, 640)
_HARM = (2.0, 1.0, 0.8, 0.6, 3.0)
_N_REPORT = 5000


def example_space() -> SearchSpace:
    """Space of five layers, seven weight widths each, activations in 8 bits wherever the weight is quantized."""
    levels = tuple(_spec(bits) for bits in WIDTHS)
    return SearchSpace(groups=tuple(Group(name=fqn, layers=(fqn,), levels=levels) for fqn in LAYERS))


def example_trials(n_mixed: int = 24) -> list[Trial]:
    """Trials: the original, six uniform settings, `n_mixed` mixed ones, of which one failed and one was infeasible."""
    trials: list[Trial] = [_completed(0, (0,) * len(LAYERS), "original")]
    trials += [_completed(level, (level,) * len(LAYERS), "uniform") for level in range(1, len(WIDTHS))]
    random = Random(0)
    for i in range(n_mixed):
        number = len(trials)
        levels = tuple(random.randint(1, len(WIDTHS) - 1) for _ in LAYERS)
        candidate = Candidate(levels=levels)
        if i == 3:
            trials.append(Failed(number=number, candidate=candidate, kind="mixed", reason="divergence is NaN", seed=7))
        elif i == 5:
            trials.append(Infeasible(number=number, candidate=candidate, kind="mixed", reason="bytes 99999 > 90000"))
        else:
            trials.append(_completed(number, levels, "mixed"))
    return trials


def example_front(run: Path) -> Front:
    """Front verified on the report split: the original, six uniform settings, and five mixed points, one not
    confirmed.
    """
    points = [_point(0, (0,) * len(LAYERS), "original")]
    points += [_point(level, (level,) * len(LAYERS), "uniform") for level in range(1, len(WIDTHS))]
    mixed = [
        (8, (1, 2, 2, 2, 1)),
        (11, (1, 3, 3, 4, 1)),
        (17, (2, 4, 4, 5, 1)),
        (23, (2, 5, 4, 5, 2)),
        (29, (3, 5, 5, 6, 3)),
    ]
    points += [_point(number, levels, "mixed", confirmed=number != 23) for number, levels in mixed]
    return Front(
        points=tuple(sorted(points, key=lambda p: p.metrics["bytes"].value)),
        picks={"knee": "t17", "smallest": "t29", "fastest": "t29", "best": "t8"},
        objectives=(Objective(name="accuracy", maximise=True), Objective(name="bytes")),
        limits={"accuracy": (0.88, None)},
        run=run,
        hypervolume=0.4123,
    )


def _spec(bits: int) -> LayerSpec:
    return LayerSpec() if bits == 32 else LayerSpec(weight_bits=bits, activation_bits=8)


def _facts(levels: tuple[int, ...]) -> tuple[float, float, float]:
    """Accuracy, bytes, milliseconds by smooth made-up laws."""
    bits = [WIDTHS[level] for level in levels]
    loss = sum(0.15 * h * 4.0 ** -(b - 1) for h, b in zip(_HARM, bits, strict=True) if b < 32)
    size = 900 + sum(n * b / 8 for n, b in zip(_WEIGHTS, bits, strict=True))
    return (
        0.9136 * math.exp(-loss),
        float(round(size)),
        0.42 + 0.7 * sum(b == 32 for b in bits) / len(bits) + 1e-6 * size,
    )


def _completed(number: int, levels: tuple[int, ...], kind: Kind) -> Completed:
    accuracy, size, _ = _facts(levels)
    metrics = {
        "accuracy": Measurement(
            value=accuracy, unit="fraction", low=accuracy - 0.01, high=min(1.0, accuracy + 0.01), split="search", n=1000
        ),
        "divergence": Measurement(value=1.0 - accuracy / 0.9136, unit="nat", split="search", n=1000),
        "bytes": Measurement(value=size, unit="bytes"),
    }
    return Completed(number=number, candidate=Candidate(levels=levels), kind=kind, metrics=metrics, seconds=0.4)


def _point(number: int, levels: tuple[int, ...], kind: Kind, *, confirmed: bool = True) -> Point:
    accuracy, size, latency_ms = _facts(levels)
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / _N_REPORT)
    metrics: Mapping[str, Measurement] = {
        "accuracy": Measurement(
            value=accuracy, unit="fraction", low=accuracy - half, high=accuracy + half, split="report", n=_N_REPORT
        ),
        "bytes": Measurement(value=size, unit="bytes"),
        "latency_ms": Measurement(value=latency_ms, unit="ms", low=0.98 * latency_ms, high=1.03 * latency_ms, n=120),
    }
    config: dict[str, Any] = {
        "schema_version": 1,
        "layers": {fqn: _spec(WIDTHS[level]).to_dict() for fqn, level in zip(LAYERS, levels, strict=True)},
    }
    return Point(
        id=f"t{number}",
        kind=kind,
        verified=True,
        recommended=kind == "mixed" and confirmed,
        metrics=metrics,
        search_metrics=_completed(number, levels, kind).metrics,
        config=config,
        note="" if confirmed else "its lead over uniform w3 a8 is within noise on the report split (p = 0.31)",
    )
