"""What a worker holds and does: one resident model, and pure functions of (levels, samples).

Nothing that a bench computes depends on what it computed before, so a worker may die at any moment.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..problem import EvaluationContext, judge
from ..values import is_structural, layers_of, structure_of, without_structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import (
        CompressedModel,
        LayerGradients,
        LayerMoments,
        LayerSpec,
        Repairs,
        Variant,
    )
    from ...evaluators import Measurement, Scores, SequentialTest
    from ._incumbents import EvaluationResult, Losses
    from ._pruned_model import PrunedModelBuilder
    from ._sensitivity_rows import Rows


@dataclass(slots=True)
class Worker:
    """Runs a bench's jobs. Made once in each process; variants stay open (memory-mapped) from one job to the next."""

    context: EvaluationContext
    _variants: dict[tuple[str, LayerSpec], Variant] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)
    _resident: Any = None
    _store: Any = None
    _repairs: Repairs | None = None
    _weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _hooks: dict[nn.Module, tuple[frozenset[int], frozenset[int]]] = field(default_factory=dict)
    _cut: PrunedModelBuilder | None = None
    _forwards: dict[nn.Module, Any] = field(default_factory=dict)
    _rows: Rows | None = None

    def __post_init__(self) -> None:
        from ...compressors import CompressedModel, VariantStore

        self.context.plugins.load()
        model = self.context.model.eval()
        self._resident = CompressedModel(model, self.context.anatomy, self.context.calibration)
        self._store = VariantStore(self.context.store)
        self._weights = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
        self._hooks = {m: (frozenset(m._forward_pre_hooks), frozenset(m._forward_hooks)) for m in model.modules()}
        self._forwards = {module: vars(module).get("forward") for module in model.modules()}

    def reset(self) -> None:
        """After a job that was interrupted anywhere, even while it put things back: the model as it was at first."""
        import torch

        from ...compressors import CompressedModel

        for tensor, data in self._weights:
            tensor.data = data
        for module, known in self._hooks.items():
            for hooks, before in zip((module._forward_pre_hooks, module._forward_hooks), known, strict=True):
                for key in [key for key in hooks if key not in before]:
                    del hooks[key]
        for module, forward in self._forwards.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward
        self._rows = None
        self._repairs = None
        torch.set_grad_enabled(True)
        self._resident = CompressedModel(self.context.model.eval(), self.context.anatomy, self.context.calibration)

    def variant(self, fqn: str, spec: LayerSpec) -> Variant:
        """From the store; made there first if it is missing."""
        from ...compressors import tensor_digest

        key = (fqn, spec.weight_only)
        if key not in self._variants:
            weight, layer = self._resident.weight(fqn), self.context.anatomy[fqn]
            if fqn not in self._digests:
                self._digests[fqn] = tensor_digest(weight)
            moments, gradients = self.known(fqn, spec)
            self._variants[key] = self._store.get(
                weight, spec.weight_only, layer, weight_digest=self._digests[fqn], moments=moments, gradients=gradients
            )
        return self._variants[key]

    def known(self, fqn: str, spec: LayerSpec) -> tuple[LayerMoments | None, LayerGradients | None]:
        """What calibration says of the whole layer, of that which the treatment looks at."""
        from ...compressors import needs_gradients, needs_moments

        moments, gradients = self.context.calibration.moments, self.context.calibration.gradients
        return (
            moments.get(fqn) if moments is not None and needs_moments(spec) else None,
            gradients.get(fqn) if gradients is not None and needs_gradients(spec) else None,
        )

    def variants(self, assignment: Mapping[str, LayerSpec]) -> dict[str, Variant]:
        return {fqn: self.variant(fqn, spec) for fqn, spec in assignment.items() if spec.changes_weight}

    def build(self, fqn: str, specs: Sequence[LayerSpec]) -> list[tuple[int, float]]:
        """Make these variants of one layer. Gives, for each: its share of the stored file in bytes, and the relative
        squared error of the weight."""
        from ...compressors import layer_bytes

        layer, made = self.context.anatomy[fqn], []
        for spec in specs:
            variant = self.variant(fqn, spec)
            made.append((layer_bytes(layer, spec, variant), variant.weight_error))
            _give_back_memory()
        return made

    def scores(self, levels: Sequence[int], n_samples: int) -> Scores:
        """Of the candidate on the first `n_samples` of the search split; the model is then as it was."""
        from ...evaluators import evaluate_split

        context = self.context
        self._rows = None  # its memory is not needed any more
        with self.applied(levels):
            return evaluate_split(
                context.model, context.split.take(n_samples), context.metric, reference=context.reference,
                divergence=context.divergence, batch_size=context.batch_size,
            )  # fmt: skip

    @contextmanager
    def applied(self, levels: Sequence[int], *, norms: bool = True) -> Iterator[nn.Module]:
        """Inside, the model behaves as the candidate of these levels, repaired as far as trials are; `norms` False:
        without a pass for the batch norms in any case."""
        from ...compressors import installed
        from ..values import Candidate

        assignment = self.context.space.assignment(Candidate(levels=tuple(levels)))
        if structure_of(assignment):
            # a row of the table too: without this a set looks much worse than it is, and no prefix is replayed for it
            with self.pruned_models.applied(assignment, norms=self.context.repair.batch_norm == "trials") as model:
                yield model
            return
        plain = layers_of(assignment)
        variants = self.variants(plain)
        values = self._repaired(plain, variants, norms=norms and self.context.repair.batch_norm == "trials")
        with self._resident.apply(plain, variants), installed(self.context.model, values):
            yield self.context.model

    @contextmanager
    def repaired(self, assignment: Mapping[str, LayerSpec]) -> Iterator[None]:
        """Inside, the model's weights are the original's, and its other numbers those that go with the assignment: what
        is exported from it is what a trial sees, with batch norms that follow also where they do for finalists only."""
        from ...compressors import installed

        with installed(self.context.model, self.repaired_values(assignment)):
            yield

    def repaired_values(self, assignment: Mapping[str, LayerSpec]) -> Mapping[str, Tensor]:
        """What `repaired` installs."""
        norms = self.context.repair.batch_norm in ("finalists", "trials")
        return self._repaired(assignment, self.variants(assignment), norms=norms)

    @property
    def resident(self) -> CompressedModel:
        resident: CompressedModel = self._resident
        return resident

    @property
    def repairs(self) -> Repairs:
        from ...compressors import Repairs

        if self._repairs is None:
            context = self.context
            self._repairs = Repairs(self._resident, context.calibration.moments, context.repair_inputs)
        return self._repairs

    def _repaired(
        self, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant], *, norms: bool
    ) -> Mapping[str, Tensor]:
        values: Mapping[str, Tensor] = {}
        if self.context.repair.bias:
            values = self.repairs.corrected_biases(assignment, variants)
        return self.repairs.recalibrated_norms(assignment, variants, values) if norms else values

    @property
    def pruned_models(self) -> PrunedModelBuilder:
        """Whatever is to be done with a model of which something is removed."""
        from ._pruned_model import PrunedModelBuilder

        if self._cut is None:
            self._cut = PrunedModelBuilder(self)
        return self._cut

    def rows(self, group: int, levels: Sequence[int], n_samples: int, framed: int = 0) -> list[dict[str, Any]]:
        """Rows of the sensitivity table: each of these levels of one group alone. See `Rows.measure`.

        What was recorded for them stays in memory until the next candidate is scored.
        """
        from ._sensitivity_rows import Rows

        if self._rows is None:
            self._rows = Rows(self)
        return self._rows.measure(group, levels, n_samples, framed)

    def estimate(self, n_samples: int, seed: int) -> dict[str, Any]:
        """A first guess of the whole table from gradients, on the first `n_samples` of the search split."""
        from ...evaluators.sensitivity import fisher_table

        context = self.context
        groups = without_structure(context.space).groups
        if not groups:
            none = [[0.0 if spec.is_neutral else None for spec in group.levels] for group in context.space.groups]
            return {"values": none, "passes": 0.0}
        found = fisher_table(
            context.model, context.split.take(n_samples), [(group.layers, group.levels) for group in groups],
            self.variant, calibration=context.calibration, divergence=context.divergence,
            variance=context.reference.variance, batch_size=min(context.batch_size, 16), seed=seed,
        )  # fmt: skip
        rows = iter(found.values)
        values = [
            [0.0 if spec.is_neutral else None for spec in group.levels]
            if is_structural(group.name)
            else list(next(rows))
            for group in context.space.groups
        ]  # of what is removed there is no guess
        return {"values": values, "passes": found.passes}

    def trial(self, levels: Sequence[int], n_samples: int) -> dict[str, Measurement]:
        """The metrics that need a forward pass: the task's own, and the divergence, on the search split."""
        return judge(self.context, self.scores(levels, n_samples))

    def screen(self, levels: Sequence[int], n_samples: int) -> EvaluationResult:
        """The same on the first samples of the search split."""
        from ._sequential_test import screen

        self._rows = None  # its memory is not needed any more
        with self.applied(levels):
            return screen(self.context, n_samples)

    def race(
        self, levels: Sequence[int], quality: str | None, test: SequentialTest | None, rival: Losses | None,
        screened: int = 0,
    ) -> EvaluationResult:  # fmt: skip
        """The same on the whole search split, or as far as `test` thinks that the candidate may beat `rival`.

        quality   "divergence" or the metric's name: whose losses are compared, and given back; None: neither
        rival     losses of the whole split; None: nobody to beat
        screened  so many first samples are judged by themselves too
        """
        from ._sequential_test import evaluate_sequentially

        self._rows = None  # its memory is not needed any more
        with self.applied(levels):
            return evaluate_sequentially(self.context, quality, test, rival, screened)


def _give_back_memory() -> None:
    """To the system, what building left in pieces: glibc keeps it (seen: five times the model), others have no such
    call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
