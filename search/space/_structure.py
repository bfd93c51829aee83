"""What can be removed whole, as a part of the space: coupled sets and blocks beside the layers.

A group of the space whose name has a colon ("channels:conv1", "block:layers.2") is of a set or a block: its levels are
shares of the units that stay. A trial masks them; an export removes them. What a layer is otherwise to become happens
to what is left of its weight, in a trial too, so both have the very same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...compressors import Anatomy, LayerSpec
from ...errors import ConfigError, SpecError, TaskError
from ..values import block_name, is_structural, structure_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Inputs
    from ...compressors.structure import Block, CoupledSet, Removal
    from ...hardware_profiles import HardwareProfile
    from ..task import SpaceSection, Task
    from ..values import Candidate, Group, SearchSpace

KEYS = {
    "channels": "channels",
    "heads": "heads",
    "neurons": "neurons",
    "width": "hidden",
    "units": "units",
    "experts": "experts",
}
"""Key of [space] -> kind of coupled set."""
_BATCHES = 8
"""Of calibration data, that scores from data look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """sets, blocks  what this task may remove
    rankings  name of a set -> score -> its units, those that matter most first
    left      name -> why it is left alone
    round_to  name of a set -> the channels that stay are a multiple of this
    thresholds  score -> share -> name of a set -> the share of it that stays, where of all sets together that share
                does: one threshold for all, which a point of the search has to beat as well
    """

    sets: tuple[CoupledSet, ...] = ()
    blocks: tuple[Block, ...] = ()
    rankings: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    round_to: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[float, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(coupled.name for coupled in self.sets), *(block_name(block) for block in self.blocks))

    def check(self, assignment: Mapping[str, LayerSpec]) -> None:
        """Raises `ConfigError` for a set or a block that there is not, or that cannot be cut so."""
        known = set(self.names)
        for name, spec in assignment.items():
            if not is_structural(name):
                continue
            if name not in known:
                why = f": {self.left[name]}" if name in self.left else ""
                raise ConfigError(
                    f"the config removes units of {name}, which this task does not know{why}; known are "
                    f"{', '.join(self.names[:6]) or 'none: name shares in [space] channels, heads, neurons, …'}"
                )
            if replace(spec, keep=1.0, keep_method=LayerSpec().keep_method) != LayerSpec():
                raise ConfigError(f"{name} can keep a share of its units and nothing else, got {spec.label()!r}")

    def removal(self, model: nn.Module, assignment: Mapping[str, LayerSpec]) -> Removal | None:
        """What the assignment takes away from this model; None where that is nothing."""
        from ...compressors.structure import removal_of

        chosen = structure_of(assignment)
        if not chosen:
            return None
        self.check(chosen)
        sets = {coupled.name: coupled for coupled in self.sets}
        kept = {name: self.kept(sets[name], spec) for name, spec in chosen.items() if name in sets}
        skipped: dict[str, int] = {}
        for block in self.blocks:
            if block_name(block) in chosen:
                skipped |= block.skipped
        return removal_of(model, self.sets, kept, skipped)

    def kept(self, coupled: CoupledSet, spec: LayerSpec) -> tuple[int, ...]:
        from ...compressors.structure import n_kept

        ranking = self.rankings[coupled.name].get(spec.keep_method)
        if ranking is None:
            raise ConfigError(
                f"{coupled.name} was not ranked by {spec.keep_method!r}; add it to [space] keep_method (there are "
                f"{', '.join(self.rankings[coupled.name])})"
            )
        return ranking[: n_kept(coupled, spec.keep, round_to=self.round_to.get(coupled.name, 1))]


def removes_something(section: SpaceSection) -> bool:
    return bool(_kinds(section)) or section.blocks


