"""Trace of one forward pass, call by call: begin and end of each module, and whether its output can be replayed.

Nothing is traced symbolically: the modules' `forward` is wrapped for one pass, so any Python in between is allowed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...compressors import forward, weight_at
from ..values import Inputs, Split, device_of, moved, preserved

Forward = Callable[..., Any]


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module. Ticks count every begin and end in the pass.

    n_bytes           of what it gave
    is_plain          tensors, numbers, and tuples, lists and dicts of these: what can be kept and given again
    changes_inputs    it wrote into a tensor that it was given; such a call must really be run
    is_changed_later  somebody wrote into what it gave; such an output must be kept and given as a copy
    """

    module: nn.Module
    start: int
    end: int = -1
    n_bytes: int = 0
    is_plain: bool = False
    changes_inputs: bool = False
    is_changed_later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """Calls of one pass in the order of their begins. `why_not` is the reason why this model's calls cannot be
    replayed.
    """

    calls: tuple[Call, ...]
    n_samples: int = 1
    why_not: str | None = None

    @classmethod
    def trace(cls, model: nn.Module, inputs: Inputs) -> Timeline:
        """Run `model` once on `inputs` and record its calls. Errors of the model itself are passed on."""
        n_samples = len(Split("trace", inputs))
        if why_not := _opaque(model):
            return cls(calls=(), why_not=why_not)
        calls: list[Call] = []
        given: list[tuple[Call, list[tuple[Tensor, int]]]] = []
        clock = iter(range(1 << 60))

        def watch(module: nn.Module, original: Forward) -> Forward:
            def watched(*args: Any, **kwargs: Any) -> Any:
                call = Call(module, next(clock))
                calls.append(call)
                before = _versions([*tensors_of(args, deep=True), *tensors_of(kwargs, deep=True)])
                output = original(*args, **kwargs)
                call.end = next(clock)
                call.changes_inputs = is_changed(before)
                call.is_plain = is_plain(output)
                outputs = tensors_of(output) if call.is_plain else []
                call.n_bytes = sum(tensor.nbytes for tensor in outputs)
                given.append((call, _versions(outputs)))
                return output

            return watched

        with wrapped(model, watch):
            try:
                why_not = _remembers(model, inputs)
            except _NoVersionError as error:
                why_not = str(error)
        if why_not:
            return cls(calls=(), why_not=why_not)
        for call, versions in given:
            call.is_changed_later = is_changed(versions)
        return cls(calls=tuple(calls), n_samples=n_samples)

    def inside(self, index: int) -> Iterator[nn.Module]:
        """Modules of the calls inside of this one, once for each call."""
        end = self.calls[index].end
        yield from (call.module for call in takewhile(lambda call: call.start < end, self.calls[index + 1 :]))

    def begin(self, weights: Iterable[nn.Parameter]) -> int:
        """Tick at which a module that holds one of these weights first begins; 0 where neither it nor one around it was
        seen.
        """
        return min((self._begin_of_one(weight) for weight in weights), default=0)

    def _begin_of_one(self, weight: nn.Parameter) -> int:
        """Begin of one weight's module.

        Where the module is never called (the `out_proj` of an attention, or any part of a fused encoder layer), the
        innermost call around it counts.
        """
        held = {id(weight)}
        direct = [call.start for call in self.calls if _holds(call.module, held)]
        if direct:
            return min(direct)
        around = [call for call in self.calls if holds_below(call.module, held)]
        sizes = [sum(1 for _ in call.module.modules()) for call in around]
        innermost = [call.start for call, size in zip(around, sizes, strict=True) if size == min(sizes)]
        return min(innermost, default=0)

    def begin_of(self, modules: Iterable[nn.Module]) -> int:
        """Tick at which the first of these modules begins; after the end of the pass where none does."""
        wanted = {id(module) for module in modules}
        end = max((call.end for call in self.calls), default=0) + 1
        return min((call.start for call in self.calls if id(call.module) in wanted), default=end)


def _remembers(model: nn.Module, inputs: Inputs) -> str | None:
    """State of the model that the pass changed, as a replay would not change it; run the model to find out."""
    with preserved(model):
        random_before, kept_before = _random_state(), _kept(model)
        forward(model, moved_to(inputs, model))
        if random_before != _random_state():
            return "the model draws random numbers, which would come out otherwise in a replay"
        for name, module in model.named_modules():
            if not _is_kept(kept_before[id(module)], module):
                return f"{name or 'the model'} keeps something of a pass in itself, which a replay would not renew"
    return None


def moved_to(inputs: Inputs, model: nn.Module) -> Inputs:
    """Inputs on the device of the model's parameters."""
    return moved(inputs, device_of(model))


