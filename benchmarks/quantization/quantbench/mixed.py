"""Mixed precision from the search against the best uniform setting: its method and format, no more bytes (and BOPs).

The uniform setting is the one of several (method, format) that has the least divergence on the search part. The search
sees the search part alone; of its trials that cost no more than the uniform setting, the one of least divergence there
is run on the report part, once, and held against the uniform setting sample by sample: in the model's own metric, and
beside it in the divergence from the original's outputs, which is finer than whether an answer was right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from paredown.compressors import FLOAT_BITS, FORMAT_BITS, LayerSpec
from paredown.evaluators import Metric, ReferenceOutputs, bops, evaluate_split, paired_test
from paredown.search import Completed, Task, open_run
from paredown.search._search import run_search

from .bench import Assignment, Bench, Variants

WIDTHS = (2, 3, 4, 5, 6, 8)
LEAST_SHARE = 0.92
"""Of the uniform setting's bytes (or BOPs) that a candidate must spend: the search is about this budget, not below."""

WEIGHTS: dict[str, dict[str, Any]] = {
    "gptq": {"weight_method": "gptq"},
    "descent": {"weight_method": "descent"},
    "int_asym gptq": {"weight_method": "gptq", "weight_format": "int_asym", "scale_bits": 16},
    "int_asym descent": {"weight_method": "descent", "weight_format": "int_asym", "scale_bits": 16},
    "palette gptq": {"weight_method": "gptq", "weight_format": "palette", "scale_bits": 16},
    "palette descent": {"weight_method": "descent", "weight_format": "palette", "scale_bits": 16},
}
"""Of the ways of `settings.py` those that lead at 4 and 3 bits in `results/quantization.md`; no others are tried."""

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "minmax": {},
    "percentile": {"activation_method": "percentile"},
    "entropy": {"activation_method": "entropy"},
    "least squares": {"activation_method": "affine"},
    "dynamic": {"activation_scheme": "dynamic"},
}

BUDGETS: dict[str, tuple[int, int]] = {"W4": (4, FLOAT_BITS), "W3": (3, FLOAT_BITS), "W4A4": (4, 4)}
"""Name -> (weight bits, activation bits) of the uniform settings whose cost is the budget."""

_DIVERGENCE = Metric(name="divergence", maximise=False, per_sample=lambda outputs, targets, reference: outputs[:, 0])


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A uniform setting, or what the search found: compressed, with its figures on the search part."""

    name: str
    assignment: Assignment
    variants: Variants
    search_divergence: float
    n_bytes: int
    n_bops: float


def data_of(name: str, samples: int) -> dict[str, Any]:
    """The search's own three splits; its report split is four samples that nothing is made of."""
    from .subjects import SUBJECTS

    subject = SUBJECTS[name]()
    part = subject.search.take(min(samples, len(subject.search)))
    rest = subject.report.take(4)

    def pair(inputs: Tensor, targets: Tensor | None) -> Any:
        return inputs if targets is None else (inputs, targets)

    return {
        "calibration": subject.calibration,
        "search": pair(part.inputs, part.targets),  # type: ignore[arg-type]
        "report": pair(rest.inputs, rest.targets),  # type: ignore[arg-type]
    }


def mixed(bench: Bench, budget: str, trials: int, runs: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One comparison, JSON-ready. `gain`, `low`, `high` are positive where mixed precision is better: in the metric's
    unit, of the metric and of the divergence.

    runs  a folder for the search's run; one that was cut off there goes on
    """
    runs.mkdir(parents=True, exist_ok=True)
    folder = runs / f"{bench.subject.name}-{budget}"
    known = _uniform(bench, budget, folder.with_suffix(".uniform.json"), say)
    name = min(known, key=lambda name: known[name][0])
    best = _compressed(bench, name, budget)
    found = _searched(bench, best, budget, trials, folder)
    say(f"{bench.subject.name:12} {budget:5} the search {found.search_divergence:.5g}, {found.n_bytes} B")
    report = bench.subject.report
    reference = ReferenceOutputs.compute(bench.subject.model, report, bench.subject.batch_size)
    (ours, our_distance), (theirs, their_distance) = (_reported(bench, each, reference) for each in (found, best))
    apart = paired_test(our_distance, their_distance, _DIVERGENCE)
    paired = paired_test(ours, theirs, bench.metric)
    weights = sum(layer.n_weights for layer in bench.anatomy.layers)
    specs = found.assignment
    return {
        "uniform": best.name,
        "trials": trials,
        "mean_bits": sum(x.n_weights * specs[x.fqn].weight_bits for x in bench.anatomy.layers) / weights,
        "bytes": found.n_bytes,
        "uniform_bytes": best.n_bytes,
        "bops": found.n_bops,
        "uniform_bops": best.n_bops,
        "original_value": bench.value(bench.original),
        "value": bench.value(ours),
        "uniform_value": bench.value(theirs),
        "gain": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "divergence": {
            "value": float(our_distance.mean()),
            "uniform_value": float(their_distance.mean()),
            "gain": apart.difference,
            "low": apart.low,
            "high": apart.high,
        },
        "search_divergence": found.search_divergence,
        "uniform_search_divergence": best.search_divergence,
        "contenders": known,
        "layers": {fqn: spec.label() for fqn, spec in specs.items()},
    }


def _uniform(bench: Bench, budget: str, kept: Path, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Name -> (divergence on the search part, bytes): weights by each way; activations, where they are rounded too, by
    each way with the best of these. What is in the file `kept` is not tried again."""
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}

    def tried(name: str) -> None:
        if name in known:
            return
        contender = _compressed(bench, name, budget)
        known[name] = [contender.search_divergence, contender.n_bytes]
        kept.write_text(json.dumps(known))
        say(f"{bench.subject.name:12} {budget:5} {name:28} {contender.search_divergence:.5g} {contender.n_bytes} B")

    for name in WEIGHTS:
        tried(name)
    if BUDGETS[budget][1] == FLOAT_BITS:
        return known
    best = min(WEIGHTS, key=lambda name: known[name][0])
    for name in ACTIVATIONS:
        tried(f"{best}, {name}")
    return {name: figures for name, figures in known.items() if name not in WEIGHTS}


