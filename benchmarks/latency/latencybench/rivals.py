"""What else could foresee a model's latency: operations counted, a table of lone layers, a roofline.

Each gives the latency relative to the FP32 original. `fitted`: the same, with a line through the models that the
predictor was fitted to, which is more than such methods are given elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from paredown.compressors import Anatomy, LayerSpec, calibrate, module_at, trace_anatomy
from paredown.evaluators import LatencySamples, macs, modelled_latency_ms
from paredown.evaluators.prediction import Bed, Form, Layout, Template
from paredown.hardware_profiles import load_profile


def spec_of(layer: Any, form: Form) -> LayerSpec:
    """A spec that runs in this form."""
    if form.integer:
        return LayerSpec(weight_bits=8, activation_bits=8)
    rank = 1.0
    if form.kept_rank:
        rank = form.kept_rank / min(layer.matrix_shape)
    return LayerSpec(rank=rank, activation_bits=8 if form.rounded else 32)


def assignment_of(anatomy: Anatomy, layout: Layout, forms: Sequence[Form]) -> dict[str, LayerSpec]:
    return {fqn: spec_of(anatomy[fqn], form) for fqn, form in zip(layout.fqns, forms, strict=True)}


def by_operations(anatomy: Anatomy, layout: Layout, many: Sequence[Sequence[Form]]) -> np.ndarray:
    whole = macs(anatomy).total
    return np.array([macs(anatomy, assignment_of(anatomy, layout, forms)).total / whole for forms in many])


def by_roofline(anatomy: Anatomy, layout: Layout, many: Sequence[Sequence[Form]], runtime: str) -> np.ndarray:
    profile = load_profile(f"x86-64-{runtime}")
    whole = modelled_latency_ms(anatomy, None, profile).total_ms
    return np.array(
        [modelled_latency_ms(anatomy, assignment_of(anatomy, layout, f), profile).total_ms / whole for f in many]
    )


def lone_layers(
    model: nn.Module, anatomy: Anatomy, layout: Layout, inputs: Any, many: Sequence[Sequence[Form]], runtime: str
) -> dict[str, float]:
    """ "class form" -> milliseconds of such a layer alone in the runtime, for every form that occurs in `many`."""
    wanted: dict[str, dict[Form, str]] = {}
    for forms in many:
        for layer, form in zip(layout.layers, forms, strict=True):
            wanted.setdefault(layer.name, {Form(): layer.fqn})[form] = layer.fqn
    found: dict[str, float] = {}
    for name, forms_of_class in wanted.items():
        fqn = next(iter(forms_of_class.values()))
        lone = nn.Sequential(module_at(model, fqn))
        x = _input_of(model, fqn, inputs)
        own = trace_anatomy(lone, x[:1])
        template = Template.trace(lone, own, calibrate(lone, [x], own), x[:2])
        bed = Bed(template, x[:1], runtime=runtime, threads=1)
        try:
            for form in forms_of_class:
                timed = bed.time({"0": form})
                found[f"{name} {form.label()}"] = LatencySamples(timed.ms).percentile(10)
        finally:
            bed.close()
    return found


def by_lone_layers(
    layout: Layout, many: Sequence[Sequence[Form]], table: Mapping[str, float], original_ms: float
) -> np.ndarray:
    """The original's measured time, and for each layer what its form takes more or less when it runs alone."""
    return np.array(
        [
            1.0
            + sum(
                table[f"{layer.name} {form.label()}"] - table[f"{layer.name} fp32"]
                for layer, form in zip(layout.layers, forms, strict=True)
            )
            / original_ms
            for forms in many
        ]
    )


def with_a_line(rival: np.ndarray, seen: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """`rival` for new models, after a least-squares line through what it said of those that were measured."""
    if np.ptp(seen) < 1e-9:
        return np.full(len(rival), ratios.mean())
    slope, shift = np.polyfit(seen, ratios, 1)
    return slope * rival + shift


def _input_of(model: nn.Module, fqn: str, inputs: Any) -> Any:
    kept: list[Any] = []
    handle = module_at(model, fqn).register_forward_pre_hook(lambda module, args: kept.append(args[0].detach()))
    try:
        model(inputs)
    finally:
        handle.remove()
    return kept[0].contiguous()
