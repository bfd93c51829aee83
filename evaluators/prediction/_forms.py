"""Forms that a layer's treatment takes on a CPU runtime: the few that differ in time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...compressors import LayerSpec

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo


@dataclass(frozen=True, slots=True, order=True)
class Form:
    """Form in which one layer really runs. It must agree with `evaluators.runtimes._lowering.lower`; a test compares
    them.

    integer    int8 weights and uint8 activations in an integer kernel
    rounded    the input goes through an 8-bit quantizer (always where `integer`)
    kept_rank  of the two factors that take the weight's place; 0: one whole weight
    """

    integer: bool = False
    rounded: bool = False
    kept_rank: int = 0

    @property
    def is_plain(self) -> bool:
        """Tell whether it is the FP32 original's form."""
        return not (self.integer or self.rounded or self.kept_rank)

    def label(self) -> str:
        """`fp32`, `int8`, `a8`, `r12`, `r12a8`."""
        if self.integer:
            return "int8"
        rank = f"r{self.kept_rank}" if self.kept_rank else ""
        return f"{rank}{'a8' if self.rounded else ''}" or "fp32"

    @classmethod
    def from_label(cls, label: str) -> Form:
        """Inverse of `label`. Raises `ValueError`."""
        if label == "fp32":
            return cls()
        if label == "int8":
            return cls(integer=True, rounded=True)
        match = re.fullmatch(r"(?:r([1-9][0-9]*))?(a8)?", label)
        if not label or match is None:
            raise ValueError(f"a layer's form must be like fp32, int8, a8, r12 or r12a8, got {label!r}")
        return cls(rounded=match[2] is not None, kept_rank=int(match[1] or 0))


PLAIN = Form()


def form_of(layer: LayerInfo, spec: LayerSpec) -> Form:
    """Form of a layer under a spec.

    Plain integers of 8 bits and fewer run as int8 where the input is quantized too. Other weights, weights alone, and
    zeros run as FP32. A range found at run time is timed like a calibrated one.

    An embedding always runs as FP32, and so does a weight inside a recurrent layer or an attention.
    A residual runs as the whole weight. Of the other forms of low rank ("input", "spatial", "tucker2") no form here
    tells: they are timed as the whole weight, which is not what runs.
    """
    if layer.kind == "embedding" or layer.is_fused:
        return PLAIN
    rounded, kept = spec.changes_activation, 0
    if spec.rank < 1.0 and spec.rank_form == "channel":
        from ...compressors.lowrank import kept_rank

        kept = kept_rank(spec.rank, layer.matrix_shape)
    integer = spec.needs_range and spec.is_plain_int and not kept
    return Form(integer=integer, rounded=rounded, kept_rank=kept)


def forms_of(anatomy: Anatomy, assignment: Mapping[str, LayerSpec]) -> dict[str, Form]:
    """Form of every layer by fqn; layers that `assignment` does not name are plain."""
    return {layer.fqn: form_of(layer, assignment.get(layer.fqn, _NEUTRAL)) for layer in anatomy.layers}


_NEUTRAL = LayerSpec()
