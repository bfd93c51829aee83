"""Distance of a model's outputs from the original's, over all outputs that are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compressors.anatomy import (
    NamedOutputs,
    OutputMasks,
    Outputs,
    named_tensors,
    packed,
    packed_mask,
    real_logits,
    real_values,
)
from ..values import Reference, ReferenceOutputs, RunningVariance
from ._class_axis import LAST
from ._divergence import divergence_per_sample
from ._error import MetricError
from ._metric import Divergence


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedOutput:
    """One output that is compared with the original's.

    name        as in `NamedOutputs`; "" for a model's one output
    kind        "kl" for class logits, "mse" for others
    share       weight in the distance; those of all outputs add up to 1
    variance    of the original's output, the scale of "mse"; None: that of the reference that it is compared with
    class_axis  axis on which the classes lie, for "kl"; None: not known
    """

    name: str = ""
    kind: Divergence = "mse"
    share: float = 1.0
    variance: float | None = None
    class_axis: int | None = LAST


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDistance:
    """Distance between a model's outputs and the original's: the mean of the divergences of the compared outputs,
    weighted by their shares.

    outputs  the compared outputs; the first is the one that a metric of one tensor reads
    """

    outputs: tuple[ComparedOutput, ...]

    @classmethod
    def of_one(
        cls, kind: Divergence, *, class_axis: int | None = LAST, variance: float | None = None
    ) -> OutputDistance:
        """Make the distance of a model with one output; see `ComparedOutput`."""
        return cls(outputs=(ComparedOutput(kind=kind, class_axis=class_axis, variance=variance),))

    @classmethod
    def of_several(
        cls, outputs: NamedOutputs, kind: Divergence, weights: Mapping[str, float], *,
        class_axis: int | None = LAST, real: OutputMasks | None = None,
    ) -> OutputDistance:  # fmt: skip
        """Make the distance of a model with several outputs.

        outputs  of the original on calibration data, which give the variances
        kind     of the first output; all others are compared by "mse"
        weights  name -> weight of the compared outputs, in order
        real     masks of outputs of which some positions are hidden
        """
        variances = {}
        for name in weights:
            variances[name] = RunningVariance()
            variances[name].add(real_values(outputs.tensors[name], (real or {}).get(name)))
        return cls.of_variances({name: found.value for name, found in variances.items()}, kind, weights, class_axis)

    @classmethod
    def of_variances(
        cls, variances: Mapping[str, float], kind: Divergence, weights: Mapping[str, float],
        class_axis: int | None = LAST,
    ) -> OutputDistance:  # fmt: skip
        """Make the distance of a model with several outputs from the variance of each; otherwise as `of_several`."""
        total = sum(weights.values())
        return cls(
            outputs=tuple(
                ComparedOutput(
                    name=name, kind=kind if n == 0 else "mse", share=weight / total,
                    variance=_usable(variances[name]),
                    class_axis=class_axis if n == 0 else LAST,
                )
                for n, (name, weight) in enumerate(weights.items())
            )
        )  # fmt: skip

    @property
    def kind(self) -> Divergence:
        """Kind of the first output."""
        return self.outputs[0].kind

    @property
    def class_axis(self) -> int | None:
        """Class axis of the first output."""
        return self.outputs[0].class_axis

    @property
    def unit(self) -> str:
        """Unit of the distance: nats where all of it is KL."""
        return "nats" if all(output.kind == "kl" for output in self.outputs) else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the compared outputs; empty for a model of one output."""
        return tuple(output.name for output in self.outputs if output.name)

    @property
    def scales(self) -> dict[str, float] | None:
        """Name -> factor for `packed`, by which the squared error of all outputs is their distance; None for one."""
        if not self.names:
            return None
        return {
            output.name: math.sqrt(len(self.outputs) * output.share / (output.variance or 1.0))
            for output in self.outputs
        }

    @property
    def has_frame(self) -> bool:
        """True where the distance is of one kind, so that an `OutputFrame` can follow it."""
        return len(self.outputs) == 1 or all(output.kind == "mse" for output in self.outputs)

    def per_sample(self, outputs: Outputs, reference: ReferenceOutputs | Outputs) -> Tensor:
        """Distance of each sample's outputs from the reference: (N,) float64, 0 where they are equal.

        Positions that the reference's masks hide do not count.

        Raises `MetricError` where an output is missing or of another shape, and as `divergence_per_sample` does.
        """
        variance = reference.variance if isinstance(reference, ReferenceOutputs) else None
        original = reference.outputs if isinstance(reference, ReferenceOutputs) else reference
        real = reference.real if isinstance(reference, ReferenceOutputs) else {}
        found, wanted = self._chosen(outputs), self._chosen(original)
        total: Tensor | None = None
        for output in self.outputs:
            apart = divergence_per_sample(
                found[output.name], wanted[output.name], output.kind,
                variance=variance if output.variance is None else output.variance, class_axis=output.class_axis,
                real=real.get(output.name),
            )  # fmt: skip
            apart = apart if output.share == 1.0 else apart * output.share
            total = apart if total is None else total + apart
        if total is None:
            raise MetricError("a distance needs at least one output to compare, got none")
        return total

    def drawn(
        self, outputs: Outputs, generator: torch.Generator, reference_variance: float = 1.0,
        real: OutputMasks | None = None,
    ) -> Tensor:  # fmt: skip
        """Scalar <v, outputs> for one drawn v, where E[v v'] is the Hessian of each sample's distance at 0.

        reference_variance  variance of a model's one output, for "mse"
        real                masks of outputs of which some positions are hidden (`output_masks`)
        """
        found = self._chosen(outputs)
        total: Tensor | None = None
        for output in self.outputs:
            variance = reference_variance if output.variance is None else output.variance
            mask = (real or {}).get(output.name)
            product = _drawn(found[output.name].float(), output, variance, generator, mask)
            product = product if output.share == 1.0 else product * math.sqrt(output.share)
            total = product if total is None else total + product
        if total is None:
            raise MetricError("a distance needs at least one output to compare, got none")
        return total

    def in_frame(self, outputs: Outputs, real: OutputMasks | None = None) -> Tensor:
        """Outputs as one tensor for an `OutputFrame`: the model's one output, or all compared ones packed."""
        if len(self.outputs) == 1:
            return self._chosen(outputs)[self.outputs[0].name]
        return packed(outputs, self.scales or {}, real)

    def mask_in_frame(self, reference: ReferenceOutputs) -> Tensor | None:
        """Mask of `in_frame` of the reference; None where all of it counts."""
        if len(self.outputs) == 1:
            return reference.real.get(self.outputs[0].name)
        return packed_mask(reference.outputs, self.names, reference.real)

    def frame_variance(self, reference: Reference) -> float:
        """Variance of the outputs in an `OutputFrame`, for "mse"; packed outputs are scaled already."""
        if len(self.outputs) > 1:
            return 1.0
        own = self.outputs[0].variance
        return reference.variance if own is None else own

    def _chosen(self, outputs: Outputs) -> dict[str, Tensor]:
        tensors = named_tensors(outputs)
        wanted = [output.name for output in self.outputs]
        if missing := [name for name in wanted if name not in tensors]:
            raise MetricError(
                f"the output {missing[0] or 'of a model with one output'} is compared, and is not there; expected "
                f"{_listed(wanted)}, got {_listed(list(tensors))}"
            )
        return {name: tensors[name] for name in wanted}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "one output" for name in names)


