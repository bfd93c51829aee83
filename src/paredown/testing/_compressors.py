"""Contract of a compression method; see `paredown.compressors` (`register_weight_method` and the others).

    from paredown.testing import check_compressor
    check_compressor("weight", "mine")

Each check raises `AssertionError` and says what the method broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..compressors import (
    FORMAT_BITS,
    LayerGradients,
    LayerInfo,
    LayerMoments,
    LayerSpec,
    Pattern,
    applicable,
    compress,
    decode,
    needs_gradients,
)
from ..compressors.quantization import CASTS, Coded, Grid, WeightProblem, broken_promise, code_range, decoded
from ..compressors.registry import REGISTRIES
from ..compressors.sparsity import SparsityProblem, n_zeros, sparsify
from ..errors import InputError, SpecError

_BITS = (2, 3, 4, 5, 6, 7, 8)
_ASKED: tuple[tuple[int | str, bool, bool], ...] = ((0, False, True), (8, True, True), ("tensor", False, False))
"""Settings to check: group size, whether half of the weights were dropped, whether the inputs are known."""
_FULLY, _ENOUGH = ("int", "int_asym", "palette"), ((3, 5), (1, 1), (2, 31))
"""Formats that are checked on every matrix, and shapes of the matrices for the others."""


def check_compressor(kind: str, name: str) -> None:
    """Check the method registered as `name`; `kind` is "weight", "activation", "sparsity" or "rank".

    What is checked of all: it leaves its arguments and the global random state alone, gives the same twice, and copes
    with one row, one column, zeros, a constant, tiny and huge values. Then what its kind promises, and that a layer
    compressed with it can be stored and read back bit for bit.
    """
    if kind not in _CHECKS:
        raise InputError(f"there is no kind of method {kind!r}; known are {', '.join(_CHECKS)}")
    method = REGISTRIES[kind][name]
    for label, matrix in _matrices():
        where = f"the {kind} method {name!r} on {label}"
        if kind == "weight" and REGISTRIES[kind].formats(name) is not None:
            _check_formats(name, matrix, where)
        elif kind == "sparsity" and REGISTRIES[kind].gives(name) != "mask":
            _check_patterns(name, matrix, where)
        elif kind == "rank" and REGISTRIES[kind].needs(name) is not None:
            _check_rank(partial(_with_moments, method), matrix, where)
        else:
            _CHECKS[kind](method, matrix, where)
    if kind != "activation":
        _check_stored(kind, name)


def _matrices() -> Iterator[tuple[str, Tensor]]:
    """Weights that a method must handle, (out, n) float32."""
    generator = torch.Generator().manual_seed(0)

    def normal(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator)

    yield "normal weights (6 x 20)", normal(6, 20)
    yield "one row", normal(1, 9)
    yield "one column", normal(7, 1)
    yield "one weight", normal(1, 1)
    yield "zeros", torch.zeros(3, 4)
    yield "a row of zeros among others", torch.cat([normal(2, 5), torch.zeros(1, 5)])
    yield "a constant", torch.full((3, 4), 0.25)
    yield "tiny values", normal(3, 8) * 1e-20
    yield "huge values", normal(3, 8) * 1e20
    yield "an outlier", torch.cat([normal(2, 30), torch.full((2, 1), 100.0)], dim=1)


def _check_formats(name: str, matrix: Tensor, where: str) -> None:
    """Check a method that gets a problem: every format and width that it has, with and without groups and zeros."""
    method, formats = REGISTRIES["weight"][name], REGISTRIES["weight"].formats(name)
    looks_at_inputs = REGISTRIES["weight"].needs(name) is not None
    for format in formats or ():
        if format not in _FULLY and matrix.shape not in _ENOUGH:
            continue  # the tables differ in their numbers alone
        widths = FORMAT_BITS[format] if format not in CASTS else ()
        for i, bits in enumerate(dict.fromkeys((*widths[:1], *widths[-1:]))):
            for group, sparse, seen in _ASKED if i == 0 else _ASKED[:1]:
                spec = LayerSpec(weight_bits=bits, weight_format=format, group_size=group)
                here = f"{where}, {spec.label()}"
                problem = WeightProblem(
                    matrix=matrix,
                    grid=Grid.of(spec, matrix.shape[1]),
                    mask=matrix.abs() >= matrix.abs().median() if sparse else None,
                    moments=_some_moments(matrix.shape[1]) if seen else None,
                )
                twice = i == 0 and group == 0
                _check_answer(problem, _solved(method, problem, here, twice=twice), here, looks_at_inputs)


def _solved(method: Callable[..., Any], problem: WeightProblem, where: str, *, twice: bool) -> Coded:
    before = [None if t is None else t.clone() for t in (problem.matrix, problem.mask, problem.moments)]
    random_state = torch.random.get_rng_state()
    coded = method(problem)
    again = method(problem) if twice else coded
    _expect(
        torch.equal(random_state, torch.random.get_rng_state()), where, "must not draw from the global random state"
    )
    after = (problem.matrix, problem.mask, problem.moments)
    same = all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in zip(before, after, strict=True)
    )
    _expect(same, where, "must leave its arguments alone")
    _expect(torch.equal(coded.codes, again.codes), where, "must give the same when called again")
    _expect(torch.equal(coded.params.scale, again.params.scale), where, "must give the same when called again")
    found: Coded = coded
    return found


def _check_answer(problem: WeightProblem, coded: Coded, where: str, looks_at_inputs: bool) -> None:
    wrong = broken_promise(problem, coded)
    _expect(wrong is None, where, str(wrong))
    values = decoded(coded)
    again = problem.rounder(coded.params).values(values)
    _expect(torch.equal(values, again), where, "what was rounded must not move when it is rounded again")
    if problem.moments is None or looks_at_inputs:
        energy = problem.output_error(torch.zeros_like(problem.matrix))
        error = problem.output_error(values)
        _expect(error <= energy * (1 + 1e-5), where, "the output's error exceeds that of dropping the whole weight")


def _some_moments(n: int) -> Tensor:
    """Moments (1, n, n) of correlated inputs, the last of them zero where there are several."""
    x = torch.randn(4 * n, n, generator=torch.Generator().manual_seed(n))
    x = x + x.mean(dim=1, keepdim=True) * 2.0
    if n > 1:
        x[:, -1] = 0.0
    return (x.T @ x / len(x))[None]


def _check_weight(method: Callable[..., Any], matrix: Tensor, where: str) -> None:
    for bits in _BITS:
        codes, scale = _call(method, (matrix, bits), f"{where} at {bits} bits")
        low, high = code_range(bits)
        _expect(codes.dtype == torch.int8, where, f"codes must be int8, are {codes.dtype}")
        _expect(codes.shape == matrix.shape, where, f"codes must be {tuple(matrix.shape)}, are {tuple(codes.shape)}")
        _expect(scale.dtype == torch.float32, where, f"the scale must be float32, is {scale.dtype}")
        _expect(scale.shape == matrix.shape[:1], where, f"a scale for each row is expected, got {tuple(scale.shape)}")
        _expect(bool((torch.isfinite(scale) & (scale > 0)).all()), where, "scales must be finite and positive")
        inside = low <= int(codes.min()) and int(codes.max()) <= high
        _expect(inside, where, f"codes at {bits} bits must be in [{low}, {high}]")
        _expect(not bool(codes[matrix == 0].any()), where, "what is zero must stay zero")
        restored = codes.double() * scale.double()[:, None]
        error = (matrix.double() - restored).square().sum(dim=1)
        plain = _plain_error(matrix.double(), low, high)
        rounding = 1e-12 * matrix.double().square().sum(dim=1)
        worse = error > plain * (1 + 1e-5) + rounding
        _expect(not bool(worse.any()), where, f"at {bits} bits the error exceeds that of rounding to the whole range")


def _plain_error(matrix: Tensor, low: int, high: int) -> Tensor:
    """Squared error of each row when the largest magnitude sets the scale; no method may exceed it."""
    scale = matrix.abs().amax(dim=1).clamp(min=1e-30) / high
    restored = (matrix / scale[:, None]).round().clamp(low, high) * scale[:, None]
    return (matrix - restored).square().sum(dim=1)


def _check_activation(method: Callable[..., Any], matrix: Tensor, where: str) -> None:
    sample = matrix.reshape(-1)
    for values in (sample, sample.abs(), -sample.abs()):
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        clipped = _call(method, (values, low, high, 8), where)
        _expect(len(clipped) == 2, where, f"(low, high) is expected, got {clipped!r}")
        new_low, new_high = clipped
        kept = low <= new_low <= 0.0 <= new_high <= high
        _expect(kept, where, f"must keep low <= 0 <= high within [{low}, {high}], gave [{new_low}, {new_high}]")
        _expect(new_low < new_high or low == high, where, "must not clip everything to zero")


def _check_sparsity(method: Callable[..., Any], matrix: Tensor, where: str) -> None:
    for share in (0.1, 0.5, 0.75, 0.99):
        (mask,) = _call(method, (matrix, share), where)
        _expect(mask.dtype == torch.bool, where, f"the mask must be bool, is {mask.dtype}")
        _expect(mask.shape == matrix.shape, where, f"the mask must be {tuple(matrix.shape)}, is {tuple(mask.shape)}")
        expected = n_zeros(share, matrix.numel())
        dropped = int((~mask).sum())
        _expect(
            dropped == expected, where, f"{expected} of {matrix.numel()} must be dropped at {share}, were {dropped}"
        )


def _check_patterns(name: str, matrix: Tensor, where: str) -> None:
    """Check a method that gets a problem: every pattern that fits, with and without knowledge of the inputs."""
    method, (rows, columns) = REGISTRIES["sparsity"][name], (matrix.shape[0], matrix.shape[1])
    needs = REGISTRIES["sparsity"].needs(name) or ""
    for text, share in (("", 0.1), ("", 0.5), ("", 0.99), ("2:4", 0.5), ("2x2", 0.5), ("row", 0.75), ("column", 0.5)):
        pattern = Pattern.parse(text)
        if pattern.misfit(rows, columns) is not None:
            continue
        for seen in (True, False) if "moments" in needs else (False,):
            problem = SparsityProblem(
                matrix=matrix,
                share=share,
                pattern=pattern,
                moments=_some_moments(columns) if seen else None,
                gradients=_some_gradients(matrix) if "gradients" in needs else None,
            )
            here = f"{where}, {text or 'no pattern'} at {share}"
            try:
                answer = _call(method, (problem,), here)
                sparsify(problem, name)
            except SpecError as error:
                raise AssertionError(f"{here}: {error}") from error
            if len(answer) == 2 and seen:
                mask, values = answer
                kept = torch.where(mask, values, 0.0)
                plain = problem.output_error(torch.where(mask, matrix, 0.0))
                mended = problem.output_error(kept)
                worse = mended > plain * (1 + 1e-4)
                _expect(not worse, here, "the new values cost more of the output than the old ones on the same mask")


def _some_gradients(matrix: Tensor) -> Tensor:
    """Gradients (2, out, n): means, and mean squares that are not below the means' squares."""
    mean = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(matrix.numel()))
    return torch.stack([mean, mean.square() * 2.0])


