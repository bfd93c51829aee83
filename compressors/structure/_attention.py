"""Attention heads as coupled sets: the projections around each softmax, found without their names.

In grouped-query attention a unit is one key/value head with all of its query heads. In multi-query attention all query
heads share one key/value head, and a unit is one query head. Where the key/value heads of grouped-query attention have
to stay, a unit is one query head of each group. Where shapes do not determine the layout (packed projections, tiled
query heads, numbers that the module stores), alternatives are proposed in turn; `confirm` keeps the first that holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..anatomy import Inputs, module_at
from ..values import StructuralName
from ._narrow_attention import can_narrow
from ._sets import Attribute, CoupledSet, Member
from ._watch import Attended, Ran, watch

_ALL_HEADS = ("all_head_size", "inner_dim", "attn_dim", "total_head_dim")
_GROUP_SIZES = ("key_value_groups", "kv_groups", "n_rep", "queries_per")
_REPEATS = ("groups", "n_groups", "num_groups", "repeat", "repeats", "rep", "group_size")
_WIDTHS = ("embed_dim", "hidden_size", "d_model", "dim", "n_embd")


@dataclass(slots=True)
class Attentions:
    """Proposed sets of heads, and attentions left alone.

    proposals  sets, each as a list of alternatives
    left       name -> reason why its heads cannot be determined
    modules    fqns of the projections, whose inner channels the graph must not touch
    """

    proposals: list[list[CoupledSet]]
    left: dict[str, str]
    modules: set[str]


def attentions(model: nn.Module, inputs: Inputs) -> Attentions:
    """Propose a set for every softmax over four axes (N, heads, L, S), and for every `nn.MultiheadAttention`."""
    found = Attentions([], {}, set())
    for fqn, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            if (reason := can_narrow(module)) is not None:
                found.left[str(StructuralName("heads", fqn))] = reason
            elif module.num_heads > 1:
                found.proposals.append([_packed_module(fqn, module)])
    events = watch(model, inputs)
    taken: set[str] = set()
    for i, event in enumerate(events):
        if not isinstance(event, Attended):
            continue
        before = [e for e in _until_attended(reversed(events[:i])) if e.fqn not in taken][:3]
        after = list(_until_attended(iter(events[i + 1 :])))
        around = _around(event, before[::-1], after)
        if isinstance(around, str):
            where = before[0].fqn.rpartition(".")[0] if before else f"attention {i}"
            found.left[str(StructuralName("heads", where))] = around
            continue
        taken.update(around.fqns)
        found.modules.update(around.makers)
        if around.n_heads > 1:
            found.proposals.append(list(_alternatives(model, around)))
    return found


def families(model: nn.Module, refused: Sequence[CoupledSet]) -> list[CoupledSet]:
    """Merge the sets of a stack into one where single attentions cannot lose heads because they share something.

    T5's layers, for example, share a bias for each head, made by an embedding in the first of them. A stack is the sets
    whose names differ in numbers only. A single set is no stack.
    """
    stacks: dict[str, list[CoupledSet]] = {}
    for coupled in refused:
        stacks.setdefault(re.sub(r"\d+", "*", coupled.name), []).append(coupled)
    found = []
    for name, sets in stacks.items():
        first = sets[0]
        if len({(s.n_units, s.unit_width) for s in sets}) > 1:
            continue
        biases = [
            Member(tensor=f"{fqn}.weight", axis=1, role="keeps")
            for home in (s.fqn for s in sets)
            for fqn, module in model.named_modules()
            if fqn.startswith(f"{home}.") and isinstance(module, nn.Embedding) and module.embedding_dim == first.n_units
        ]
        if len(sets) > 1 or biases:
            found.append(
                CoupledSet(
                    name=name, kind="heads", n_units=first.n_units, unit_width=first.unit_width,
                    members=tuple(m for s in sets for m in s.members) + tuple(biases),
                    attributes=tuple(a for s in sets for a in s.attributes),
                )
            )  # fmt: skip
    return found


def _until_attended(events: Iterator[Ran | Attended]) -> Iterator[Ran]:
    for event in events:
        if isinstance(event, Attended):
            return
        yield event


@dataclass(frozen=True, slots=True)
class _Around:
    """Projections of one attention. `keys` is empty where one layer makes queries, keys and values."""

    query: str
    keys: tuple[str, ...]
    out: str
    n_heads: int
    n_units: int
    head_dim: int

    @property
    def makers(self) -> tuple[str, ...]:
        return (self.query, *self.keys)

    @property
    def fqns(self) -> tuple[str, ...]:
        return (*self.makers, self.out)


def _around(event: Attended, before: Sequence[Ran], after: Sequence[Ran]) -> _Around | str:
    """Projections of an attention, from up to three linear layers that ran before it and those that ran after."""
    out = next((ran for ran in after if ran.n_in % event.n_heads == 0), None)
    if not before or out is None:
        return "no linear layers were seen around its softmax"
    width = out.n_in if event.head_dim is None else event.n_heads * event.head_dim
    if out.n_in != width:
        return f"{out.fqn} reads {out.n_in} channels, and the heads have {width}"
    head_dim = width // event.n_heads
    if len(before) == 3:
        query = next((ran for ran in before if ran.n_out == width), None)
        keys = [ran for ran in before if ran is not query]
        if query is not None and keys[0].n_out == keys[1].n_out and keys[0].n_out % head_dim == 0:
            n_units = keys[0].n_out // head_dim
            if event.n_heads % n_units == 0 and keys[0].fqn != keys[1].fqn:
                names = (keys[0].fqn, keys[1].fqn)
                return _Around(query.fqn, names, out.fqn, event.n_heads, n_units, head_dim)
    last = before[-1]
    pairs, rest = divmod(last.n_out - width, 2 * head_dim)
    if rest == 0 and pairs > 0 and event.n_heads % pairs == 0:
        return _Around(last.fqn, (), out.fqn, event.n_heads, pairs, head_dim)
    return "the linear layers before its softmax do not fit its heads"


def _alternatives(model: nn.Module, around: _Around) -> Iterator[CoupledSet]:
    """Sets of key/value heads with their query heads, then sets of query heads alone."""
    if around.n_units > 1:
        yield from _with_keys(model, around)
    if around.n_heads > around.n_units:
        yield from _queries_alone(model, around)


def _with_keys(model: nn.Module, around: _Around) -> Iterator[CoupledSet]:
    repeat, d, n = around.n_heads // around.n_units, around.head_dim, around.n_units
    layouts: list[list[tuple[str, tuple[int, ...], int]]]
    queries: list[tuple[tuple[int, ...], int]] = [((0,), repeat * d)]  # the query heads of a unit lie together …
    if repeat > 1:
        queries.append((tuple(i * n * d for i in range(repeat)), d))  # … or one in each of `repeat` rounds
    if around.keys:
        layouts = [
            [(around.query, offsets, width), *((key, (0,), d) for key in around.keys)] for offsets, width in queries
        ]
    else:
        start = around.n_heads * d
        layouts = [
            [(around.query, offsets, width), (around.query, (start, start + n * d), d)] for offsets, width in queries
        ]
        layouts.append([(around.query, (0,), (repeat + 2) * d)])  # each unit's queries, key and value side by side
    for layout in layouts:
        _, offsets, width = layout[0] if around.keys or len(layout) > 1 else ("", (0,), repeat * d)
        for attributes in _attributes(model, around):
            yield _set_of_heads(model, around, layout, (offsets, width), attributes, n, repeat * d)


def _queries_alone(model: nn.Module, around: _Around) -> Iterator[CoupledSet]:
    """Unit: one query head of each key/value head, whose keys and values stay. The groups keep the same size."""
    repeat, d, n = around.n_heads // around.n_units, around.head_dim, around.n_units
    places: list[tuple[tuple[int, ...], int]] = [
        (tuple(i * repeat * d for i in range(n)), d)
    ]  # a group lies together …
    if n > 1:
        places.append(((0,), n * d))  # … or the groups take turns
    for offsets, width in places:
        for attributes in _query_attributes(model, around):
            layout = [(around.query, offsets, width)]
            yield _set_of_heads(model, around, layout, (offsets, width), attributes, repeat, n * d)


def _set_of_heads(
    model: nn.Module, around: _Around, layout: list[tuple[str, tuple[int, ...], int]],
    reads: tuple[tuple[int, ...], int], attributes: list[Attribute], n_units: int, unit_width: int,
) -> CoupledSet:  # fmt: skip
    """Make a set of the rows of the projections in `layout`, (fqn, offsets, width), and the columns of the last one."""
    members = [
        Member(tensor=f"{fqn}.{leaf}", axis=0, offsets=offsets, width=width)
        for fqn, offsets, width in layout
        for leaf in ("weight", "bias")
        if getattr(module_at(model, fqn), leaf, None) is not None
    ]
    members.append(Member(tensor=f"{around.out}.weight", axis=1, offsets=reads[0], width=reads[1], role="reads"))
    return CoupledSet(
        name=str(StructuralName("heads", _home(around))), kind="heads", n_units=n_units, unit_width=unit_width,
        members=tuple(members),
        attributes=tuple(attributes),
    )  # fmt: skip


def _home(around: _Around) -> str:
    return around.query.rpartition(".")[0] or around.query


def _attributes(model: nn.Module, around: _Around) -> Iterator[list[Attribute]]:
    """Numbers of heads that the surrounding modules store; then also the widths that may depend on them."""
    repeat = around.n_heads // around.n_units
    sure: dict[tuple[str, str], Attribute] = {}
    maybe: dict[tuple[str, str], Attribute] = {}
    for home, name, value in _numbers(model, around):
        keys_only = _counts_keys(name)
        if _counts_heads(name) and value == around.n_units and (keys_only or repeat == 1):
            sure[home, name] = Attribute(module=home, name=name, per_unit=1)
        elif _counts_heads(name) and value == around.n_heads and not keys_only:
            sure[home, name] = Attribute(module=home, name=name, per_unit=repeat)
        elif value == around.n_heads * around.head_dim:
            per_unit = repeat * around.head_dim
            if name in _ALL_HEADS:
                sure[home, name] = Attribute(module=home, name=name, per_unit=per_unit)
            elif name in _WIDTHS:
                maybe[home, name] = Attribute(module=home, name=name, per_unit=per_unit)
    yield list(sure.values())
    if maybe:
        yield [*sure.values(), *maybe.values()]


def _query_attributes(model: nn.Module, around: _Around) -> Iterator[list[Attribute]]:
    """Change attributes like `_attributes`: key/value heads stay, and the number of query heads to each changes."""
    n, repeat = around.n_units, around.n_heads // around.n_units
    sure: list[Attribute] = []
    maybe: list[Attribute] = []
    for home, name, value in _numbers(model, around):
        if _counts_heads(name) and value == around.n_heads and not _counts_keys(name):
            sure.append(Attribute(module=home, name=name, per_unit=n))
        elif value == repeat and (any(word in name for word in _GROUP_SIZES) or name in _REPEATS):
            sure.append(Attribute(module=home, name=name, per_unit=1))
        elif value == around.n_heads * around.head_dim and name in (*_ALL_HEADS, *_WIDTHS):
            attribute = Attribute(module=home, name=name, per_unit=n * around.head_dim)
            (sure if name in _ALL_HEADS else maybe).append(attribute)
    yield sure
    if maybe:
        yield [*sure, *maybe]


def _numbers(model: nn.Module, around: _Around) -> Iterator[tuple[str, str, int]]:
    """(fqn, name, value) of each whole number that a module around the projections stores."""
    for home in dict.fromkeys(fqn.rpartition(".")[0] for fqn in around.fqns):
        for name, value in vars(module_at(model, home)).items():
            if isinstance(value, int) and not isinstance(value, bool):
                yield home, name, value


def _counts_heads(name: str) -> bool:
    named = "head" in name and not any(word in name for word in ("dim", "size", "group"))
    return named or name in ("h", "nh", "n_h", "kv", "n_kv", "num_kv", "nkv")


def _counts_keys(name: str) -> bool:
    return any(word in name for word in ("kv", "key_value", "k_heads"))


def _packed_module(fqn: str, module: nn.MultiheadAttention) -> CoupledSet:
    d, e = int(module.head_dim), int(module.embed_dim)
    prefix = f"{fqn}." if fqn else ""
    members = [Member(tensor=f"{prefix}in_proj_weight", axis=0, offsets=(0, e, 2 * e), width=d)]
    if module.in_proj_bias is not None:
        members.append(Member(tensor=f"{prefix}in_proj_bias", axis=0, offsets=(0, e, 2 * e), width=d))
    members.append(Member(tensor=f"{prefix}out_proj.weight", axis=1, width=d, role="reads"))
    return CoupledSet(
        name=str(StructuralName("heads", fqn)), kind="heads", n_units=module.num_heads, unit_width=d,
        members=tuple(members), attention=(fqn,),
    )  # fmt: skip
