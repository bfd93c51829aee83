"""Prefix cache: when one layer changes, the calls before it need not run again.

What it does   remembers what each module gave in one pass, and gives it again where the change cannot have come yet
Paper          none; LEMS and AMQ screen single layers too, with whole passes
We differ      no graph is traced: a call that ended before the changed layer first began cannot have seen the change,
               on branches neither, so the largest such calls are answered from memory
Cost           one pass to record, and the memory of what it keeps (`PrefixCache.n_bytes`)
Does not help  where one module does everything (a scripted model), and for a layer near the input
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...compressors import Anatomy
from ...compressors.anatomy import Outputs, runs_in, skip_calls
from ...errors import ParedownError
from ..values import Inputs, Split, run_split
from ._calls import Call, Forward, Timeline, holds_below, is_changed, is_plain, rebuilt, tensors_of, weights_of, wrapped


class PrefixMismatchError(ParedownError, RuntimeError):
    """A pass differed from the recorded one; its outputs must not be used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """Part of a pass that need not run again when some layers change.

    answered  indices of the calls that are answered from memory: those that ended before the layers first began, none
              inside another
    entries   module -> for each of its calls that still come, in order, the call that answers it, or None
    """

    answered: tuple[int, ...]
    entries: dict[nn.Module, tuple[int | None, ...]]

    @classmethod
    def of(cls, timeline: Timeline, model: nn.Module, fqns: Iterable[str], around: Iterable[str] = ()) -> Prefix:
        """Prefix of some layers. `around`: modules whose inputs change with the layers', see
        `LayerInfo.shared_input`.
        """
        weights = weights_of(model, fqns)
        begin = min(timeline.begin(weights), timeline.begin_of(model.get_submodule(name) for name in around))
        held = {id(weight) for weight in weights}
        answered: list[int] = []
        entries: dict[nn.Module, list[int | None]] = defaultdict(list)
        inside_until = -1
        for index, call in enumerate(timeline.calls):
            if call.start >= begin:
                break
            if call.start < inside_until:
                continue
            if call.end < begin and call.is_plain and not call.changes_inputs and not holds_below(call.module, held):
                answered.append(index)
                inside_until = call.end
                entries[call.module].append(index)
            else:
                entries[call.module].append(None)
        used = {module: tuple(found) for module, found in entries.items() if any(i is not None for i in found)}
        return cls(answered=tuple(answered), entries=used)


