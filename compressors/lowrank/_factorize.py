"""Application of a method of two factors to every form."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import SpecError
from ..registry import DAMPING, RANK
from ._forms import basis, part_shapes, reduced_moments, unfolded

_ROUNDS = 2


def factorize(
    form: str, matrix: Tensor, shape: tuple[int, ...], share: float, method: str, second: Tensor | None
) -> dict[str, Tensor]:
    """Factorize a matrix (O, n) by the registered rank `method`: prefix -> part, float32, without a residual's rest.

    second  (n, n) moments of the inputs, where the method needs them

    A method that looks at the inputs gets, of the forms that see only a part of the kernel at first, the mean over the
    rest of it; then the last part is fitted to the layer's output exactly. Tucker-2 is found in rounds, one mode after
    the other (De Lathauwer et al. 2000, HOOI), the core by least squares.
    Raises `SpecError` if the method breaks its protocol.
    """
    shapes = part_shapes(form, share, shape)
    out, matrix = shape[0], matrix.float()
    if form in ("channel", "residual"):
        u, v = _two(method, matrix, shapes["v."][0], second)
        return {"u.": u, "v.": v}
    if form == "tucker2":
        return _tucker2(matrix, shape, shapes, method, second)
    reduced = None if second is None else reduced_moments(form, second, shape)
    u, v = _two(method, unfolded(form, matrix, shape), shapes["v."][0], reduced)
    parts = {"u.": u.reshape(out, -1, u.shape[1]).transpose(1, 2).reshape(out, -1).contiguous(), "v.": v}
    return {**parts, "u.": fitted(form, "u.", matrix, parts, second, shape)} if second is not None else parts


def fitted(
    form: str, prefix: str, matrix: Tensor, parts: dict[str, Tensor], second: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """Part that, after those before it in the chain, comes nearest to `matrix` (rows, n) in the layer's output.

    The moments are damped by a hundredth of their mean, for directions that a few samples do not have.
    """
    through = basis(form, prefix, parts, shape)
    if second is None:
        weighed = through
    else:
        damping = DAMPING * float(second.diagonal().double().mean())
        weighed = through @ second.double() + damping * through
    gram = weighed @ through.T
    inverse: Tensor = torch.linalg.pinv(gram, hermitian=True)
    return (matrix.double() @ weighed.T @ inverse).float()


def _tucker2(
    matrix: Tensor, shape: tuple[int, ...], shapes: dict[str, tuple[int, int]], method: str, second: Tensor | None
) -> dict[str, Tensor]:
    out, rank, inner = shape[0], shapes["u."][1], shapes["v."][0]
    reduced = None if second is None else reduced_moments("tucker2", second, shape)
    left = torch.eye(out)
    parts: dict[str, Tensor] = {}
    for turn in range(_ROUNDS):
        seen = left.T @ matrix
        by_input = unfolded("input", seen, (len(seen), *shape[1:]))
        full = min(inner, *by_input.shape)
        _, v = _two(method, by_input, full, reduced)
        parts["v."] = torch.nn.functional.pad(v, (0, 0, 0, inner - full))
        inside = fitted("tucker2", "c.", matrix, parts, second, shape)  # (O, inner * K): the best with this v
        near = (inside.double() @ basis("tucker2", "c.", parts, shape)).float()
        u, _ = _two(method, near if turn else matrix, rank, second)
        left = torch.linalg.qr(u.double())[0].float()
        core = left.T @ inside
        parts["u."], parts["c."] = left, core
    return {"u.": parts["u."].contiguous(), "c.": parts["c."].contiguous(), "v.": parts["v."].contiguous()}


def _two(method: str, matrix: Tensor, rank: int, second: Tensor | None) -> tuple[Tensor, Tensor]:
    looks = RANK.needs(method) is not None and second is not None
    u, v = RANK[method](matrix, rank, second) if looks else RANK[method](matrix, rank)
    expected = ((matrix.shape[0], rank), (rank, matrix.shape[1]))
    if (tuple(u.shape), tuple(v.shape)) != expected:
        raise SpecError(
            f"the rank method {method!r} must give factors of shapes {expected[0]} and {expected[1]}, "
            f"got {tuple(u.shape)} and {tuple(v.shape)}"
        )
    return u, v
