"""Who else reads what a layer takes, and whether what it gives goes into a sum.

An integer runtime rounds tensors, and everybody who reads one gets it rounded; a quantizer of ours stands before one
layer. Around a residual sum the two differ: the layer before it needs its output rounded (or there is no integer kernel
for it), and the path around the block reads what the block's first layer reads. Found in one pass by the identity of
tensors, so a view, or a sum of a sum, is not seen: the layer is then left with its own quantizer, which is slower and
no less right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_SUMS = ("aten::add", "aten::add_")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Of one layer.

    shared_input  fqn of the outermost module around the layer that is given the very tensor that the layer takes, where
                  something else reads that tensor too; "" where the layer alone does
    sum_after     fqn of the module whose output (the layer's own, or that of the batch norm behind it) goes into a sum
                  and nowhere else; "" where there is none
    """

    shared_input: str = ""
    sum_after: str = ""


@dataclass(slots=True, eq=False)
class _Read:
    """A tensor that a module was given or gave, and the operations that took it."""

    tensor: Tensor
    operations: list[tuple[str, bool]] = field(default_factory=list)
    """(name, whether it is a sum of two tensors of one shape)"""


@dataclass(slots=True, eq=False)
class _Call:
    fqn: str
    taken: tuple[int, int] | None
    given: tuple[int, int] | None = None


class ReaderWatch:
    """Watches one forward pass of `model`. Afterwards `of(fqn)` tells; names are those of `model.named_modules()`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._reads: dict[tuple[int, int], _Read] = {}
        self._calls: list[_Call] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps every tensor that passes between modules until the watch itself goes."""
        handles = []
        open_calls: list[_Call] = []

        def enter(fqn: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                call = _Call(fqn, self._seen(args[0] if args else None))
                self._calls.append(call)
                open_calls.append(call)

            return hook

        def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            open_calls.pop().given = self._seen(output)

        try:
            for fqn, module in self._model.named_modules():
                handles += [module.register_forward_pre_hook(enter(fqn)), module.register_forward_hook(leave)]
            with _Operations(self._reads):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, fqn: str) -> Readers:
        calls = [call for call in self._calls if call.fqn == fqn]
        if len(calls) != 1:  # a shared module reads several tensors
            return Readers()
        return Readers(shared_input=self._shared_input(calls[0]), sum_after=self._sum_after(calls[0]))

    def _seen(self, value: object) -> tuple[int, int] | None:
        """A key of the tensor as it is now: who writes into it makes it another."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return None
        key = (id(value), value._version)
        self._reads.setdefault(key, _Read(value))
        return key

    def _shared_input(self, call: _Call) -> str:
        if call.taken is None or len(self._reads[call.taken].operations) < 2:
            return ""
        around = (c for c in self._calls if c.taken == call.taken and c.fqn and call.fqn.startswith(f"{c.fqn}."))
        outermost = next(around, None)  # a module is entered before those inside
        return outermost.fqn if outermost is not None and self._runs_once(outermost.fqn) else ""

    def _sum_after(self, call: _Call) -> str:
        last = call
        norm = next((c for c in self._calls if c.taken == call.given and self._is_norm(c.fqn)), None)
        if norm is not None and call.given is not None and len(self._reads[call.given].operations) == 1:
            last = norm
        if last.given is None or not self._runs_once(last.fqn):
            return ""
        operations = self._reads[last.given].operations
        return last.fqn if len(operations) == 1 and operations[0][1] else ""

    def _is_norm(self, fqn: str) -> bool:
        return isinstance(self._model.get_submodule(fqn), _NORMS)

    def _runs_once(self, fqn: str) -> bool:
        return sum(call.fqn == fqn for call in self._calls) == 1


class _Operations(TorchDispatchMode):
    """Notes which operations take the tensors that are known."""

    def __init__(self, reads: dict[tuple[int, int], _Read]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = list(_tensors(args))
        is_sum = func._schema.name in _SUMS and len(tensors) == 2 and tensors[0].shape == tensors[1].shape
        for tensor in tensors:
            read = self._reads.get((id(tensor), tensor._version))
            if read is not None and func._schema.name != "aten::detach":
                read.operations.append((func._schema.name, is_sum))
        return func(*args, **(kwargs or {}))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