@dataclass(slots=True, eq=False)
class PrefixCache:
    """Outputs of the calls of one pass over one batch.

    Made by `record`. While it is used the model must be as it was when it was recorded, but for the layers whose fqns
    are given to `before`.

    around  fqn -> the module whose input changes with that layer's (`LayerInfo.shared_input`), where such a change will
            be made
    """

    model: nn.Module
    timeline: Timeline
    anatomy: Anatomy
    outputs: Outputs
    around: Mapping[str, str] = field(default_factory=dict)
    _kept: dict[int, Any] = field(default_factory=dict)
    _prefixes: dict[tuple[str, ...], Prefix] = field(default_factory=dict)

    @classmethod
    def record(
        cls,
        model: nn.Module,
        inputs: Inputs,
        anatomy: Anatomy,
        *,
        timeline: Timeline | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        around: Mapping[str, str] | None = None,
    ) -> PrefixCache:
        """Record one pass over a batch.

        around  see the class
        groups  layers that will change together (default: the anatomy's groups). Outputs that none of them needs are
                not kept

        Raises `PrefixMismatchError` where the model cannot be replayed, with the reason; and whatever the model raises.
        """
        timeline = timeline or Timeline.trace(model, inputs)
        if timeline.why_not:
            raise PrefixMismatchError(f"passes of this model are not replayed: {timeline.why_not}")
        cache = cls(model=model, timeline=timeline, anatomy=anatomy, outputs=torch.empty(0), around=around or {})
        wanted = {i for fqns in (anatomy.groups if groups is None else groups) for i in cache.prefix(fqns).answered}
        cache._record(inputs, wanted)
        return cache

    def prefix(self, fqns: Sequence[str]) -> Prefix:
        key = tuple(fqns)
        if key not in self._prefixes:
            self._prefixes[key] = Prefix.of(self.timeline, self.model, key, modules_around(self.around, key))
        return self._prefixes[key]

    @property
    def n_bytes(self) -> int:
        """Bytes of the kept outputs; memory that two outputs share counts once."""
        tensors = [tensor for output in self._kept.values() for tensor in tensors_of(output)]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    def share(self, fqns: Sequence[str]) -> float:
        """Share, in (0, 1], of a pass's multiply-accumulates that run again when these layers change."""
        return recomputed_share(self.timeline, self.anatomy, self.model, self.prefix(fqns))

    @contextmanager
    def before(self, fqns: Sequence[str]) -> Iterator[None]:
        """Make one pass of the model over the same batch reuse the calls that ended before these layers began.

        Raises `PrefixMismatchError` at the end if the pass did not go as the recorded one, or wrote into what is kept.
        """
        players = {module: _Player(entries, self) for module, entries in self.prefix(fqns).entries.items()}
        lent: list[tuple[Tensor, int]] = []
        for player in players.values():
            player.lent = lent

        def wrap(module: nn.Module, original: Forward) -> Forward | None:
            player = players.get(module)
            if player is not None:
                player.original = original
            return player

        with wrapped(self.model, wrap):
            yield
        if any(player.at < len(player.entries) for player in players.values()):
            raise PrefixMismatchError("the pass made fewer calls than the recorded one")
        if is_changed(lent):
            self._kept.clear()
            raise PrefixMismatchError("the pass wrote into recorded outputs")

    def _record(self, inputs: Inputs, wanted: set[int]) -> None:
        made: list[nn.Module] = []
        lent: list[tuple[Tensor, int]] = []
        calls = self.timeline.calls

        def watch(module: nn.Module, original: Forward) -> Forward:
            def watched(*args: Any, **kwargs: Any) -> Any:
                index = len(made)
                made.append(module)
                output = original(*args, **kwargs)
                if index in wanted and index < len(calls):
                    self._keep(index, calls[index], output, lent)
                return output

            return watched

        split = Split("batch", inputs)
        with wrapped(self.model, watch):
            self.outputs = run_split(self.model, split, len(split))
        if made != [call.module for call in calls]:
            raise PrefixMismatchError("passes of this model are not replayed: its calls depend on the data")
        if is_changed(lent):
            raise PrefixMismatchError("passes of this model are not replayed: its writes depend on the data")

    def _keep(self, index: int, call: Call, output: Any, lent: list[tuple[Tensor, int]]) -> None:
        if not is_plain(output):
            raise PrefixMismatchError(
                "passes of this model are not replayed: the kind of its outputs depends on the data"
            )
        if call.is_changed_later:
            self._kept[index] = rebuilt(output, torch.clone)
            return
        self._kept[index] = output
        lent += [(tensor, tensor._version) for tensor in tensors_of(output)]

    def given(self, index: int, lent: list[tuple[Tensor, int]]) -> Any:
        """Recorded output of call `index`. Raises `PrefixMismatchError` if it was not kept."""
        if index not in self._kept:
            raise PrefixMismatchError("the output of this call was not kept")
        if self.timeline.calls[index].is_changed_later:
            return rebuilt(self._kept[index], torch.clone)
        lent += [(tensor, tensor._version) for tensor in tensors_of(self._kept[index])]
        return rebuilt(self._kept[index], lambda tensor: tensor)


def modules_around(around: Mapping[str, str], fqns: Iterable[str]) -> list[str]:
    """Modules around these layers, see `PrefixCache.around`."""
    return [around[fqn] for fqn in fqns if around.get(fqn)]


class _Player:
    """Replacement of a module's `forward` in one pass."""

    def __init__(self, entries: tuple[int | None, ...], cache: PrefixCache) -> None:
        self.entries, self.cache = entries, cache
        self.at = 0
        self.lent: list[tuple[Tensor, int]] = []
        self.original: Forward | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        entry = self.entries[self.at] if self.at < len(self.entries) else None
        self.at += 1
        if entry is not None:
            for module in self.cache.timeline.inside(entry):
                skip_calls(module, 1)
            return self.cache.given(entry, self.lent)
        if self.original is None:
            raise PrefixMismatchError("a call came outside of the pass")
        return self.original(*args, **kwargs)


def recomputed_share(timeline: Timeline, anatomy: Anatomy, model: nn.Module, prefix: Prefix) -> float:
    """Share of a pass's multiply-accumulates outside of the answered calls; 1 where the model has none.

    A layer that is called several times is taken to cost the same each time.
    """
    macs: dict[int, float] = defaultdict(float)
    for layer in anatomy.layers:
        macs[id(runs_in(model, layer))] += layer.macs / max(1, layer.n_calls)
    total = spared = 0.0
    answered = iter(prefix.answered)
    current = next(answered, None)
    for call in timeline.calls:
        while current is not None and call.start > timeline.calls[current].end:
            current = next(answered, None)
        cost = macs.get(id(call.module), 0.0)
        total += cost
        if current is not None and call.start >= timeline.calls[current].start:
            spared += cost
    return (total - spared) / total if total > 0 else 1.0


def kept_bytes(timeline: Timeline, prefixes: Iterable[Prefix]) -> int:
    """Estimated bytes that recording for these prefixes keeps of one sample. Memory that outputs share is counted
    twice.
    """
    wanted = {index for prefix in prefixes for index in prefix.answered}
    return -(-sum(timeline.calls[index].n_bytes for index in wanted) // timeline.n_samples)