def _usable(variance: float) -> float:
    return variance if math.isfinite(variance) and variance > 0 else 1.0


def _drawn(
    z: Tensor, output: ComparedOutput, variance: float, generator: torch.Generator, real: Tensor | None
) -> Tensor:
    """Scalar <v, z> of one output."""
    if output.kind == "mse":
        values = real_values(z, real)
        signs = torch.randint(0, 2, values.shape, generator=generator).mul_(2).sub_(1).to(z)
        variance = variance if variance > 0 else 1.0
        if real is None:
            return (signs * z).sum() * math.sqrt(2.0 / (z[0].numel() * variance))
        return (signs * values * _shares(real.expand(z.shape))).sum() * math.sqrt(2.0 / variance)
    if output.class_axis is None or z.dim() < 2 or z.shape[output.class_axis] < 2:
        raise MetricError(f"divergence {output.kind!r} of outputs {tuple(z.shape)} has no estimate")
    z, where = real_logits(z, real, output.class_axis)
    flat: Tensor = z.reshape(-1, z.shape[-1]) if where is None else z[where]
    p = flat.detach().softmax(dim=-1)
    drawn = torch.multinomial(p.cpu(), 1, generator=generator).to(z.device)
    v = -p
    v = v.scatter_add(1, drawn, torch.ones_like(drawn, dtype=v.dtype))
    product = (v * flat).nan_to_num(0.0)  # a masked answer is -inf, with p = 0
    if where is not None:
        return (product * _shares(where)[:, None]).sum()
    return product.sum() / math.sqrt(flat.shape[0] / z.shape[0])


def _shares(where: Tensor) -> Tensor:
    """One over the root of the count of what is real in its sample, for each real value in turn: (n,)."""
    counts = where.flatten(1).sum(dim=1)
    return counts.clamp(min=1).double().rsqrt().float().repeat_interleave(counts)
