"""Gain of a layer of each class when it runs alone, the starting point of the fit.

A table of lone layers knows nothing of fusion and of quantizers between neighbours, but a good deal of kernels. It is
one more feature, with a scale of its own. ResNet-20 on ONNX Runtime, mean error on 70 models never seen: fitted to 20
models 1.96 % without and 1.51 % with it, to 70 models 1.01 % and 0.84 %; DS-CNN in OpenVINO gains nothing (0.60 %).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ParedownError
from ..latency import LayerShape, exclusive_slot, graph_of, interleaved
from ..runtimes import runtime_with
from ._features import Layout
from ._forms import Form

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo
    from ..runtimes import Runtime, RuntimeOptions

_SECONDS = 0.15


def with_lone_gains(
    layout: Layout,
    anatomy: Anatomy,
    offers: Sequence[Sequence[Mapping[str, Form]]],
    *,
    runtime: str,
    threads: int,
    original_ms: float,
    options: RuntimeOptions | None = None,
) -> Layout:
    """Copy the layout with `lone` filled in, for two-dimensional convolutions and linear layers. It takes seconds.

    original_ms  what the whole original takes, of which gains are shares
    options      as in `measure_table`
    """
    forms, loader = _forms_by_class(layout, offers), runtime_with(runtime, options)
    gains: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        for layer in layout.layers:
            shape = _shape_of(anatomy[layer.fqn])
            if layer.name in gains or shape is None:
                continue
            with exclusive_slot():
                ms = _milliseconds(shape, forms.get(layer.name, ()), loader, threads, Path(folder))
            base = ms.pop("fp32", None)
            calls = anatomy[layer.fqn].n_calls
            gains[layer.name] = (
                {label: calls * (x - base) / original_ms for label, x in ms.items()} if base is not None else {}
            )
    layers = tuple(dataclasses.replace(layer, lone=gains.get(layer.name, {})) for layer in layout.layers)
    return Layout(layers=layers, wiring=layout.wiring)


def _forms_by_class(layout: Layout, offers: Sequence[Sequence[Mapping[str, Form]]]) -> dict[str, list[Form]]:
    names = {layer.fqn: layer.name for layer in layout.layers}
    found: dict[str, dict[Form, None]] = {}
    for offer in offers:
        for forms in offer:
            for fqn, form in forms.items():
                if fqn in names and not form.is_plain:
                    found.setdefault(names[fqn], {})[form] = None
    return {name: list(forms) for name, forms in found.items()}


def _shape_of(layer: LayerInfo) -> LayerShape | None:
    if layer.kind == "linear":
        rows = int(np.prod(layer.input_shape[:-1])) if len(layer.input_shape) > 1 else 1
        return LayerShape(operator="linear", weight=layer.weight_shape, input=(rows, layer.weight_shape[1]))
    if layer.kind == "conv2d":
        stride = max(1, round(layer.input_shape[-1] / max(1, layer.output_shape[-1])))
        return LayerShape(
            operator="conv2d", weight=layer.weight_shape, input=layer.input_shape, groups=layer.groups, stride=stride
        )
    return None


def _milliseconds(
    shape: LayerShape, forms: Iterable[Form], runtime: Runtime, threads: int, folder: Path
) -> dict[str, float]:
    """Label -> p10 of one such layer in that form, and in FP32; a form that the runtime refuses is missing."""
    import torch

    graphs = {"fp32": "fp32"}
    for form in forms:
        if form.integer or form.kept_rank:
            graphs[form.label()] = "int8" if form.integer else f"r{form.kept_rank}"
    x = torch.zeros(1, *shape.input)
    timers: dict[str, Any] = {}
    for label, kind in graphs.items():
        path = folder / f"{len(list(folder.iterdir()))}.onnx"  # a name of its own: a session may map its file
        path.write_bytes(graph_of(shape, kind))
        try:
            session = runtime.load(path, threads=threads)
            session.run(x)
        except ParedownError:
            continue  # a form that the runtime has not: the whole models will say what it costs
        timers[label] = lambda session=session: session.run(x)
    if "fp32" not in timers:
        return {}
    found = interleaved(timers, min_rounds=40, min_seconds=_SECONDS, max_seconds=3.0, rng=np.random.default_rng(0))
    return {label: samples.percentile(10) for label, samples in found.items()}
