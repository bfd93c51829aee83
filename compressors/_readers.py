"""Who else reads what a layer takes, and whether what it gives goes into a sum or a mean.

An integer runtime rounds tensors, and everybody who reads one gets it rounded; a quantizer of ours stands before one
layer. Around a residual sum the two differ: the layer before it needs its output rounded (or there is no integer kernel
for it), and the path around the block reads what the block's first layer reads. So it is
with a mean over the positions, which computes in floating point. Found in one pass by the identity of
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
_RELUS = ("aten::relu", "aten::relu_")
_SLICE = "aten::slice"
_MEANS = ("aten::mean", "aten::avg_pool1d", "aten::avg_pool2d", "aten::_adaptive_avg_pool2d")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Of one layer.

    shared_input  fqn of the outermost module around the layer that is given the very tensor that the layer takes, where
                  something else reads that tensor too; "" where the layer alone does
    sum_after     fqn of the module whose output (the layer's own, or that of the batch norm behind it) goes into a sum
                  and nowhere else, or into a mean, there or behind a ReLU; "" where there is none
    relu_behind   whether a ReLU is between that module and the mean: only what it lets pass needs codes
    """

    shared_input: str = ""
    sum_after: str = ""
    relu_behind: bool = False


@dataclass(slots=True, eq=False)
class _Read:
    """A tensor that a module was given or gave, and the operations that took it."""

    tensor: Tensor
    operations: list[_Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """is_sum: of two tensors of one shape. given: the key of what came out, of a ReLU and a slice."""

    name: str
    is_sum: bool = False
    given: tuple[int, int] | None = None


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
        after, relu = self._sum_after(calls[0])
        return Readers(shared_input=self._shared_input(calls[0]), sum_after=after, relu_behind=relu)

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

    def _sum_after(self, call: _Call) -> tuple[str, bool]:
        last = call
        norm = next((c for c in self._calls if c.taken == call.given and self._is_norm(c.fqn)), None)
        if norm is not None and call.given is not None and len(self._reads[call.given].operations) == 1:
            last = norm
        if last.given is None or not self._runs_once(last.fqn):
            return "", False
        operations = self._reads[last.given].operations
        if (len(operations) == 1 and operations[0].is_sum) or self._goes_into_means(last.given):
            return last.fqn, False
        behind = operations[0].given if len(operations) == 1 and operations[0].name in _RELUS else None
        return (last.fqn, True) if behind is not None and self._goes_into_means(behind) else ("", False)

    def _goes_into_means(self, key: tuple[int, int]) -> bool:
        """Whether all that reads it is a mean, or a slice of which that holds."""
        operations = self._reads[key].operations
        return bool(operations) and all(
            op.name in _MEANS or (op.name == _SLICE and op.given is not None and self._goes_into_means(op.given))
            for op in operations
        )

    def _is_norm(self, fqn: str) -> bool:
        return isinstance(self._model.get_submodule(fqn), _NORMS)

    def _runs_once(self, fqn: str) -> bool:
        return sum(call.fqn == fqn for call in self._calls) == 1


class _Operations(TorchDispatchMode):
    """Notes which operations take the tensors that are known."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch's compiler is imported at the first operation: seconds, and packages that nobody needs here."""
        return False

    def __init__(self, reads: dict[tuple[int, int], _Read]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, tensors = func._schema.name, list(_tensors(args))
        is_sum = name in _SUMS and len(tensors) == 2 and tensors[0].shape == tensors[1].shape
        known = [self._reads.get((id(tensor), tensor._version)) for tensor in tensors]
        output = func(*args, **(kwargs or {}))
        given = None
        if any(known) and (name in _RELUS or name == _SLICE):
            # A slice counts the versions of what it is a slice of; what is written to is another from now on.
            given = (id(output), (tensors[0] if name == _SLICE else output)._version + name.endswith("_"))
            self._reads.setdefault(given, _Read(output))
        for read in known:
            if read is not None and name != "aten::detach":
                read.operations.append(_Operation(name=name, is_sum=is_sum, given=given))
        return output


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