def find_structure(
    task: Task, model: nn.Module, batches: Sequence[Inputs], profiles: Sequence[HardwareProfile]
) -> Structured:
    """What [space] asks for. `batches` are of the calibration split, at least one. Channels are rounded to what
    [space] round_to says, else to what the slowest of the devices wants of the layers that a set goes through.

    Raises `TaskError` where a key of [space] fits nothing in this model, naming what was left alone and why.
    """
    from ...compressors.structure import DATA_SCORES, SCORES, collect, find, find_blocks, routing_frequency, score

    section = task.space
    kinds = _kinds(section)
    if unknown := [name for name in section.keep_method if name not in SCORES]:
        raise TaskError(f"space.keep_method: there is no score {unknown[0]!r}; known are {', '.join(SCORES)}")
    few = _few(batches[0])
    sets: tuple[CoupledSet, ...] = ()
    left: dict[str, str] = {}
    round_to: dict[str, int] = {}
    if kinds:
        found = find(model, few, kinds=kinds)
        sets, left = found.sets, dict(found.left)
        for coupled in found.sets:
            round_to[coupled.name] = section.round_to or max(alignment_of(model, coupled, p) for p in profiles)
            touched = {member.tensor.rpartition(".")[0] for member in coupled.members}
            if any(fnmatchcase(fqn, glob) for fqn in touched for glob in section.leave):
                left[coupled.name] = "[space] leave names a layer that it goes through"
            elif why := _forbidden(section, coupled, round_to[coupled.name]):
                left[coupled.name] = why
        sets = tuple(coupled for coupled in sets if coupled.name not in left)
    blocks: tuple[Block, ...] = ()
    if section.blocks:
        blocks, why_not = find_blocks(model, few)
        left |= {f"block:{fqn}": why for fqn, why in why_not.items()}
    _check_found(task, sets, blocks, left)
    experts = [coupled for coupled in sets if coupled.kind == "experts"]
    asked = routing_frequency(model, batches[:_BATCHES], experts)
    sets = tuple(coupled for coupled in sets if coupled.kind != "experts")
    evidence = (
        collect(model, batches[:_BATCHES], sets, seed=task.search.seed)
        if sets and set(section.keep_method) & set(DATA_SCORES)
        else {}
    )
    rankings: dict[str, dict[str, tuple[int, ...]]] = {}
    all_scores: dict[str, dict[str, Tensor]] = {method: {} for method in section.keep_method}
    for coupled in sets:
        for method in section.keep_method:
            try:
                scores = score(model, coupled, method, evidence=evidence.get(coupled.name), seed=task.search.seed)
            except SpecError as error:
                left[f"{coupled.name} by {method}"] = str(error)
                continue
            all_scores[method][coupled.name] = scores
            order = scores.argsort(descending=True, stable=True).tolist()
            rankings.setdefault(coupled.name, {})[method] = tuple(order)
        if coupled.name not in rankings:
            instead = "hessian" if evidence else "l2"
            scores = score(model, coupled, instead, evidence=evidence.get(coupled.name))
            rankings[coupled.name] = {instead: tuple(scores.argsort(descending=True, stable=True).tolist())}
            left[f"{coupled.name} by {section.keep_method[0]}"] += f"; it is ranked by {instead}"
    ranked = tuple(coupled for coupled in sets if coupled.name in rankings)
    for name, frequency in asked.items():
        rankings[name] = {"frequency": tuple(frequency.argsort(descending=True, stable=True).tolist())}
    return Structured(
        sets=(*ranked, *experts), blocks=blocks, rankings=rankings, left=left, round_to=round_to,
        thresholds=_thresholds(section, ranked, all_scores),
    )  # fmt: skip


