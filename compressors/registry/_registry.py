"""Names of methods, and the protocol of a method.

A `LayerSpec` says *what* is done; a registered method says *how*. A method is a plain function:

weight      (matrix, bits) -> (codes, scale): symmetric quantization of a weight
            matrix (out, n) float32; codes (out, n) int8 within `code_range(bits)`, 0 where the matrix is 0;
            scale (out,) float32, positive. The quantized matrix is `codes * scale[:, None]`. Where groups are asked
            for, the rows that it gets are groups. Such a method is for the format "int".
            A method that is registered with `formats` is (problem) -> coded instead, see `quantization/_problem.py`:
            it is told of format, groups and dropped weights and, with `needs="moments"`, of the layer's inputs
activation  (sample, low, high, bits) -> (low, high): where to clip an activation
            sample (n,) float32 of the values seen; low <= 0 <= high are the extremes of all of them
sparsity    (matrix, share) -> mask (out, n) bool, True where a weight survives; exactly `round(share * numel)`
            are False, but at least one survives. Such a method knows no pattern.
            A method that is registered with gives="scores" is (problem) -> (out, n) float: what scores least goes, in
            whatever pattern was asked for. With gives="weights" it is (problem) -> (mask, values): survivors that make
            up for what was dropped. For both see `sparsity/_problem.py`; with `needs` the problem holds what the
            calibration data says of the inputs ("moments"), of the loss ("gradients"), or of both
rank        (matrix, rank) -> (u, v): u (out, rank) and v (rank, n) float32, whose product stands for the matrix.
            With needs="moments" it is (matrix, rank, second): second (n, n) moments of what the rows are multiplied
            with

All of them are pure and deterministic, and leave their arguments alone. How the result is stored is not their business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from ...errors import SpecError

WeightMethod = Callable[..., Any]
"""Type of a weight method: (matrix, bits) -> (codes, scale), or (problem) -> coded."""
ActivationMethod = Callable[[Tensor, float, float, int], tuple[float, float]]
SparsityMethod = Callable[..., Any]
"""Type of a sparsity method: (matrix, share) -> mask, (problem) -> scores, or (problem) -> (mask, values)."""
RankMethod = Callable[..., tuple[Tensor, Tensor]]
"""Type of a rank method: (matrix, rank) or (matrix, rank, second) -> (u, v)."""

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[M]):
    method: M
    version: str
    formats: tuple[str, ...] | None = None
    needs: str | None = None
    gives: str = "mask"
    optional: bool = False


NEEDS = ("moments", "gradients", "moments+gradients")
GIVES = ("mask", "scores", "weights")


class Registry(Generic[M]):
    """Registered methods of one kind, by name. A duplicate name is an error; an unknown name lists the known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, _Entry[M]] = {}
        self.compose: Callable[[str], _Entry[M] | None] | None = None
        """Function that makes a method from a name that is an expression; it returns None for any other name."""

    def register(
        self, name: str, method: M, *, version: str = "1", formats: tuple[str, ...] | None = None,
        needs: str | None = None, gives: str = "mask", optional: bool = False,
    ) -> None:  # fmt: skip
        if not isinstance(name, str) or not name.isidentifier():
            raise SpecError(f"a {self.kind} method needs a name of letters, digits and _, got {name!r}")
        if not callable(method):
            raise SpecError(f"the {self.kind} method {name!r} must be a function, got {type(method).__name__}")
        if name in self._entries:
            raise SpecError(f"there is a {self.kind} method {name!r} already; give the new one another name")
        known = {"weight": NEEDS[:1], "rank": NEEDS[:1], "sparsity": NEEDS}.get(self.kind, ())
        if needs is not None and needs not in known:
            raise SpecError(
                f"a {self.kind} method may need {' or '.join((*map(repr, known), 'nothing'))}, got {needs!r}"
            )
        if gives not in GIVES or (gives != "mask" and self.kind != "sparsity"):
            raise SpecError(
                f"a sparsity method gives {', '.join(GIVES)}; a {self.kind} method was said to give {gives!r}"
            )
        if optional and needs is None:
            raise SpecError(f"the {self.kind} method {name!r} needs no data, so it is not optional; leave that out")
        self._entries[name] = _Entry(method, version, formats, needs, gives, optional)

    def __getitem__(self, name: str) -> M:
        return self._entry(name).method

    def version(self, name: str) -> str:
        """Version of the method, a part of the address of its results; see `VariantStore`."""
        return self._entry(name).version

    def formats(self, name: str) -> tuple[str, ...] | None:
        """Weight formats that the method was registered with; None for a simple method, which handles "int" alone."""
        return self._entry(name).formats

    def needs(self, name: str) -> str | None:
        """Data that the method needs: one of `NEEDS`."""
        return self._entry(name).needs

    def does_without(self, name: str) -> bool:
        """Tell whether the method also works for a layer whose data is missing."""
        return self._entry(name).optional

    def gives(self, name: str) -> str:
        """Result that the method returns: one of `GIVES`."""
        return self._entry(name).gives

    def __contains__(self, name: str) -> bool:
        return name in self._entries or (self.compose is not None and self.compose(name) is not None)

    def _entry(self, name: str) -> _Entry[M]:
        if name not in self._entries:
            composed = self.compose(name) if self.compose is not None else None
            if composed is not None:
                return composed
            raise SpecError(
                f"there is no {self.kind} method {name!r}; known are {', '.join(sorted(self._entries))}. "
                f"Register it with paredown.compressors.register_{self.kind}_method"
            )
        return self._entries[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @contextmanager
    def temporarily(self, name: str, method: M, **how: Any) -> Iterator[None]:
        """Register the method inside the block only; for tests. `how` as for `register`."""
        self.register(name, method, **how)
        try:
            yield
        finally:
            del self._entries[name]


WEIGHT: Registry[WeightMethod] = Registry("weight")
ACTIVATION: Registry[ActivationMethod] = Registry("activation")
SPARSITY: Registry[SparsityMethod] = Registry("sparsity")
RANK: Registry[RankMethod] = Registry("rank")
REGISTRIES: dict[str, Registry[Any]] = {r.kind: r for r in (WEIGHT, ACTIVATION, SPARSITY, RANK)}


def register_weight_method(
    name: str, method: WeightMethod, *, version: str = "1", formats: tuple[str, ...] | None = None,
    needs: str | None = None, optional: bool = False,
) -> None:  # fmt: skip
    """Make `method` known as `LayerSpec(weight_method=name)`; see this module's docstring for its protocol.

    Give another `version` when its results change, so that stored variants are made anew.
    formats  names of weight formats, for a method that is handed a `WeightProblem`; None: (matrix, bits), for "int"
    needs    "moments": calibration then collects the second moments of the layers' inputs
    optional  the method does without them where a layer has none; its problem then holds None
    Raises `SpecError` if the name is taken.
    """
    WEIGHT.register(name, method, version=version, formats=formats, needs=needs, optional=optional)


def register_activation_method(name: str, method: ActivationMethod, *, version: str = "1") -> None:
    """Make `method` known as `LayerSpec(activation_method=name)`, before `calibrate` is called."""
    ACTIVATION.register(name, method, version=version)


def register_sparsity_method(
    name: str, method: SparsityMethod, *, version: str = "1", needs: str | None = None, gives: str = "mask"
) -> None:
    """Make `method` known as `LayerSpec(sparsity_method=name)`.

    gives  "mask", "scores" or "weights": what it returns (see this module's docstring)
    needs  "moments", "gradients" or "moments+gradients": calibration then collects them
    """
    SPARSITY.register(name, method, version=version, needs=needs, gives=gives)


def register_rank_method(name: str, method: RankMethod, *, version: str = "1", needs: str | None = None) -> None:
    """Make `method` known as `LayerSpec(rank_method=name)`; `needs` "moments" for one of (matrix, rank, second)."""
    RANK.register(name, method, version=version, needs=needs)
