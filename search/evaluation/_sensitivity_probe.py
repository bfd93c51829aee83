"""Rows of the sensitivity table: each level of one group alone, with everything before the group read from memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..values import Candidate, Row, base_levels, is_structural, pack_values, without_structure

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors.anatomy import Outputs
    from ...evaluators import Inputs, ReferenceOutputs
    from ...evaluators.sensitivity import OutputFrame, Prefix, PrefixCache, Timeline
    from ..problem import EvaluationContext
    from ._candidate_model import CandidateModel

T = TypeVar("T")

MAX_BYTES = 256 << 20
"""Bytes of recorded outputs that a worker keeps at a time."""
N_TRACED = 2
"""Samples on which a replay of the model is compared with a whole pass, before it is relied on."""


@dataclass(slots=True)
class _Plan:
    """The plan by which the rows of one group are measured.

    prefix      what is read from memory; None: every pass is a whole one
    share       cost of a replay over that of a whole pass
    batch_size  samples in one pass
    together    whether one recording serves all groups
    passes      cost of recording and checking, in samples passed through the whole model
    """

    prefix: Prefix | None = None
    share: float = 1.0
    batch_size: int = 1
    together: bool = False
    passes: float = 0.0


def is_same(one: Outputs, other: Outputs) -> bool:
    """Tell whether two models' outputs are the same bit for bit; NaN equals NaN."""
    from ...compressors.anatomy import same_outputs

    return same_outputs(one, other)


