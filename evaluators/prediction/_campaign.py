"""Measurement of a few dozen models of a space, chosen so that all others can be predicted, and the fit of the
table.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...errors import ParedownError
from ..latency import LatencySamples, exclusive_slot, last_cores, machine_facts, pinned
from ._bed import Bed, Timed
from ._choice import draw, next_to_measure
from ._features import Forms, Layout
from ._fit import fit
from ._forms import Form, form_of
from ._lone import with_lone_gains
from ._table import LEAST_MODELS, LatencyTable, MeasuredModel
from ._template import Template

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration, Inputs, LayerSpec

Group: TypeAlias = tuple[Sequence[str], Sequence["LayerSpec"]]
"""Layers that decide together, and the forms that they may take."""
Timer: TypeAlias = Callable[[Mapping[str, Form]], Timed]
Say: TypeAlias = Callable[[int, int], None]
"""Callback with the number of measured models, and the number there will be."""

N_MODELS = 80
N_RANDOM = 12
BATCH = 8
POOL = 300


def offers_of(anatomy: Anatomy, groups: Sequence[Group]) -> list[list[dict[str, Form]]]:
    """Distinct forms of each group's levels, in the levels' order, as fqn -> form."""
    offers = []
    for fqns, levels in groups:
        distinct = {tuple(form_of(anatomy[fqn], spec) for fqn in fqns): None for spec in levels}
        offers.append([dict(zip(fqns, forms, strict=True)) for forms in distinct])
    return offers


def measure(
    layout: Layout,
    offers: Sequence[Sequence[Mapping[str, Form]]],
    timer: Timer,
    *,
    n_models: int = N_MODELS,
    max_seconds: float = 300.0,
    seed: int = 0,
    say: Say | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[MeasuredModel], dict[str, float]]:
    """Measure every level everywhere, then a few models drawn at random, then batches of least remaining uncertainty.

    Returns the measured models and the scales of the last fit. A form that the runtime refuses is passed over.
    Raises `ParedownError` where fewer than four models could be measured; it names the last refusal.
    """
    rng = np.random.default_rng(seed)
    counts = [len(offer) for offer in offers]
    start = clock()
    tried: dict[Forms, None] = {layout.forms({}): None}  # the original is what the others are timed against
    found: list[MeasuredModel] = []
    refused: list[str] = []

    def forms_at(levels: Sequence[int]) -> dict[str, Form]:
        return {fqn: form for offer, n in zip(offers, levels, strict=True) for fqn, form in offer[n].items()}

    def time_one(levels: Sequence[int]) -> None:
        by_fqn = forms_at(levels)
        forms = layout.forms(by_fqn)
        if forms in tried:
            return
        tried[forms] = None
        try:
            timed = timer(by_fqn)
        except ParedownError as error:
            refused.append(str(error))
            return
        found.append(
            MeasuredModel(forms=forms, ratio=timed.ratio, error=timed.error, ms=timed.ms, original_ms=timed.original_ms)
        )
        if say is not None:
            say(len(found), n_models)

    def is_over() -> bool:
        return len(found) >= n_models or (clock() - start >= max_seconds and len(found) >= LEAST_MODELS)

    uniform = [[min(n, count - 1) for count in counts] for n in range(max(counts))]
    for levels in [*uniform, *draw(counts, N_RANDOM, rng)]:
        if not is_over():
            time_one(levels)
    scales: dict[str, float] = {}
    while not is_over() and len(found) >= LEAST_MODELS:
        pool = [
            levels for levels in dict.fromkeys(draw(counts, POOL, rng)) if layout.forms(forms_at(levels)) not in tried
        ]
        if not pool:
            break
        many = [layout.forms(forms_at(levels)) for levels in pool]
        fitted = _fit(layout, found, also=many)
        for index in next_to_measure(fitted, many, BATCH):
            if not is_over():
                time_one(pool[index])
    if len(found) < LEAST_MODELS:
        why = refused[-1] if refused else f"the space has only {len(tried) - 1} that differ in what runs"
        raise ParedownError(
            f"latency cannot be predicted: {LEAST_MODELS} models must be measured, and {len(found)} were: {why}; "
            'set [hardware] latency = "modelled"'
        )
    scales = dict(_fit(layout, found).scales)
    return found, scales


def _fit(layout: Layout, found: Sequence[MeasuredModel], also: Sequence[Forms] = ()) -> Any:
    return fit(layout, [m.forms for m in found], [m.ratio for m in found], [m.error for m in found], also=also)


def measure_table(
    model: nn.Module,
    anatomy: Anatomy,
    calibration: Calibration,
    example_inputs: Inputs,
    groups: Sequence[Group],
    *,
    runtime: str,
    threads: int,
    digest: str,
    n_models: int = N_MODELS,
    max_seconds: float = 300.0,
    seed: int = 0,
    say: Say | None = None,
) -> LatencyTable:
    """Trace the model, measure, fit. In this process: on pinned cores, in the machine's latency slot.

    example_inputs  a batch; its first sample is what is timed
    digest          of the model, kept in the table
    Raises `ExportError` where the model has no form in ONNX, `ParedownError` for a runtime that has none either.
    """
    import torch

    from ..runtimes import with_batch

    if runtime not in ("onnxruntime", "openvino"):
        raise ParedownError(
            f"latency is predicted for onnxruntime and openvino, and the runtime is {runtime!r}; "
            'set [hardware] latency = "modelled"'
        )
    start = time.monotonic()
    template = Template.trace(model, anatomy, calibration, example_inputs)
    layout = Layout.of(anatomy, template.layers, template.wiring)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pinned(last_cores(threads)) as pinning:
            bed = Bed(template, with_batch(example_inputs, 1), runtime=runtime, threads=threads, seed=seed)

            def timer(forms: Mapping[str, Form]) -> Timed:
                with exclusive_slot():
                    return bed.time(forms)

            try:
                offers = offers_of(anatomy, groups)
                layout = with_lone_gains(
                    layout, anatomy, offers, runtime=runtime, threads=threads, original_ms=bed.original_ms()
                )
                found, scales = measure(
                    layout, offers, timer, n_models=n_models,
                    max_seconds=max(1.0, max_seconds - (time.monotonic() - start)), seed=seed, say=say,
                )  # fmt: skip
                facts = machine_facts(bed.original, threads=threads, pinning=pinning)
            finally:
                bed.close()
    finally:
        torch.set_num_threads(before)
    return LatencyTable(
        model=digest,
        runtime=runtime,
        threads=threads,
        machine=facts,
        layout=layout,
        measured=tuple(found),
        original_ms=float(np.median([LatencySamples(m.original_ms).percentile(10) for m in found])),
        scales=scales,
        seconds=round(time.monotonic() - start, 1),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
