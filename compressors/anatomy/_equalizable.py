"""Pairs of weights between which a channel's scale can move without a change of the model's function.

What is divided by s where a tensor is made (rows of a convolution's or a linear layer's weight and its bias, or the
gain and bias of a norm) is multiplied back where it is used (columns of the next weights), if everything between them
keeps factors: f(x / s) = f(x) / s. Found in the graph that `torch.export` makes of one forward pass.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ._forward import preserved
from ._layers import same_tensor

if TYPE_CHECKING:
    from torch.fx import Graph, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConsumer:
    """Weight whose columns read the channels: `repeat` adjacent columns for each channel (after flattening an image).

    The weight of a depthwise convolution has its channels as rows.
    """

    name: str
    repeat: int = 1
    depthwise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizablePair:
    """Parameters that make channels, and the weights that use them.

    producers  names of the parameters whose rows are the channels; the first is the weight (or the norm's gain)
    is_norm    whether these are a norm's parameters, which are never quantized
    consumers  every weight that reads the channels
    """

    producers: tuple[str, ...]
    is_norm: bool
    consumers: tuple[ChannelConsumer, ...]
    channels: int


def find_equalizable_pairs(model: nn.Module, inputs: object) -> tuple[EqualizablePair, ...]:
    """Find all equalizable pairs, in the order of the graph.

    Empty where the model cannot be traced (it branches on data, say). A parameter that is used twice, or shared,
    is in no pair.
    """
    graph, names = _graph_of(model, inputs)
    if graph is None:
        return ()
    finder = _Finder(model, names)
    return tuple(pair for node in graph.nodes if (pair := finder.pair_at(node)) is not None)


@torch.no_grad()
def rescale_channels(model: nn.Module, pair: EqualizablePair, scale: Tensor) -> None:
    """Divide the producers by `scale` (channels,), positive, and multiply the consumers by it, in place."""
    own = dict(model.named_parameters(remove_duplicate=False))
    for name in pair.producers:
        parameter = own[name]
        parameter.data = (parameter.double() / _rows(scale, parameter)).to(parameter.dtype)
    for consumer in pair.consumers:
        parameter = own[consumer.name]
        factor = _rows(scale, parameter) if consumer.depthwise else _columns(scale, consumer, parameter)
        parameter.data = (parameter.double() * factor).to(parameter.dtype)


def _rows(scale: Tensor, parameter: Tensor) -> Tensor:
    return scale.double().reshape(-1, *[1] * (parameter.dim() - 1))


def _columns(scale: Tensor, consumer: ChannelConsumer, parameter: Tensor) -> Tensor:
    return scale.double().repeat_interleave(consumer.repeat).reshape(1, -1, *[1] * (parameter.dim() - 2))


def _graph_of(model: nn.Module, inputs: object) -> tuple[Graph | None, Mapping[str, str]]:
    args: tuple[Any, ...] = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, Mapping) else (inputs,)
    kwargs = dict(inputs) if isinstance(inputs, Mapping) else {}
    try:
        with preserved(model), _quiet():
            program = torch.export.export(model, args, kwargs, strict=False)
    except Exception:  # a forward may raise anything here; the model then has no pairs that we know of
        return None, {}
    return program.graph, program.graph_signature.inputs_to_parameters


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the exporter itself
        yield


@dataclass(frozen=True, slots=True)
class _ChannelAxis:
    """Axis of a tensor along which the channels lie, and the number of adjacent entries for each channel."""

    axis: int
    repeat: int = 1


_KEEP = {
    "relu", "relu_", "leaky_relu", "dropout", "dropout_", "clone", "contiguous", "alias", "max_pool2d", "max_pool1d",
    "avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "detach", "detach_", "to", "_to_copy",
}  # fmt: skip
"""Operations of one tensor that keep a channel's positive factor and the axis's place."""


class _Finder:
    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self._names = names
        self._model = dict(model.named_parameters(remove_duplicate=False))
        keys = [same_tensor(parameter) for parameter in self._model.values()]
        self._shared = {key for key in keys if keys.count(key) > 1}

    def pair_at(self, node: Node) -> EqualizablePair | None:
        """Pair whose channels this node's output holds; None if there is none."""
        produced = self._producers(node)
        if produced is None:
            return None
        names, axis, channels, is_norm = produced
        consumers = self._consumers(node, _ChannelAxis(axis))
        if not consumers or len({consumer.name for consumer in consumers} | set(names)) < len(consumers) + len(names):
            return None
        return EqualizablePair(producers=names, is_norm=is_norm, consumers=tuple(consumers), channels=channels)

    def _producers(self, node: Node) -> tuple[tuple[str, ...], int, int, bool] | None:
        """(parameters, axis, channels, whether a norm) that make the node's output."""
        op = _op(node)
        if op in ("conv1d", "conv2d", "linear"):
            found, axis = self._parameters(node, 1, 2), (_rank(node) - 1 if op == "linear" else 1)
        elif op == "batch_norm":
            found, axis = self._parameters(node, 1, 2), 1
        elif op == "layer_norm" and len(node.args[1]) == 1:  # type: ignore[arg-type]
            found, axis = self._parameters(node, 2, 3), _rank(node) - 1
        elif op == "rms_norm" and len(node.args[1]) == 1:  # type: ignore[arg-type]
            found, axis = self._parameters(node, 2, 9), _rank(node) - 1
        elif op == "mul":  # by a vector that is a parameter, as norms written by hand end
            at = next((i for i in (0, 1) if self._is_vector(node.args[i], _size(node, -1))), None)
            found = None if at is None else self._parameters(node, at, 9)
            axis = _rank(node) - 1
        else:
            return None
        if found is None:
            return None
        return found, axis, self._model[found[0]].shape[0], op not in ("conv1d", "conv2d", "linear")

    def _parameters(self, node: Node, weight: int, bias: int) -> tuple[str, ...] | None:
        """Names of weight and bias (or of the weight alone); None unless each is a parameter that only this operation
        uses.
        """
        given = [node.args[i] for i in (weight, bias) if len(node.args) > i and node.args[i] is not None]
        if len(node.args) <= weight or node.args[weight] is None:
            return None
        names = [self._parameter(arg) for arg in given]
        return None if None in names else tuple(name for name in names if name is not None)

    def _parameter(self, arg: Any) -> str | None:
        name = self._names.get(getattr(arg, "name", ""))
        if name is None or len(arg.users) != 1 or name not in self._model:
            return None
        parameter = self._model[name]
        return None if same_tensor(parameter) in self._shared or not parameter.is_floating_point() else name

    def _is_vector(self, arg: Any, size: int) -> bool:
        name = self._parameter(arg)
        return name is not None and tuple(self._model[name].shape) == (size,)

    def _consumers(self, node: Node, at: _ChannelAxis) -> list[ChannelConsumer] | None:
        """Weights that read the channels; None where a consumer of the tensor would see that it was scaled."""
        found: list[ChannelConsumer] = []
        for user in node.users:
            consumer = self._consumer(user, node, at)
            if consumer is not None:
                found.append(consumer)
                continue
            after = _passed(user, node, at)
            more = None if after is None else self._consumers(user, after)
            if more is None:
                return None
            found.extend(more)
        return found

    def _consumer(self, user: Node, node: Node, at: _ChannelAxis) -> ChannelConsumer | None:
        op = _op(user)
        if op not in ("conv1d", "conv2d", "linear") or user.args[0] is not node or list(user.args).count(node) != 1:
            return None
        if at.axis != (_rank(node) - 1 if op == "linear" else 1):
            return None
        name = self._parameter(user.args[1])
        if name is None:
            return None
        groups = user.args[6] if op != "linear" and len(user.args) > 6 else 1
        if groups == 1:
            return ChannelConsumer(name=name, repeat=at.repeat)
        depthwise = at.repeat == 1 and groups == self._model[name].shape[0] == _size(node, 1)
        return ChannelConsumer(name=name, depthwise=True) if depthwise else None


def _passed(user: Node, node: Node, at: _ChannelAxis) -> _ChannelAxis | None:
    """Place of the channels in the output of an operation that keeps their factors; None if it does not keep them."""
    op = _op(user)
    if op in _KEEP and user.args and user.args[0] is node:
        return at
    if op == "mul":
        others = [arg for arg in user.args if arg is not node]
        same = _rank(user) == _rank(node) and _size(user, at.axis) == _size(node, at.axis)
        return at if len(others) == 1 and same else None
    if op == "mean" and len(user.args) > 1 and user.args[0] is node:
        given: Any = user.args[1]
        axes = [int(axis) % _rank(node) for axis in given]
        kept = len(user.args) > 2 and bool(user.args[2])
        if at.axis in axes:
            return None
        return at if kept else replace(at, axis=at.axis - sum(axis < at.axis for axis in axes))
    if op == "pad" and user.args[0] is node:
        pads: Any = user.args[1]
        constant = len(user.args) < 3 or user.args[2] == "constant"
        value = user.args[3] if len(user.args) > 3 else None
        return at if constant and not value and len(pads) // 2 < _rank(node) - at.axis else None
    if op in ("flatten", "view", "reshape") and user.args[0] is node and at.axis == 1:
        before, after = _shape(node), _shape(user)
        if len(after) == 2 and after[0] == before[0]:
            return _ChannelAxis(1, at.repeat * int(torch.tensor(before[2:]).prod()) if len(before) > 2 else at.repeat)
        return None
    return None


def _op(node: Node) -> str:
    """Name of an ATen operation ("conv2d"); "" for any other node."""
    if node.op != "call_function" or node.target is operator.getitem:
        return ""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet).removeprefix("aten.")


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape)


def _rank(node: Node) -> int:
    return len(_shape(node))


def _size(node: Node, axis: int) -> int:
    return _shape(node)[axis]