def structural_groups(section: SpaceSection, structured: Structured) -> list[Group]:
    """The groups of sets and blocks, each with its levels from the whole to the smallest."""
    from ...compressors.structure import n_kept
    from ..values import Group

    groups = []
    for coupled in structured.sets:
        levels: dict[tuple[int, str], LayerSpec] = {}
        for share in sorted(_shares(section, coupled), reverse=True):
            try:
                n = n_kept(coupled, share, round_to=structured.round_to.get(coupled.name, 1))
            except SpecError as error:
                raise TaskError(f"space: {error}") from error
            for method in structured.rankings[coupled.name]:
                if n == coupled.n_units:
                    levels.setdefault((n, ""), LayerSpec())
                else:
                    levels.setdefault((n, method), LayerSpec(keep=share, keep_method=method))
        if tuple(levels.values()) != (LayerSpec(),):
            groups.append(Group(name=coupled.name, layers=(coupled.name,), levels=tuple(levels.values())))
    for block in structured.blocks:
        name = block_name(block)
        groups.append(Group(name=name, layers=(name,), levels=(LayerSpec(), LayerSpec(keep=0.0))))
    return groups


def threshold_settings(space: SearchSpace, structured: Structured) -> list[tuple[str, Candidate]]:
    """One threshold for all sets, for each score and share that the space offers: each set at the level nearest to what
    the threshold leaves of it, the layers left alone where they can be. (label, candidate), each candidate once; the
    label says the share of all units that the threshold leaves, whatever the sets keep (`threshold k75`)."""
    from ..values import Candidate

    found: dict[Candidate, str] = {}
    for method, shares in structured.thresholds.items():
        for share, own in shares.items():
            levels = []
            for group in space.groups:
                index = 0
                if group.name in own:
                    usable = [i for i, s in enumerate(group.levels) if s.is_neutral or s.keep_method == method]
                    index = min(usable, key=lambda i: abs(group.levels[i].keep - own[group.name]))
                levels.append(index)
            if any(levels):
                label = LayerSpec(keep=share, keep_method=method).label()
                found.setdefault(Candidate(levels=tuple(levels)), f"threshold {label}")
    return [(label, candidate) for candidate, label in found.items()]


def describe_structure_left(structured: Structured | None, most: int = 8) -> list[str]:
    """A line for each coupling that is left alone, and what to know of the runtime."""
    if structured is None:
        return []
    named = [
        f"{name}: {why}" if " by " in name else f"{name} is left alone: {why}" for name, why in structured.left.items()
    ]
    more = [f"and {len(named) - most} more are left alone"] if len(named) > most else []
    return [*named[:most], *more]


def alignment_of(model: nn.Module, coupled: CoupledSet, profile: HardwareProfile) -> int:
    """What the device's kernels want the channels of a set to be a multiple of: its `alignment` of any layer that the
    set goes through, and that of its faster rules (`aligned`). 1 where the profile says nothing."""
    from torch import nn

    from ...compressors.anatomy import kind_of

    wanted = [rule.when.aligned or 1 for rule in profile.lowering]
    for fqn in {member.tensor.rpartition(".")[0] for member in coupled.members}:
        module = model.get_submodule(fqn)
        if (kind := kind_of(module)) is not None:
            grouped = isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1
            wanted.append(profile.alignment_of(kind, depthwise=grouped and module.groups == module.out_channels))
    return max(wanted, default=1)


def refuse_with_structure(task: Task, costs: Iterable[str]) -> None:
    """What does not go with removed units yet. Raises `TaskError`."""
    if task.hardware.latency == "measured" or task.hardware.latency_table is not None:
        raise TaskError(
            "hardware.latency: a table of measured latencies knows the layers as they are, not with fewer channels; "
            'set latency = "modelled", or leave channels, heads, neurons, … out of [space]'
        )
    if task.repair.block_reconstruction:
        raise TaskError(
            "repair.block_reconstruction: a block with fewer channels has no output of the original's to be held "
            "against; leave it out, or leave channels, heads, neurons, … out of [space]"
        )
    memory = [name for name in costs if name in ("peak_activation_bytes", "memory_bytes")]
    if memory:
        raise TaskError(
            f"{memory[0]} cannot be foreseen for a model with fewer channels yet; leave it out of [objectives] and "
            f"[limits], or leave channels, heads, neurons, … out of [space]"
        )


