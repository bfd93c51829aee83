"""Consumers of the tensors that layers read and make, found in one forward pass.

An integer runtime rounds tensors, so every consumer of a tensor gets it rounded. A quantizer of ours stands before one
layer. Around a residual sum the two differ. The layer before the sum needs its output rounded, as there is no integer
kernel for it otherwise; and the path around the block reads the same tensor as the block's first layer. The same holds
for a mean over the positions, which computes in floating point.

Tensors are told apart by their identity, so a view, or a sum of a sum, is not seen. Such a layer keeps its own
quantizer, which is slower and equally correct. A product of attention is integer where both of its factors are rounded.
These are outputs of linear layers, or softmax's; views between them are followed.
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
from ._forward import temporary_hooks

_SUMS = ("aten::add", "aten::add_")
_RELUS = ("aten::relu", "aten::relu_")
_SLICE = "aten::slice"
_VIEWS = (
    "aten::view", "aten::_unsafe_view", "aten::transpose", "aten::permute", "aten::t", "aten::expand", "aten::clone",
    "aten::unsqueeze", "aten::squeeze", "aten::select", "aten::alias", "aten::unbind", "aten::split",
    "aten::split_with_sizes",
    _SLICE,
)  # fmt: skip
"""Operations whose output holds the input's numbers, or some of them."""
_OWN_MEMORY = ("aten::clone", "aten::_unsafe_view")
_MEANS = ("aten::mean", "aten::avg_pool1d", "aten::avg_pool2d", "aten::_adaptive_avg_pool2d")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_FACTORS = ("query", "key", "value")
_ROLES = ("factor", "factor", "value")
_Key = tuple[int, int]
"""Identity and version of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumers:
    """Consumers of one layer's input and output.

    shared_input      fqn of the outermost module around the layer that gets the layer's own input tensor, where another
                      consumer reads that tensor too; "" where the layer alone does
    residual_output   fqn of the module whose output (the layer's own, or that of the batch norm behind it) goes only
                      into a sum, or only into means, directly or behind a ReLU; "" where there is none
    relu_before_mean  whether a ReLU is between that module and the mean: only positive values need codes then
    product           role of the layer's output in a product of attention, its only consumer: "factor", a query or a
                      key; "value", the factor of the scores; "" where it has no such role
    product_in        fqn of the module in whose forward the product is
    """

    shared_input: str = ""
    residual_output: str = ""
    relu_before_mean: bool = False
    product: str = ""
    product_in: str = ""


@dataclass(slots=True, eq=False)
class _Tensor:
    """Input or output of a module, and the operations that read it."""

    tensor: Tensor
    operations: list[_Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """Operation that reads a tensor.

    is_sum   whether it is a sum of two tensors of one shape
    output   key of the output, for a ReLU and a view
    product  role of the tensor in a product of attention
    others   keys of the product's other factors
    """

    name: str
    is_sum: bool = False
    output: _Key | None = None
    product: str = ""
    product_in: str = ""
    others: tuple[_Key | None, ...] = ()


@dataclass(slots=True, eq=False)
class _Call:
    fqn: str
    input: _Key | None
    output: _Key | None = None


class ConsumerWatch:
    """Watches one forward pass of `model`; afterwards `of(fqn)` gives the consumers of a layer.

    Names are those of `model.named_modules()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tensors: dict[_Key, _Tensor] = {}
        self._calls: list[_Call] = []
        self._open: list[_Call] = []
        self._scores: list[tuple[str, ...]] = []  # the modules around each softmax
        self._softmaxes: dict[_Key, str] = {}  # its output -> the module that called it
        self._views: dict[_Key, _Key] = {}  # a view -> its base

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch inside the block. Every tensor between modules is kept as long as the watch itself."""
        open_calls = self._open

        def enter(fqn: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                call = _Call(fqn, self._key(args[0] if args else None))
                self._calls.append(call)
                open_calls.append(call)

            return hook

        def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            open_calls.pop().output = self._key(output)

        with temporary_hooks() as hooks:
            for fqn, module in self._model.named_modules():
                hooks += [module.register_forward_pre_hook(enter(fqn)), module.register_forward_hook(leave)]
            with _Operations(self._tensors, self._views) as operations, _Functions(self, operations):
                yield

    def of(self, fqn: str) -> Consumers:
        """Consumers of a layer; empty for a module that ran not once, but never or several times."""
        calls = [call for call in self._calls if call.fqn == fqn]
        if len(calls) != 1:  # a shared module reads several tensors
            return Consumers()
        residual, relu = self._residual_output(calls[0])
        product, inside = self._product(calls[0])
        return Consumers(
            shared_input=self._shared_input(calls[0]), residual_output=residual, relu_before_mean=relu, product=product,
            product_in=inside,
        )  # fmt: skip

    def attends(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Note a call of PyTorch's plain attention."""
        inside = self._inside()
        keys = [self._known(x) for x in (query, key, value)]
        for i, known in enumerate(keys):
            if known is not None:
                others = (keys[1 - i],) if i < 2 else ()
                self._tensors[known].operations.append(
                    _Operation(name="attention", product=_ROLES[i], product_in=inside, others=others)
                )

    def multiplies(self, left: Tensor, right: Tensor) -> None:
        """Note a product of two matrices, or of batches of them."""
        inside, keys = self._inside(), [self._known(left), self._known(right)]
        weighs = keys[0] is not None and self._root(keys[0]) in self._softmaxes
        for i, known in enumerate(keys):
            if known is not None:
                role = ("scores", "value")[i] if weighs else "factor"
                others = () if weighs else (keys[1 - i],)
                self._tensors[known].operations.append(
                    _Operation(name="product", product=role, product_in=inside, others=others)
                )

    def normalises(self, output: Tensor | None) -> None:
        """Note the output of a softmax, or (None) one inside PyTorch's attention."""
        self._scores.append(tuple(call.fqn for call in self._open))
        if output is not None and (key := self._key(output)) is not None:
            self._softmaxes[key] = self._inside()

    def _inside(self) -> str:
        return self._open[-1].fqn if self._open else ""

    def _known(self, tensor: Tensor) -> _Key | None:
        key = (id(tensor), tensor._version)
        return key if key in self._tensors else None

    def _root(self, key: _Key) -> _Key:
        """Key of a view's base, through all views of views."""
        while key in self._views:
            key = self._views[key]
        return key

    def _product(self, call: _Call) -> tuple[str, str]:
        """Fields (product, product_in) of `Consumers`."""
        if call.output is None:
            return "", ""
        ends = list(self._ends(call.output))
        places = {op.product_in for op in ends}
        if not ends or len(places) != 1 or not all(op.product in ("factor", "value") for op in ends):
            return "", ""
        (inside,) = places
        outputs = {other.output for other in self._calls if other.output is not None}
        for op in ends:
            if not all(other is not None and self._root(other) in outputs for other in op.others):
                return "", ""  # the other factor is not the output of a layer, where it would be rounded
        if all(op.product == "factor" for op in ends):
            return "factor", inside
        return ("value", inside) if self._has_one_softmax(inside) else ("", "")

    def _ends(self, key: _Key) -> Iterator[_Operation]:
        """Operations that read the tensor, or a view of it."""
        for op in self._tensors[key].operations:
            if op.name in _VIEWS and op.output is not None:
                yield from self._ends(op.output)
            else:
                yield op

    def _has_one_softmax(self, fqn: str) -> bool:
        """Tell whether the module's own forward has one softmax, read by products alone, and no module inside has any.

        Then its output is the scores.
        """
        own = [stack for stack in self._scores if stack[-1:] == (fqn,)]
        inner = [stack for stack in self._scores if fqn in stack[:-1]]
        scores = [op for key, inside in self._softmaxes.items() if inside == fqn for op in self._ends(key)]
        return len(own) == 1 and not inner and self._runs_once(fqn) and all(op.product == "scores" for op in scores)

    def _key(self, value: object) -> _Key | None:
        """Key of the tensor at its present version: an operation that writes into it gives it another key."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return None
        key = (id(value), value._version)
        self._tensors.setdefault(key, _Tensor(value))
        return key

    def _shared_input(self, call: _Call) -> str:
        if call.input is None or len(self._tensors[call.input].operations) < 2:
            return ""
        around = (c for c in self._calls if c.input == call.input and c.fqn and call.fqn.startswith(f"{c.fqn}."))
        outermost = next(around, None)  # a module is entered before those inside
        return outermost.fqn if outermost is not None and self._runs_once(outermost.fqn) else ""

    def _residual_output(self, call: _Call) -> tuple[str, bool]:
        last = call
        norm = next((c for c in self._calls if c.input == call.output and self._is_norm(c.fqn)), None)
        if norm is not None and call.output is not None and len(self._tensors[call.output].operations) == 1:
            last = norm
        if last.output is None or not self._runs_once(last.fqn):
            return "", False
        operations = self._tensors[last.output].operations
        if (len(operations) == 1 and operations[0].is_sum) or self._goes_into_means(last.output):
            return last.fqn, False
        behind = operations[0].output if len(operations) == 1 and operations[0].name in _RELUS else None
        return (last.fqn, True) if behind is not None and self._goes_into_means(behind) else ("", False)

    def _goes_into_means(self, key: _Key) -> bool:
        """Tell whether the tensor is read by means alone, directly or through slices."""
        operations = self._tensors[key].operations
        return bool(operations) and all(
            op.name in _MEANS or (op.name == _SLICE and op.output is not None and self._goes_into_means(op.output))
            for op in operations
        )

    def _is_norm(self, fqn: str) -> bool:
        return isinstance(self._model.get_submodule(fqn), _NORMS)

    def _runs_once(self, fqn: str) -> bool:
        return sum(call.fqn == fqn for call in self._calls) == 1


class _Operations(TorchDispatchMode):
    """Notes the operations that read known tensors."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler at the first operation, which takes seconds and unneeded packages."""
        return False

    def __init__(self, tensors: dict[_Key, _Tensor], views: dict[_Key, _Key]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensors, self._views = tensors, views
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        name, tensors = func._schema.name, list(_tensors(args))
        is_sum = name in _SUMS and len(tensors) == 2 and tensors[0].shape == tensors[1].shape
        known = [self._tensors.get((id(tensor), tensor._version)) for tensor in tensors]
        output = func(*args, **(kwargs or {}))
        keys: list[_Key | None] = [None]
        if any(known) and (name in _RELUS or name in _VIEWS):
            keys = [self._output_key(name, tensors[0], each) for each in _tensors([output])]
        for read in known:
            if read is not None and name != "aten::detach":
                read.operations += [_Operation(name=name, is_sum=is_sum, output=key) for key in keys]
        return output

    def _output_key(self, name: str, source: Tensor, output: Tensor) -> _Key:
        """Key of an output. A view shares its base's version counter; an operation in place raises the version."""
        shares = name in _VIEWS and name not in _OWN_MEMORY
        key = (id(output), (source if shares else output)._version + name.endswith("_"))
        self._tensors.setdefault(key, _Tensor(output))
        if name in _VIEWS:
            self._views[key] = (id(source), source._version)
        return key


class _Functions(TorchFunctionMode):
    """Notes attention and products at their call, before PyTorch divides them into smaller operations."""

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