def _kept(model: nn.Module) -> dict[int, list[tuple[str, Any, object]]]:
    """State of each module: its attributes, and their content where it can be compared."""
    return {id(module): [(*item, _content(item[1])) for item in _items(module)] for module in model.modules()}


def _items(module: nn.Module) -> list[tuple[str, Any]]:
    own = [(name, value) for name, value in vars(module).items() if name not in ("forward", "training", "_buffers")]
    return [*own, *module._buffers.items()]


def _content(value: object) -> object:
    if isinstance(value, Tensor):
        return None if value.is_inference() else value._version
    if isinstance(value, (list, tuple, set, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return tuple(id(part) for part in parts)
    return None


def _is_kept(before: list[tuple[str, Any, object]], module: nn.Module) -> bool:
    now = _items(module)
    return len(now) == len(before) and all(
        name == other and value is same and _content(same) == content
        for (name, value, content), (other, same) in zip(before, now, strict=True)
    )


def _random_state() -> tuple[object, ...]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (a model may draw from it)
    return (*(s.numpy().tobytes() for s in states), random.getstate(), name, np.asarray(keys).tobytes(), *rest)


class _NoVersionError(Exception):
    """Tensor of inference mode, which has no version to show whether it was written to."""


def _versions(tensors: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
    if any(tensor.is_inference() for tensor in tensors):
        raise _NoVersionError("the model works on inference tensors, which do not tell whether they were written to")
    return [(tensor, tensor._version) for tensor in tensors]


def is_changed(versions: Iterable[tuple[Tensor, int]]) -> bool:
    """Tell whether one of these tensors was written to since its version was noted."""
    return any(tensor._version != version for tensor, version in versions)


def _opaque(model: nn.Module) -> str | None:
    """Reason against modules whose calls bypass Python's `forward`: compiled and scripted ones."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return f"{name or 'the model'} is a scripted module"
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            return f"{name or 'the model'} is compiled"
    return None


@contextmanager
def wrapped(model: nn.Module, wrap: Callable[[nn.Module, Forward], Forward | None]) -> Iterator[None]:
    """Replace the `forward` of each module below `model` (not its own) by `wrap(module, forward)` inside the block.

    A result of None leaves a module's `forward` alone.
    """
    changed: list[tuple[nn.Module, bool, Any]] = []
    try:
        for module in list(model.modules())[1:]:
            replacement = wrap(module, module.forward)
            if replacement is not None:
                changed.append((module, "forward" in vars(module), vars(module).get("forward")))
                vars(module)["forward"] = replacement
        yield
    finally:
        for module, had, forward in reversed(changed):
            if had:
                vars(module)["forward"] = forward
            else:
                vars(module).pop("forward", None)


_VALUES = (type(None), bool, int, float, str)


def is_plain(output: object) -> bool:
    """Tell whether a value consists of plain tensors, values, tuples, lists and dicts only."""
    if type(output) in (tuple, list):
        return all(is_plain(part) for part in output)  # type: ignore[attr-defined]
    if type(output) is dict:
        return all(is_plain(part) for part in output.values())
    return type(output) is Tensor or type(output) in _VALUES


def tensors_of(value: object, *, deep: bool = False) -> list[Tensor]:
    """Yield every tensor in nested tuples, lists and dicts; `deep` also searches their subclasses."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)) if deep else type(value) in (tuple, list):
        return [tensor for part in value for tensor in tensors_of(part, deep=deep)]  # type: ignore[attr-defined]
    if isinstance(value, Mapping) if deep else type(value) is dict:
        return [tensor for part in value.values() for tensor in tensors_of(part, deep=deep)]  # type: ignore[attr-defined]
    return []


def rebuilt(value: Any, give: Callable[[Tensor], Tensor]) -> Any:
    """Copy nested containers, with each tensor replaced by `give(tensor)`."""
    if isinstance(value, Tensor):
        return give(value)
    if type(value) in (tuple, list):
        return type(value)(rebuilt(part, give) for part in value)
    if type(value) is dict:
        return {key: rebuilt(part, give) for key, part in value.items()}
    return value


def _holds(module: nn.Module, held: set[int]) -> bool:
    return any(id(parameter) in held for parameter in module._parameters.values())


def holds_below(module: nn.Module, held: set[int]) -> bool:
    """Tell whether the module, or any below it, holds one of the parameters with these ids."""
    return any(id(parameter) in held for parameter in module.parameters())


def weights_of(model: nn.Module, fqns: Iterable[str]) -> list[nn.Parameter]:
    """Weight parameter of each layer."""
    return [weight_at(model, fqn) for fqn in fqns]
