"""The worker: one resident model, and what can be measured on it.

No measurement depends on an earlier one, so a worker may die at any moment and another may take its place.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..values import Row, is_structural, without_structure
from ._candidate_model import CandidateModel
from ._results import BuiltVariant, EvaluationResult, SensitivityEstimate
from ._sensitivity_probe import SensitivityProbe

if TYPE_CHECKING:
    from ...compressors import LayerSpec
    from ...evaluators import SequentialTest
    from ..problem import EvaluationContext
    from ..values import Candidate
    from ._incumbents import Incumbent


class Worker:
    """Runs the jobs (`_jobs.py`) in one process. It is made once there, because it holds the model.

    candidate_model  the resident model, to which candidates are applied
    """

    def __init__(self, context: EvaluationContext) -> None:
        self.context = context
        self.candidate_model = CandidateModel(context)
        self._probe: SensitivityProbe | None = None

    @property
    def sensitivity_probe(self) -> SensitivityProbe:
        """The probe that measures rows. Its recorded outputs stay in memory until a candidate is evaluated."""
        if self._probe is None:
            self._probe = SensitivityProbe(self.candidate_model)
        return self._probe

    def reset(self) -> None:
        """Restore the original model after a job that was interrupted."""
        self._probe = None
        self.candidate_model.reset()

    def build_variants(self, fqn: str, specs: Sequence[LayerSpec]) -> tuple[BuiltVariant, ...]:
        """Build the variants of one layer in the store, one for each spec.

        Raises `SpecError` for a spec that does not fit the layer.
        """
        from ...compressors import layer_bytes

        layer, built = self.context.anatomy[fqn], []
        for spec in specs:
            variant = self.candidate_model.layers.variant(fqn, spec)
            built.append(BuiltVariant(n_bytes=layer_bytes(layer, spec, variant), weight_error=variant.weight_error))
            _release_memory()
        return tuple(built)

    def estimate_sensitivity(self, n_samples: int, seed: int) -> SensitivityEstimate:
        """Estimate the whole sensitivity table from gradients on the first `n_samples` of the search split.

        Structural groups get no estimate. Raises what torch raises for a model that cannot be differentiated.
        """
        from ...evaluators.sensitivity import fisher_table

        context = self.context
        groups = without_structure(context.space).groups
        if not groups:
            none = tuple(tuple(0.0 if s.is_neutral else None for s in group.levels) for group in context.space.groups)
            return SensitivityEstimate(values=none, elements=none, passes=0.0)
        found = fisher_table(
            context.model, context.split.take(n_samples), [(group.layers, group.levels) for group in groups],
            self.candidate_model.layers.variant, calibration=context.calibration, distance=context.distance,
            variance=context.reference.variance,
            batch_size=min(context.batch_size, 16), seed=seed,
        )  # fmt: skip

        def of_all_groups(estimated: tuple[tuple[float, ...], ...]) -> tuple[tuple[float | None, ...], ...]:
            rows = iter(estimated)
            return tuple(
                tuple(0.0 if spec.is_neutral else None for spec in group.levels)
                if is_structural(group.name)
                else tuple(next(rows))
                for group in context.space.groups
            )

        return SensitivityEstimate(
            values=of_all_groups(found.values), elements=of_all_groups(found.elements), passes=found.passes
        )

    def measure_rows(self, group: int, levels: Sequence[int], n_samples: int, n_frame: int = 0) -> tuple[Row, ...]:
        """Measure rows of the sensitivity table: each of these levels of one group alone (`SensitivityProbe`)."""
        return self.sensitivity_probe.measure(group, levels, n_samples, n_frame)

    def evaluate_low_fidelity(self, candidate: Candidate, n_samples: int) -> EvaluationResult:
        """Evaluate a candidate on the first `n_samples` of the search split.

        Raises `MetricError` for a metric that is not finite, and what a failing candidate raises.
        """
        from ._sequential_test import evaluate_first_samples

        self._probe = None  # its memory is not needed any more
        with self.candidate_model.applied(candidate):
            return evaluate_first_samples(self.context, n_samples)

    def evaluate(
        self,
        candidate: Candidate,
        *,
        quality: str | None,
        test: SequentialTest | None = None,
        incumbent: Incumbent | None = None,
        n_low_fidelity: int = 0,
    ) -> EvaluationResult:
        """Evaluate a candidate on the search split, until `test` shows that it is no better than the incumbent.

        The arguments and errors are those of `evaluate_sequentially`.
        """
        from ._sequential_test import evaluate_sequentially

        self._probe = None  # its memory is not needed any more
        with self.candidate_model.applied(candidate):
            return evaluate_sequentially(
                self.context, quality=quality, test=test, incumbent=incumbent, n_low_fidelity=n_low_fidelity
            )


def _release_memory() -> None:
    """Return freed memory to the system. glibc keeps the pieces that building leaves (seen: five times the model);
    other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