def _compressed(bench: Bench, name: str, budget: str) -> Contender:
    weights, _, activations = name.partition(", ")
    weight_bits, activation_bits = BUDGETS[budget]
    fields = {**WEIGHTS[weights], **ACTIVATIONS.get(activations, {}), "weight_bits": weight_bits}
    if activations:
        fields["activation_bits"] = activation_bits
    assignment, variants, _ = bench.compressed(LayerSpec(**fields))
    tied = _tied(bench)  # as the search may have them, or the budget in BOPs would be one that it cannot spend
    assignment = {fqn: spec.weight_only if fqn in tied else spec for fqn, spec in assignment.items()}
    return contender_of(bench, name, assignment, variants)


def contender_of(bench: Bench, name: str, assignment: Assignment, variants: Variants) -> Contender:
    with torch.no_grad(), bench.resident.apply(assignment, variants):
        distance = bench.search_divergence()
    return Contender(
        name=name, assignment=assignment, variants=variants, search_divergence=distance,
        n_bytes=bench.bytes_of(assignment, variants), n_bops=bops(bench.anatomy, assignment).total,
    )  # fmt: skip


def _reported(bench: Bench, contender: Contender, reference: ReferenceOutputs) -> tuple[Tensor, Tensor]:
    """(scores, divergences) on the report part, sample by sample."""
    subject, report = bench.subject, bench.subject.report
    with torch.no_grad(), bench.resident.apply(contender.assignment, contender.variants):
        found = evaluate_split(
            subject.model, report, bench.metric, reference=reference, divergence=bench.divergence,
            batch_size=subject.batch_size,
        )  # fmt: skip
    if found.divergence is None:
        raise RuntimeError("no divergence was measured")
    return found.metric, found.divergence


def _searched(bench: Bench, uniform: Contender, budget: str, trials: int, folder: Path) -> Contender:
    subject = bench.subject
    costs = {"bytes": uniform.n_bytes}
    led_by = "bytes"
    if BUDGETS[budget][1] != FLOAT_BITS:
        costs["bops"], led_by = uniform.n_bops, "bops"
    limits = {name: {"max": most} for name, most in costs.items()}
    limits[led_by]["min"] = LEAST_SHARE * costs[led_by]
    plain = {"activation_bits": [FLOAT_BITS]}
    task = Task.from_dict(
        {
            "data": {
                "factory": data_of, "args": {"name": subject.name, "samples": len(subject.search)},
                "batch_size": subject.batch_size, "overlap": "drop",
            },
            "quality": {"metric": subject.metric, "max_loss": 1.0},
            "hardware": {"runtime": "torch"},
            "space": _space(uniform, budget) | {"overrides": dict.fromkeys(_tied(bench), plain)},
            "objectives": {"names": ["divergence", led_by]},
            "limits": limits,
            "search": {"seed": 0, "screen": 0},
            "budget": {"trials": trials},
            "mlflow": {"enabled": False},
        },
        base_dir=Path(__file__).parent,
    )  # fmt: skip
    # exports and their clocks take minutes, and say nothing of the quality
    with mock.patch("paredown.search._search.check_exports"):
        run_search(task, model=subject.model, out=folder, workers=0, verify=lambda inputs: None)
    run = open_run(folder)
    known = [trial for trial in run.trials if isinstance(trial, Completed) and trial.kind != "original"]
    fitting = [t for t in known if all(t.metrics[name].value <= most for name, most in costs.items())]
    chosen = min(fitting, key=lambda trial: trial.metrics["divergence"].value)
    assignment = {fqn: LayerSpec() for fqn in bench.anatomy.fqns} | dict(run.space.assignment(chosen.candidate))
    return contender_of(bench, "mixed", assignment, bench.variants(assignment))


def _space(uniform: Contender, budget: str) -> dict[str, Any]:
    """The best uniform setting's method and format at every width; what has no 8 bits has integers beside it."""
    spec = max(uniform.assignment.values(), key=lambda spec: spec.changes_activation)
    formats = [spec.weight_format]
    space: dict[str, Any] = {
        "weight_method": [spec.weight_method],
        "scale_bits": [spec.scale_bits],
        "activation_bits": [FLOAT_BITS],
    }
    if BUDGETS[budget][1] != FLOAT_BITS:
        methods = dict.fromkeys((spec.activation_method, "minmax"))
        space |= {"activation_bits": [4, 6, 8], "activation_method": list(methods)}
        space["activation_scheme"] = list(dict.fromkeys((spec.activation_scheme, "affine")))
    elif max(FORMAT_BITS[spec.weight_format]) < max(WIDTHS):
        formats.append("int_asym")
    widths = {bits for name in formats for bits in FORMAT_BITS[name]}
    return space | {"weight_format": formats, "weight_bits": [bits for bits in WIDTHS if bits in widths]}


def _tied(bench: Bench) -> set[str]:
    """What shares its weight with an embedding, whose input is whole numbers: its input is left alone too."""
    embeddings = {layer.fqn for layer in bench.anatomy.layers if layer.kind == "embedding"}
    return {fqn for group in bench.anatomy.groups if embeddings & set(group) for fqn in group}
