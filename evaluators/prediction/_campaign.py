"""Measurement of a few dozen models of a space, chosen so that all others can be predicted, and the fit of the
table.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
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
    from ..runtimes import RuntimeOptions

Group: TypeAlias = tuple[Sequence[str], Sequence["LayerSpec"]]
"""Layers that decide together, and their levels."""
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
    campaign = _Campaign(layout, offers, timer)
    found = campaign.found

    def is_over() -> bool:
        return len(found) >= n_models or (clock() - start >= max_seconds and len(found) >= LEAST_MODELS)

    def time_one(levels: Sequence[int]) -> None:
        if not is_over() and campaign.time_one(levels) and say is not None:
            say(len(found), n_models)

    uniform = [[min(n, count - 1) for count in counts] for n in range(max(counts))]
    for levels in [*uniform, *draw(counts, N_RANDOM, rng)]:
        time_one(levels)
    while not is_over() and len(found) >= LEAST_MODELS:
        pool = [levels for levels in dict.fromkeys(draw(counts, POOL, rng)) if not campaign.was_tried(levels)]
        if not pool:
            break
        many = [campaign.forms(levels) for levels in pool]
        for index in next_to_measure(_fit(layout, found, also=many), many, BATCH):
            time_one(pool[index])
    if len(found) < LEAST_MODELS:
        raise ParedownError(
            f"latency cannot be predicted: {LEAST_MODELS} models must be measured, and {len(found)} were: "
            f"{campaign.reason_for_few}; "
            'set [hardware] latency = "modelled"'
        )
    return found, dict(_fit(layout, found).scales)


class _Campaign:
    """Timed models of a space, and the refused ones. `found` holds the results in their order."""

    def __init__(self, layout: Layout, offers: Sequence[Sequence[Mapping[str, Form]]], timer: Timer) -> None:
        self.layout, self.offers, self.timer = layout, offers, timer
        self.tried: dict[Forms, None] = {layout.forms({}): None}  # the original, against which the others are timed
        self.found: list[MeasuredModel] = []
        self.refused: list[str] = []

    def forms(self, levels: Sequence[int]) -> Forms:
        return self.layout.forms(self._by_fqn(levels))

    def was_tried(self, levels: Sequence[int]) -> bool:
        return self.forms(levels) in self.tried

    def time_one(self, levels: Sequence[int]) -> bool:
        """Time a model and tell whether there is a new result: not if its forms were tried, or the runtime refuses."""
        if self.was_tried(levels):
            return False
        forms = self.forms(levels)
        self.tried[forms] = None
        try:
            timed = self.timer(self._by_fqn(levels))
        except ParedownError as error:
            self.refused.append(str(error))
            return False
        self.found.append(
            MeasuredModel(forms=forms, ratio=timed.ratio, error=timed.error, ms=timed.ms, original_ms=timed.original_ms)
        )
        return True

    @property
    def reason_for_few(self) -> str:
        """Reason why so few models were measured: the last refusal, or the size of the space."""
        if self.refused:
            return self.refused[-1]
        return f"the space has only {len(self.tried) - 1} that differ in what runs"

    def _by_fqn(self, levels: Sequence[int]) -> dict[str, Form]:
        return {fqn: form for offer, n in zip(self.offers, levels, strict=True) for fqn, form in offer[n].items()}


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
    options: RuntimeOptions | None = None,
) -> LatencyTable:
    """Trace the model, measure, fit. In this process: on pinned cores, in the machine's latency slot.

    example_inputs  a batch; its first sample is what is timed
    digest          of the model, kept in the table
    options         of the runtime's sessions, kept in the table; None: those of a session whose file names none
    Raises `ExportError` where the model has no form in ONNX, `ParedownError` for a runtime that has none either.
    """
    from ..runtimes import options_dict, unnamed_options, with_batch

    _check_runtime(runtime)
    start = time.monotonic()
    template = Template.trace(model, anatomy, calibration, example_inputs)
    layout = Layout.of(anatomy, template.layers, template.wiring)
    with (
        _torch_threads(threads),
        pinned(last_cores(threads)) as pinning,
        closing(
            Bed(template, with_batch(example_inputs, 1), runtime=runtime, threads=threads, seed=seed, options=options)
        ) as bed,
    ):

        def timer(forms: Mapping[str, Form]) -> Timed:
            with exclusive_slot():
                return bed.time(forms)

        offers = offers_of(anatomy, groups)
        layout = with_lone_gains(
            layout, anatomy, offers, runtime=runtime, threads=threads, original_ms=bed.original_ms(), options=options
        )
        found, scales = measure(
            layout, offers, timer, n_models=n_models,
            max_seconds=max(1.0, max_seconds - (time.monotonic() - start)), seed=seed, say=say,
        )  # fmt: skip
        facts = machine_facts(bed.original, threads=threads, pinning=pinning)
        facts["runtime_options"] = options_dict(options or unnamed_options(runtime))
    return LatencyTable(
        model=digest, runtime=runtime, threads=threads, machine=facts, layout=layout, measured=tuple(found),
        original_ms=float(np.median([LatencySamples(m.original_ms).percentile(10) for m in found])),
        scales=scales,
        seconds=round(time.monotonic() - start, 1),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def _check_runtime(runtime: str) -> None:
    if runtime not in ("onnxruntime", "openvino"):
        raise ParedownError(
            f"latency is predicted for onnxruntime and openvino, and the runtime is {runtime!r}; "
            'set [hardware] latency = "modelled"'
        )


@contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    """Make PyTorch compute on `n` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