@dataclass(slots=True)
class SensitivityProbe:
    """Measures rows of the sensitivity table, and keeps recorded outputs from one group to the next.

    max_bytes  of recorded outputs, at most
    is_same    compares a replay's outputs with those of a whole pass
    why_not    why passes of this model are not replayed; None while they are
    """

    candidate_model: CandidateModel
    max_bytes: int = MAX_BYTES
    is_same: Callable[[Outputs, Outputs], bool] = is_same
    why_not: str | None = None
    _timeline: Timeline | None = None
    _kept: dict[tuple[int, int], PrefixCache] = field(default_factory=dict)
    _kept_for: int = 0
    _frame: OutputFrame | None = None

    @property
    def context(self) -> EvaluationContext:
        """The model, its data and its space."""
        return self.candidate_model.context

    @property
    def n_kept(self) -> int:
        """Number of batches whose recorded outputs are kept for the next group."""
        return len(self._kept)

    def measure(self, group: int, levels: Sequence[int], n_samples: int, n_frame: int = 0) -> tuple[Row, ...]:
        """Measure each of these levels of one group, with all other groups at their base level.

        n_samples  the first samples of the search split, on which the divergence is measured
        n_frame    samples whose output perturbations are kept too, packed (`output_frame`); at most `n_samples`

        A level that fails has a row with a reason. The first row's cost includes the recording for all of them.
        """
        context = self.context
        split = context.split.take(n_samples)
        plan = self._plan(group, levels[0], len(split)) if levels else _Plan()
        frame = self._output_frame(n_frame)
        found: list[list[Tensor]] = [[] for _ in levels]
        shifts: list[list[NDArray[np.float32]]] = [[] for _ in levels]
        reasons: list[str | None] = [None] * len(levels)
        passes = [0.0] * len(levels)
        at = 0
        size = plan.batch_size if plan.prefix else context.batch_size
        for inputs, _ in split.batches(size):
            original = context.reference.between(at, min(at + size, len(split)))
            cache = self._recorded(plan, group, inputs, (at, len(split)))
            for i, level in enumerate(levels):
                if reasons[i] is None:
                    apart, reasons[i] = _attempt(partial(self._apart, group, level, inputs, original, cache))
                    if apart is not None:
                        found[i].append(apart[0])
                        shifts[i] += (
                            []
                            if frame is None
                            else [frame.shift(context.distance.in_frame(apart[1], original.real), at)]
                        )
                    passes[i] += len(original) * (plan.share if cache and self.why_not is None else 1.0)
            at += len(original)
        if passes:
            passes[0] += plan.passes
        return tuple(_row(*row) for row in zip(found, shifts, reasons, passes, strict=True))

    def _output_frame(self, n: int) -> OutputFrame | None:
        if n == 0:
            return None
        if self._frame is None or self._frame.n != n:
            self._frame = output_frame(self.context, n)
        return self._frame

    def _apart(
        self, group: int, level: int, inputs: Inputs, original: ReferenceOutputs, cache: PrefixCache | None
    ) -> tuple[Tensor, Outputs]:
        """Compute each sample's divergence in one batch, and the outputs."""
        outputs = self._run(group, level, inputs, cache)
        return self.context.distance.per_sample(outputs, original), outputs

    def _run(self, group: int, level: int | None, inputs: Inputs, cache: PrefixCache | None) -> Outputs:
        """Compute the outputs with the group at this level (see `_applied`), replayed if there is a recording."""
        from ...evaluators import Split, run_split
        from ...evaluators.sensitivity import PrefixMismatchError

        model, batch = self.context.model, Split("table", inputs)
        with self._applied(group, level):
            if cache is not None and self.why_not is None:
                try:
                    with cache.before(self.context.space.groups[group].layers):
                        outputs = run_split(model, batch, len(batch))
                except PrefixMismatchError as error:
                    self._give_up(str(error))
                else:
                    return outputs
            return run_split(model, batch, len(batch))

    def _applied(self, group: int, level: int | None) -> AbstractContextManager[object]:
        """Apply this level of the group and the base level of all others; None: the base level of this one too."""
        levels = list(base_levels(self.context.space))
        if level is not None:
            levels[group] = level
        return self.candidate_model.applied(Candidate(levels=tuple(levels)), batch_norm=False)

    def _give_up(self, why_not: str) -> None:
        self.why_not = why_not
        self._kept.clear()

    @property
    def _around(self) -> dict[str, str]:
        return {fqn: module for fqn, (module, _) in self.context.calibration.places.items() if module}

    def _plan(self, group: int, level: int, n: int) -> _Plan:
        """Decide how the group's passes are replayed. They are only if a replay with the group changed is right."""
        from ...evaluators.sensitivity import Prefix, kept_bytes, modules_around, recomputed_share

        context = self.context
        if self.why_not is None and self._timeline is None:
            self._trace(group)
        timeline = self._timeline
        if self.why_not is not None or timeline is None:
            return _Plan()
        fqns = context.space.groups[group].layers
        if is_structural(context.space.groups[group].name):
            return _Plan()
        around = self._around
        prefix = Prefix.of(timeline, context.model, fqns, modules_around(around, fqns))
        mine = kept_bytes(timeline, [prefix])
        if not prefix.answered or mine > self.max_bytes:
            return _Plan()
        share = recomputed_share(timeline, context.anatomy, context.model, prefix)
        every = kept_bytes(
            timeline,
            [
                Prefix.of(timeline, context.model, group.layers, modules_around(around, group.layers))
                for group in without_structure(context.space).groups
            ],
        )
        together = every * n <= self.max_bytes
        size = context.batch_size if together else min(context.batch_size, self.max_bytes // max(1, mine))
        plan = _Plan(prefix=prefix, share=share, batch_size=size, together=together)
        plan.passes = N_TRACED * (2.0 + share)
        if not self._try(group, level):
            plan.prefix = None
        return plan

    def _trace(self, group: int) -> None:
        from ...evaluators.sensitivity import Timeline

        context = self.context
        with self._applied(group, None):
            timeline = Timeline.trace(context.model, context.split.take(N_TRACED).inputs)
        self._timeline, self.why_not = timeline, timeline.why_not

    def _try(self, group: int, level: int) -> bool:
        """Tell whether a replay with the group changed gives the outputs of a whole pass. A level that fails proves
        nothing."""
        from ...evaluators.sensitivity import PrefixCache, PrefixMismatchError

        context = self.context
        inputs, fqns = context.split.take(N_TRACED).inputs, context.space.groups[group].layers
        try:
            with self._applied(group, None):
                cache = PrefixCache.record(
                    context.model, inputs, context.anatomy, timeline=self._timeline, groups=[fqns],
                    around=self._around,
                )  # fmt: skip
        except PrefixMismatchError as error:
            self._give_up(str(error))
            return False
        pair = [_attempt(partial(self._run, group, level, inputs, given))[0] for given in (None, cache)]
        if pair[0] is None or pair[1] is None:
            return False
        if self.why_not is None and not self.is_same(pair[0], pair[1]):
            self._give_up("a replay gave other outputs than the whole pass")
        return self.why_not is None

    def _recorded(self, plan: _Plan, group: int, inputs: Inputs, at: tuple[int, int]) -> PrefixCache | None:
        """Give the base's outputs on this batch: kept from an earlier group, or recorded now."""
        import torch

        from ...evaluators.sensitivity import PrefixCache, PrefixMismatchError

        if plan.prefix is None or self.why_not is not None:
            return None
        context = self.context
        if self._kept_for != at[1]:
            self._kept.clear()
            self._kept_for = at[1]
        if plan.together and at in self._kept:
            return self._kept[at]
        decided = without_structure(context.space).groups if plan.together else [context.space.groups[group]]
        groups = [g.layers for g in decided]
        try:
            with self._applied(group, None):
                cache = PrefixCache.record(
                    context.model, inputs, context.anatomy, timeline=self._timeline, groups=groups,
                    around=self._around,
                )  # fmt: skip
        except PrefixMismatchError as error:
            self._give_up(str(error))
            return None
        plan.passes += len(cache.outputs) * (1.0 + plan.share)
        if not self.is_same(self._run(group, None, inputs, cache), cache.outputs):
            self._give_up("a replay of the unchanged model gave other outputs than the recorded pass")
            return None
        cache.outputs = torch.empty(0)  # they are large, and only a check of the replay needed them
        if plan.together:
            self._kept[at] = cache
        return cache


def output_frame(context: EvaluationContext, n: int) -> OutputFrame:
    """Make the frame of the original's first n outputs on the search split. It is the same in every process."""
    from ...evaluators.sensitivity import OutputFrame

    reference, distance = context.reference.take(n), context.distance
    kind: Literal["kl", "mse"] = "kl" if context.divergence == "kl" else "mse"

    def parts() -> Iterator[tuple[Tensor, Tensor | None]]:
        for part in reference.parts():
            yield distance.in_frame(part.outputs, part.real), distance.mask_in_frame(part)

    variance = distance.frame_variance(reference)
    return OutputFrame.of_parts(parts, kind, variance=variance, class_axis=context.kl_axis)


def _attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """Give the result, or the failure's reason in a line. A time limit that runs out ends the whole job."""
    from ..values import reason

    try:
        return work(), None
    except TimeoutError:
        raise
    except (Exception, SystemExit) as exception:  # a candidate may fail in any way at all; the reason is recorded
        return None, reason(exception)


def _row(found: Sequence[Tensor], shifts: Sequence[NDArray[np.float32]], reason: str | None, passes: float) -> Row:
    import torch

    passes = round(passes, 3)
    if reason is not None:
        return Row(value=None, reason=reason, passes=passes)
    apart = torch.cat(list(found))
    value, n = float(apart.mean()), len(apart)
    if not math.isfinite(value):
        why = f"MetricError: the divergence from the original's outputs is {value}"
        return Row(value=None, reason=why, passes=passes)
    stderr = float(apart.std()) / math.sqrt(n) if n > 1 else None
    shift = pack_values(np.concatenate(shifts)) if shifts else None
    return Row(value=value, n=n, stderr=stderr, passes=passes, shift=shift)
