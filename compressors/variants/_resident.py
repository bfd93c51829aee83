"""Resident model: it stays in memory, its layers are pointed at variants and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..anatomy import Anatomy, holder_of, kind_at, temporary_hooks, weight_at
from ..calibration import Calibration, install, rounding_of
from ..values import LayerSpec
from ._variant import Variant


class CompressedModel:
    """Model that behaves as compressed inside a block, without being copied.

    `model` is used, not copied: while an assignment is applied, its weights are the variants' effective weights. One
    assignment at a time. Raises `ConfigError` if the anatomy does not belong to this model.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy, calibration: Calibration | None = None) -> None:
        self.model = model
        self.anatomy = anatomy
        self.calibration = calibration
        self._weights: dict[str, tuple[nn.Module, str]] = {}
        self._applied = False
        for layer in anatomy.layers:
            try:
                module, leaf = holder_of(model, layer.fqn)
                fits = kind_at(model, layer.fqn) == layer.kind and (
                    tuple(weight_at(model, layer.fqn).shape) == layer.weight_shape
                )
            except InputError as error:
                raise ConfigError(f"the anatomy belongs to another model: {error}") from error
            if not fits:
                raise ConfigError(
                    f"the anatomy belongs to another model: {layer.fqn} should be a {layer.kind} with a weight of "
                    f"{layer.weight_shape}, and is {type(module).__name__}"
                )
            self._weights[layer.fqn] = (module, leaf)

    def weight(self, fqn: str) -> Tensor:
        """Current weight of a layer, detached; the original unless an assignment is applied."""
        if fqn not in self._weights:
            raise ConfigError(f"there is no layer {fqn!r} in the anatomy; known are {_few(self.anatomy.fqns)}")
        return self._parameter(fqn).detach()

    @contextmanager
    def apply(
        self, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant], *, straight_through: bool = False
    ) -> Iterator[nn.Module]:
        """Make the model behave as compressed by `assignment` inside the block; it is restored afterwards.

        `variants` gives a variant for each layer whose weight is changed; a layer that is not in `assignment` is left
        alone. No weight is copied (unless the model is on another device, or of another dtype than float32); hooks
        that quantize the inputs are there only for layers with `changes_activation`. Train mode and grad mode are not
        touched. Raises `ConfigError` if a name is unknown, a variant is missing or does not fit, layers that share a
        tensor get different treatments, or a calibration is needed and missing.

        straight_through  as in `install`
        """
        if self._applied:
            raise InputError("an assignment is applied to this model already; leave its block first")
        swaps = self._swaps(assignment, variants)
        roundings = [
            rounding_of(self.calibration, fqn, spec) for fqn, spec in assignment.items() if spec.changes_activation
        ]
        originals = [(parameter, parameter.data) for parameter, _ in swaps]
        self._applied = True
        try:
            for parameter, effective in swaps:
                parameter.data = effective.to(device=parameter.device, dtype=parameter.dtype)
            with temporary_hooks() as hooks:
                hooks += install(self.model, roundings, straight_through=straight_through)
                yield self.model
        finally:
            for parameter, data in originals:
                parameter.data = data
            self._applied = False

    def _parameter(self, fqn: str) -> nn.Parameter:
        module, leaf = self._weights[fqn]
        parameter = module._parameters[leaf]
        assert parameter is not None  # it was there when the anatomy was checked
        return parameter

    def _swaps(
        self, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant]
    ) -> list[tuple[nn.Parameter, Tensor]]:
        """Distinct parameters that change, each with its effective weight; everything is checked here."""
        check_assignment(assignment, self.anatomy)
        swaps: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for layer in self.anatomy.layers:
            spec = assignment.get(layer.fqn, LayerSpec())
            if not spec.changes_weight:
                continue
            variant = variant_of(layer.fqn, spec, variants, layer.weight_shape)
            parameter = self._parameter(layer.fqn)
            swaps[id(parameter)] = (parameter, variant.effective)
        return list(swaps.values())


def check_names(assignment: Mapping[str, LayerSpec], known: Sequence[str]) -> None:
    """Check names. Raises `ConfigError` if the assignment names an unknown layer."""
    if unknown := sorted(set(assignment) - set(known)):
        raise ConfigError(
            f"the assignment names {_few(unknown, 3)}, no layer of this model that can be compressed; known are "
            f"{_few(known)}. Does the config belong to another model?"
        )


def check_assignment(assignment: Mapping[str, LayerSpec], anatomy: Anatomy) -> None:
    """Check an assignment. Raises `ConfigError` for a name outside the anatomy, or different weights for layers that
    share a tensor.
    """
    check_names(assignment, anatomy.fqns)
    for layer in anatomy.layers:
        mine = assignment.get(layer.fqn, LayerSpec()).weight_only
        for other in layer.tied_to:
            theirs = assignment.get(other, LayerSpec()).weight_only
            if mine != theirs:
                raise ConfigError(
                    f"{layer.fqn} and {other} share one weight and must get the same treatment, got "
                    f"{mine.label()!r} and {theirs.label()!r}"
                )


def variant_of(fqn: str, spec: LayerSpec, variants: Mapping[str, Variant], shape: tuple[int, ...]) -> Variant:
    """Variant of a layer whose weight is changed. Raises `ConfigError` if it is missing or does not fit."""
    if fqn not in variants:
        raise ConfigError(f"{fqn} is to become {spec.label()}, but no variant of it was given; see VariantStore.get")
    variant = variants[fqn]
    if variant.spec != spec.weight_only:
        raise ConfigError(f"{fqn} is to become {spec.label()}, but its variant is {variant.spec.label()}")
    if tuple(variant.effective.shape) != shape:
        raise ConfigError(f"the variant of {fqn} should be of shape {shape}, got {tuple(variant.effective.shape)}")
    return variant


def _few(names: Sequence[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
