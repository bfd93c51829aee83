"""Search for everything in a model that can be removed in units, with a trial of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from ...errors import InputError
from ..anatomy import Inputs, check_runs
from ._attention import attentions, families
from ._expert_sets import find_expert_sets
from ._graph import propose
from ._recurrent import recurrent_sets
from ._sets import KINDS, CoupledSet
from ._trial import Trier, confirm


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Removable parts of a model.

    sets  removable sets, in the order in which the model makes them
    left  name of a set, or of the layer that makes its channels -> reason why it is left alone, as a clause
    """

    sets: tuple[CoupledSet, ...]
    left: dict[str, str]

    def __getitem__(self, name: str) -> CoupledSet:
        for coupled in self.sets:
            if coupled.name == name:
                return coupled
        raise KeyError(name)

    def of_kind(self, *kinds: str) -> tuple[CoupledSet, ...]:
        return tuple(coupled for coupled in self.sets if coupled.kind in kinds)


def find(model: nn.Module, inputs: Inputs, *, kinds: Iterable[str] = KINDS, leave: Iterable[str] = ()) -> Structure:
    """Find the coupled sets of `model`. Each is tried: cut to half, the masked and the removed model must agree on
    `inputs`.

    The trial uses double precision, with weights moved a little so that nothing agrees by chance. A coupling that
    cannot be traced, or does not hold, is left alone and named in `left`; the others are kept.

    inputs  a few samples, as for `forward`
    kinds   kinds of `KINDS` to look for; "heads", "units" and "experts" need nothing, the others torch-pruning
    leave   globs of layers whose own channels, heads or neurons must stay

    Raises `InputError` where the model does not run on `inputs` (naming the arguments that are missing), or cannot be
    traced at all; `MissingExtra` without torch-pruning.
    """
    wanted, globs = tuple(kinds), tuple(leave)
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise InputError(f"there is no kind of structure {unknown[0]!r}; known are {', '.join(KINDS)}")
    check_runs(model, inputs)
    attention = attentions(model, inputs)
    left = dict(attention.left) if "heads" in wanted else {}
    recurrent, silent = recurrent_sets(model, inputs)
    proposals = list(attention.proposals) + [[coupled] for coupled in recurrent]
    left |= silent if "units" in wanted else {}
    if set(wanted) - {"heads", "units", "experts"}:
        opaque = attention.modules | {fqn for fqn, module in model.named_modules() if isinstance(module, nn.RNNBase)}
        graph = propose(model, inputs, opaque)
        proposals += [[coupled] for coupled in graph.sets]
        left |= graph.left
    chosen = []
    for alternatives in proposals:
        if alternatives[0].kind not in wanted:
            continue
        glob = next((g for g in globs if any(_makes(alternatives[0], g))), None)
        if glob is not None:
            left[alternatives[0].name] = f"{glob!r} is to be left alone"
        else:
            chosen.append(alternatives)
    trier = Trier(model, inputs)
    sets, refused = confirm(trier, chosen)
    again = families(model, [a[0] for a in chosen if a[0].kind == "heads" and a[0].name in refused])
    if again:
        held = [coupled for coupled in again if trier.refuse([*sets, coupled]) is None]
        inside = {m.tensor for coupled in held for m in coupled.members}
        refused = {name: why for name, why in refused.items() if not _within(name, chosen, inside)}
        sets += held
    if "experts" in wanted:
        experts, why_not = find_expert_sets(model, inputs)
        alone = [coupled for coupled in experts if not any(_makes_any(coupled, glob) for glob in globs)]
        if reason := trier.refuse([*sets, *alone]) if sets and alone else None:
            why_not |= {coupled.name: f"it cannot be cut along with the others: {reason}" for coupled in alone}
            alone = []
        sets += alone
        left |= why_not
    order = {name: i for i, (name, _) in enumerate(model.named_parameters(remove_duplicate=False))}
    sets.sort(key=lambda coupled: min(order.get(m.tensor, 0) for m in coupled.members if m.role != "reads"))
    return Structure(sets=tuple(sets), left=left | refused)


def _within(name: str, chosen: list[list[CoupledSet]], tensors: set[str]) -> bool:
    return any(a[0].name == name and all(m.tensor in tensors for m in a[0].members) for a in chosen)


def _makes(coupled: CoupledSet, glob: str) -> Iterable[bool]:
    return (fnmatchcase(m.tensor.rpartition(".")[0], glob) for m in coupled.members if m.role == "makes")


def _makes_any(coupled: CoupledSet, glob: str) -> bool:
    return any(_makes(coupled, glob))
