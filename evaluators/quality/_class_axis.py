"""Class axis: the axis of the outputs on which the classes lie, decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._error import MetricError

LAST = -1
"""Class axis of logits (N, C) and (N, …, C)."""
CHANNELS = 1
"""Class axis of maps (N, C, …), as convolutions make them."""


def resolve_class_axis(
    shape: Sequence[int], targets: Tensor | None, given: int | None = None, *, prefer_last: bool = False
) -> int | None:
    """Class axis of outputs of this shape (N, …): `LAST`, or a number from 1 up; None where no classes are found.

    given        axis that the task names (`[quality] class_axis`); it decides
    targets      their shape decides where nothing is given: that of the outputs without axis 1, or without the last
    prefer_last  choose the last axis where both fit, as in language models

    Outputs of up to two axes have their classes last, and outputs of three axes without targets too. Raises
    `MetricError` for a given axis that the outputs lack, and where class numbers fit both axes.
    """
    shape = tuple(shape)
    n_axes = len(shape)
    if given is not None:
        return _given(shape, given)
    if n_axes <= 2:
        return LAST
    if targets is None:
        return LAST if n_axes == 3 else None
    fits_first = tuple(targets.shape) == shape[:1] + shape[2:]
    fits_last = tuple(targets.shape) == shape[:-1]
    if fits_first and fits_last and not prefer_last:
        if targets.is_floating_point():
            return None
        raise MetricError(
            f"the classes of outputs {shape} may lie on axis 1 or on the last axis, as targets {tuple(targets.shape)} "
            f"fit both; set [quality] class_axis = 1, or -1 for the last"
        )
    if fits_last:
        return LAST
    return CHANNELS if fits_first else None


def _given(shape: tuple[int, ...], given: int) -> int:
    n_axes = len(shape)
    axis = given + n_axes if given < 0 else given
    if not 1 <= axis < max(n_axes, 2):
        raise MetricError(
            f"[quality] class_axis = {given} is no axis of classes in outputs {shape}; "
            f"expected 1 to {max(n_axes, 2) - 1}, or -1 for the last (axis 0 is the sample)"
        )
    return LAST if axis >= n_axes - 1 else axis


def unknown_class_axis(shape: Sequence[int], targets: Tensor | None) -> MetricError:
    """Error for outputs whose class axis is not known but needed."""
    shape = tuple(shape)
    got = "there are no targets to tell" if targets is None else f"got targets {tuple(targets.shape)}"
    return MetricError(
        f"divergence 'kl' cannot tell on which axis of outputs {shape} the classes lie: expected targets "
        f"{shape[:1] + shape[2:]} for axis 1 or {shape[:-1]} for the last, {got}; set [quality] class_axis, or "
        f'divergence = "mse" where the outputs are no logits'
    )
