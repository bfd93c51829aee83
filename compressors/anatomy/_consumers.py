"""Who else reads what a layer takes, and whether what it gives goes into a sum or a mean.

An integer runtime rounds tensors, and everybody who reads one gets it rounded; a quantizer of ours stands before one
layer. Around a residual sum the two differ: the layer before it needs its output rounded (or there is no integer kernel
for it), and the path around the block reads what the block's first layer reads. So it is
with a mean over the positions, which computes in floating point. Found in one pass by the identity of
tensors, so a view, or a sum of a sum, is not seen: the layer is then left with its own quantizer, which is slower and
no less right. A product of attention is integer where both of its factors are rounded, which are outputs of linear
layers, or softmax's; views on the way there are followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ._attention import ATTENTION, MATRIX_PRODUCTS, SOFTMAXES, is_plain

_SUMS = ("aten::add", "aten::add_")
_RELUS = ("aten::relu", "aten::relu_")
_SLICE = "aten::slice"
_VIEWS = (
    "aten::view", "aten::_unsafe_view", "aten::transpose", "aten::permute", "aten::t", "aten::expand", "aten::clone",
    "aten::unsqueeze", "aten::squeeze", "aten::select", "aten::alias", "aten::unbind", "aten::split",
    "aten::split_with_sizes",
    _SLICE,
)  # fmt: skip
"""Operations after which the numbers are the same, or some of them."""
_OWN_MEMORY = ("aten::clone", "aten::_unsafe_view")
_MEANS = ("aten::mean", "aten::avg_pool1d", "aten::avg_pool2d", "aten::_adaptive_avg_pool2d")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_FACTORS = ("query", "key", "value")
_ROLES = ("factor", "factor", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumers:
    """Of one layer.

    shared_input  fqn of the outermost module around the layer that is given the very tensor that the layer takes, where
                  something else reads that tensor too; "" where the layer alone does
    sum_after     fqn of the module whose output (the layer's own, or that of the batch norm behind it) goes into a sum
                  and nowhere else, or into a mean, there or behind a ReLU; "" where there is none
    relu_behind   whether a ReLU is between that module and the mean: only what it lets pass needs codes
    product       what the layer's output is to a product of attention, if it goes there and nowhere else: "factor", a
                  query or a key; "value", what the scores are multiplied by; "" where it is neither
    product_in    fqn of the module in whose forward the product is
    """

    shared_input: str = ""
    residual_output: str = ""
    relu_before_mean: bool = False
    product: str = ""
    product_in: str = ""


@dataclass(slots=True, eq=False)
class _Read:
    """A tensor that a module was given or gave, and the operations that took it."""

    tensor: Tensor
    operations: list[_Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """is_sum: of two tensors of one shape. given: the key of what came out, of a ReLU and a view. product: what the
    tensor is to a product of attention. others: keys of its other factors."""

    name: str
    is_sum: bool = False
    given: tuple[int, int] | None = None
    product: str = ""
    product_in: str = ""
    others: tuple[tuple[int, int] | None, ...] = ()


@dataclass(slots=True, eq=False)
class _Call:
    fqn: str
    taken: tuple[int, int] | None
    given: tuple[int, int] | None = None


class ConsumerWatch:
    """Watches one forward pass of `model`. Afterwards `of(fqn)` tells; names are those of `model.named_modules()`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._reads: dict[tuple[int, int], _Read] = {}
        self._calls: list[_Call] = []
        self._open: list[_Call] = []
        self._scores: list[tuple[str, ...]] = []  # of each softmax, the modules around it
        self._softmaxes: dict[tuple[int, int], str] = {}  # what each gave -> the module that it was called in
        self._views: dict[tuple[int, int], tuple[int, int]] = {}  # a view -> what it is of

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps every tensor that passes between modules until the watch itself goes."""
        handles = []
        open_calls = self._open

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
            with _Operations(self._reads, self._views) as operations, _Functions(self, operations):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, fqn: str) -> Consumers:
        calls = [call for call in self._calls if call.fqn == fqn]
        if len(calls) != 1:  # a shared module reads several tensors
            return Consumers()
        after, relu = self._sum_after(calls[0])
        product, inside = self._product(calls[0])
        return Consumers(
            shared_input=self._shared_input(calls[0]), residual_output=after, relu_before_mean=relu, product=product,
            product_in=inside,
        )  # fmt: skip

    def attends(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """A call of PyTorch's plain attention."""
        inside = self._inside()
        keys = [self._known(x) for x in (query, key, value)]
        for i, known in enumerate(keys):
            if known is not None:
                others = (keys[1 - i],) if i < 2 else ()
                self._reads[known].operations.append(
                    _Operation(name="attention", product=_ROLES[i], product_in=inside, others=others)
                )

    def multiplies(self, left: Tensor, right: Tensor) -> None:
        """A product of two matrices, or of batches of them."""
        inside, keys = self._inside(), [self._known(left), self._known(right)]
        weighs = keys[0] is not None and self._root(keys[0]) in self._softmaxes
        for i, known in enumerate(keys):
            if known is not None:
                role = ("scores", "value")[i] if weighs else "factor"
                others = () if weighs else (keys[1 - i],)
                self._reads[known].operations.append(
                    _Operation(name="product", product=role, product_in=inside, others=others)
                )

    def normalises(self, output: Tensor | None) -> None:
        """A softmax, or (None) one that is inside of PyTorch's attention."""
        self._scores.append(tuple(call.fqn for call in self._open))
        if output is not None and (key := self._seen(output)) is not None:
            self._softmaxes[key] = self._inside()

    def _inside(self) -> str:
        return self._open[-1].fqn if self._open else ""

    def _known(self, tensor: Tensor) -> tuple[int, int] | None:
        key = (id(tensor), tensor._version)
        return key if key in self._reads else None

    def _root(self, key: tuple[int, int]) -> tuple[int, int]:
        """What a view is of, through all views of views."""
        while key in self._views:
            key = self._views[key]
        return key

    def _product(self, call: _Call) -> tuple[str, str]:
        """(product, product_in) of `Consumers`."""
        if call.given is None:
            return "", ""
        ends = list(self._ends(call.given))
        places = {op.product_in for op in ends}
        if not ends or len(places) != 1 or not all(op.product in ("factor", "value") for op in ends):
            return "", ""
        (inside,) = places
        given = {other.given for other in self._calls if other.given is not None}
        for op in ends:
            if not all(other is not None and self._root(other) in given for other in op.others):
                return "", ""  # the other factor is not rounded as it leaves a layer
        if all(op.product == "factor" for op in ends):
            return "factor", inside
        return ("value", inside) if self._has_one_softmax(inside) else ("", "")

    def _ends(self, key: tuple[int, int]) -> Iterator[_Operation]:
        """Whatever reads the tensor, or a view of it."""
        for op in self._reads[key].operations:
            if op.name in _VIEWS and op.given is not None:
                yield from self._ends(op.given)
            else:
                yield op

    def _has_one_softmax(self, fqn: str) -> bool:
        """Whether the module's own forward has just one, with nothing behind it but products, and no module inside has
        any: then what is rounded there is the scores."""
        own = [stack for stack in self._scores if stack[-1:] == (fqn,)]
        inner = [stack for stack in self._scores if fqn in stack[:-1]]
        scores = [op for key, inside in self._softmaxes.items() if inside == fqn for op in self._ends(key)]
        return len(own) == 1 and not inner and self._runs_once(fqn) and all(op.product == "scores" for op in scores)

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

    def __init__(self, reads: dict[tuple[int, int], _Read], views: dict[tuple[int, int], tuple[int, int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads, self._views = reads, views
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        name, tensors = func._schema.name, list(_tensors(args))
        is_sum = name in _SUMS and len(tensors) == 2 and tensors[0].shape == tensors[1].shape
        known = [self._reads.get((id(tensor), tensor._version)) for tensor in tensors]
        output = func(*args, **(kwargs or {}))
        given: list[tuple[int, int] | None] = [None]
        if any(known) and (name in _RELUS or name in _VIEWS):
            given = [self._given(name, tensors[0], each) for each in _tensors([output])]
        for read in known:
            if read is not None and name != "aten::detach":
                read.operations += [_Operation(name=name, is_sum=is_sum, given=key) for key in given]
        return output

    def _given(self, name: str, taken: Tensor, output: Tensor) -> tuple[int, int]:
        """A view counts the versions of what it is a view of; what is written to is another from now on."""
        shares = name in _VIEWS and name not in _OWN_MEMORY
        key = (id(output), (taken if shares else output)._version + name.endswith("_"))
        self._reads.setdefault(key, _Read(output))
        if name in _VIEWS:
            self._views[key] = (id(taken), taken._version)
        return key


class _Functions(TorchFunctionMode):
    """Notes attention and products as they are called, before PyTorch takes them apart."""

    def __init__(self, watch: ConsumerWatch, operations: _Operations) -> None:
        super().__init__()
        self._watch, self._operations = watch, operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ATTENTION and is_plain(*args, **kwargs):
            self._watch.attends(*(args[i] if i < len(args) else kwargs[name] for i, name in enumerate(_FACTORS)))
            self._watch.normalises(None)
            return self._unseen(func, args, kwargs)
        if func in MATRIX_PRODUCTS and len(args) == 2 and not kwargs:
            self._watch.multiplies(*args)
            return self._unseen(func, args, kwargs)
        output = func(*args, **kwargs)
        if func in SOFTMAXES:
            self._watch.normalises(output)
        return output

    def _unseen(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._operations.paused = True
        try:
            return func(*args, **kwargs)
        finally:
            self._operations.paused = False


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