def removed_anatomy(anatomy: Anatomy, removal: Removal | None) -> Anatomy:
    if removal is None:
        return anatomy
    from ...compressors.structure import shrunk

    return shrunk(anatomy, removal)


def _kinds(section: SpaceSection) -> tuple[str, ...]:
    return tuple(kind for key, kind in KEYS.items() if any(share < 1.0 for share in _shares_anywhere(section, key)))


def _shares_anywhere(section: SpaceSection, key: str) -> tuple[float, ...]:
    overridden = [getattr(over, key) for over in section.overrides.values()]
    return (*getattr(section, key), *(share for shares in overridden if shares for share in shares))


def _shares(section: SpaceSection, coupled: CoupledSet) -> tuple[float, ...]:
    key = next(key for key, kind in KEYS.items() if kind == coupled.kind)
    chosen = getattr(section, key)
    makers = [member.tensor.rpartition(".")[0] for member in coupled.members if member.role != "reads"]
    for glob, override in section.overrides.items():
        shares = getattr(override, key)
        if shares is not None and any(fnmatchcase(fqn, glob) for fqn in makers):
            chosen = shares
    found: tuple[float, ...] = chosen
    return found


def _forbidden(section: SpaceSection, coupled: CoupledSet, round_to: int) -> str:
    """Why none of the shares takes a unit away, in a clause; "" if one does, or none is asked for."""
    from ...compressors.structure import n_kept

    shares = [share for share in _shares(section, coupled) if share < 1.0]
    try:
        if not shares or any(n_kept(coupled, share, round_to=round_to) < coupled.n_units for share in shares):
            return ""
    except SpecError:  # below the floor, which is refused with the groups
        return ""
    width = f" of {coupled.unit_width} channels" if coupled.unit_width > 1 else ""
    named = ", ".join(f"{share:g}" for share in shares)
    aligned = f" in multiples of {round_to} channels" if round_to > 1 else ""
    return f"of its {coupled.n_units} units{width} all stay at {named}{aligned}; lower round_to or the shares"


def _thresholds(
    section: SpaceSection, sets: Sequence[CoupledSet], scores: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[float, dict[str, float]]]:
    from ...compressors.structure import keep_above

    shares = sorted({share for key in KEYS for share in _shares_anywhere(section, key) if share < 1.0}, reverse=True)
    found: dict[str, dict[float, dict[str, float]]] = {}
    for method, of_sets in scores.items():
        ranked = [coupled for coupled in sets if coupled.name in of_sets]
        if len(ranked) < 2 or method == "entropy":  # it is negative, and says nothing across sets
            continue
        sizes = {coupled.name: coupled.n_units for coupled in ranked}
        for share in shares:
            kept = keep_above(ranked, of_sets, share)
            found.setdefault(method, {})[share] = {name: len(units) / sizes[name] for name, units in kept.items()}
    return found


def _check_found(task: Task, sets: Sequence[CoupledSet], blocks: Sequence[Block], left: Mapping[str, str]) -> None:
    section = task.space
    for key, kind in KEYS.items():
        asked = any(share < 1.0 for share in _shares_anywhere(section, key))
        if asked and not any(coupled.kind == kind for coupled in sets):
            raise TaskError(f"space.{key}: this model has no {key} that can be removed{_why(left)}; leave {key} out")
    if section.blocks and not blocks:
        raise TaskError(f"space.blocks: this model has no block that can be dropped{_why(left)}; leave blocks out")


def _why(left: Mapping[str, str]) -> str:
    shown = [f"{name}: {why}" for name, why in list(left.items())[:3]]
    return f" ({'; '.join(shown)})" if shown else ""


def _few(inputs: Any) -> Any:
    """The first two samples."""
    if isinstance(inputs, Mapping):
        return {name: value[:2] for name, value in inputs.items()}
    return tuple(value[:2] for value in inputs) if isinstance(inputs, tuple) else inputs[:2]