def _with_moments(method: Callable[..., Any], matrix: Tensor, rank: int) -> Any:
    return method(matrix, rank, _some_moments(matrix.shape[1])[0])


def _check_rank(method: Callable[..., Any], matrix: Tensor, where: str) -> None:
    rows, columns = matrix.shape
    full = min(rows, columns)
    for rank in sorted({1, max(1, full // 2), full}):
        u, v = _call(method, (matrix, rank), where)
        _expect(u.dtype == v.dtype == torch.float32, where, f"factors must be float32, are {u.dtype} and {v.dtype}")
        shapes = (tuple(u.shape), tuple(v.shape))
        _expect(shapes == ((rows, rank), (rank, columns)), where, f"at rank {rank} the factors have shapes {shapes}")
        energy = float(matrix.double().square().sum())
        error = float((matrix.double() - u.double() @ v.double()).square().sum())
        _expect(error <= energy * (1 + 1e-5), where, f"at rank {rank} the error exceeds that of dropping the weight")
        if rank == full:
            _expect(error <= 1e-9 * energy, where, "the factors of full rank must give the weight back")


_CHECKS: dict[str, Callable[[Callable[..., Any], Tensor, str], None]] = {
    "weight": _check_weight,
    "activation": _check_activation,
    "sparsity": _check_sparsity,
    "rank": _check_rank,
}


def _check_stored(kind: str, name: str) -> None:
    """Check the method inside `compress`: the stored form gives the effective weight back, and the neutral spec is a
    no-op.
    """
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    layer = LayerInfo(fqn="layer", kind="conv2d", weight_shape=tuple(weight.shape))
    settings: dict[str, dict[str, Any]] = {
        "weight": {"weight_bits": 4},
        "sparsity": {"sparsity": 0.5},
        "rank": {"rank": 0.25},
    }
    moments = LayerMoments(second=_some_moments(54), digest="")
    gradients = LayerGradients(both=_some_gradients(weight.reshape(8, 54)), digest="")
    others: list[dict[str, Any]] = [{}] + [setting for other, setting in settings.items() if other != kind]
    for other in others:
        spec = LayerSpec.from_dict({**settings[kind], **other, f"{kind}_method": name})
        where = f"the {kind} method {name!r} in {spec.label()}"
        if spec.rank < 1.0 and needs_gradients(spec):
            continue  # of the whole weight, not of its factors
        _expect(applicable(spec, layer) is None, where, "must apply to a plain convolution")
        variant = compress(weight, spec, layer, moments=moments, gradients=gradients)
        again = decode(spec, layer.weight_shape, variant.tensors)
        _expect(torch.equal(again, variant.effective), where, "what is stored must give the effective weight back")
        _expect(0.0 < variant.weight_error < 1.0, where, f"the relative error is {variant.weight_error:g}")
    neutral = compress(weight, LayerSpec.from_dict({f"{kind}_method": name}), layer)
    _expect(
        torch.equal(neutral.effective, weight), f"the {kind} method {name!r}", "must do nothing under a neutral spec"
    )


def _call(method: Callable[..., Any], arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """Result as a tuple, after a check that the call is pure and repeatable."""
    before = [_copied(a) for a in arguments]
    random_state = torch.random.get_rng_state()
    first = method(*arguments)
    _expect(
        torch.equal(random_state, torch.random.get_rng_state()), where, "must not draw from the global random state"
    )
    same = all(_equal(a, b) for a, b in zip(arguments, before, strict=True))
    _expect(same, where, "must leave its arguments alone")
    second = method(*arguments)
    first, second = (r if isinstance(r, tuple) else (r,) for r in (first, second))
    repeats = len(first) == len(second) and all(_equal(a, b) for a, b in zip(first, second, strict=True))
    _expect(repeats, where, "must give the same when called again")
    return tuple(first)


def _copied(argument: Any) -> Any:
    if isinstance(argument, SparsityProblem):
        moments, gradients = (None if t is None else t.clone() for t in (argument.moments, argument.gradients))
        return replace(argument, matrix=argument.matrix.clone(), moments=moments, gradients=gradients)
    return argument.clone() if isinstance(argument, Tensor) else argument


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, SparsityProblem) and isinstance(b, SparsityProblem):
        pairs = ((a.matrix, b.matrix), (a.moments, b.moments), (a.gradients, b.gradients))
        return all((x is None and y is None) or _equal(x, y) for x, y in pairs)
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


def _expect(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise AssertionError(f"{where}: {what}")
