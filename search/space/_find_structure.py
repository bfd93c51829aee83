"""Search of a model for the structure that [space] may remove, and the ranking of its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...compressors.values import StructuralName
from ...errors import SpecError, TaskError
from ._alignment import alignment_of
from ._keeps import asked_kinds, asked_shares, keep_axes, shares_of
from ._structured import Structured

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Inputs
    from ...compressors.structure import Block, CoupledSet, UnitEvidence
    from ...evaluators import OutputDistance
    from ...hardware_profiles import HardwareProfile
    from ..task import SpaceSection, Task

_BATCHES = 8
"""Batches of calibration data that scores from data look at."""

Scores = dict[str, dict[str, "Tensor"]]
"""Score -> name of a set -> its value for each unit."""


def find_structure(
    task: Task, model: nn.Module, batches: Sequence[Inputs], profiles: Sequence[HardwareProfile],
    distance: OutputDistance | None = None, *, mask: str | None = None,
) -> Structured:  # fmt: skip
    """Structure that [space] asks for, ranked.

    batches   of the calibration split, at least one
    profiles  of the devices: channels are rounded to `[space] round_to`, else to the number that the most demanding
              device wants for the layers that a set goes through
    distance  distance of the outputs; None: they are logits, with the classes last
    mask      name of the mask among the inputs (`Split.mask`)
    Raises `TaskError` where a key of [space] fits nothing in this model, naming what was left alone and why.
    """
    from ...compressors.structure import SCORES, find_blocks, routing_frequency

    section = task.space
    if unknown := [name for name in section.keep_method if name not in SCORES]:
        raise TaskError(f"space.keep_method: there is no score {unknown[0]!r}; known are {', '.join(SCORES)}")
    few = _few(batches[0])
    left: dict[str, str] = {}
    round_to: dict[str, int] = {}
    sets = _coupled_sets(section, model, few, profiles, left, round_to)
    blocks: tuple[Block, ...] = ()
    if section.blocks:
        blocks, why_not = find_blocks(model, few)
        left |= {str(StructuralName("block", fqn)): why for fqn, why in why_not.items()}
    _check_found(task, sets, blocks, left)
    experts = [coupled for coupled in sets if coupled.kind == "experts"]
    asked = routing_frequency(model, batches[:_BATCHES], experts, mask=mask)
    sets = tuple(coupled for coupled in sets if coupled.kind != "experts")
    rankings, scores = _rankings(task, model, batches[:_BATCHES], sets, left, (distance, mask))
    ranked = tuple(coupled for coupled in sets if coupled.name in rankings)
    for name, frequency in asked.items():
        rankings[name] = {"frequency": _order(frequency)}
    return Structured(
        sets=(*ranked, *experts), blocks=blocks, rankings=rankings, left=left, round_to=round_to,
        thresholds=_thresholds(section, ranked, scores),
    )  # fmt: skip


def _coupled_sets(
    section: SpaceSection, model: nn.Module, few: Any, profiles: Sequence[HardwareProfile], left: dict[str, str],
    round_to: dict[str, int],
) -> tuple[CoupledSet, ...]:  # fmt: skip
    """Coupled sets that may lose units. Fills `left` (name -> reason) and `round_to`."""
    from ...compressors.structure import find

    kinds = asked_kinds(section)
    if not kinds:
        return ()
    found = find(model, few, kinds=kinds)
    left |= found.left
    for coupled in found.sets:
        round_to[coupled.name] = section.round_to or max(alignment_of(model, coupled, p) for p in profiles)
        touched = {member.tensor.rpartition(".")[0] for member in coupled.members}
        if any(fnmatchcase(fqn, glob) for fqn in touched for glob in section.leave):
            left[coupled.name] = "[space] leave names a layer that it goes through"
        elif why := _forbidden(section, coupled, round_to[coupled.name]):
            left[coupled.name] = why
    return tuple(coupled for coupled in found.sets if coupled.name not in left)


def _rankings(
    task: Task, model: nn.Module, batches: Sequence[Inputs], sets: Sequence[CoupledSet], left: dict[str, str],
    compared: tuple[OutputDistance | None, str | None],
) -> tuple[dict[str, dict[str, tuple[int, ...]]], Scores]:  # fmt: skip
    """Rankings (name of a set -> score -> units, the most important first) and scores; fills `left`."""
    from ...compressors.structure import DATA_SCORES, score

    methods, seed = task.space.keep_method, task.search.seed
    looks_at_data = bool(sets) and bool(set(methods) & set(DATA_SCORES))
    evidence = _evidence(model, batches, sets, seed, *compared) if looks_at_data else {}
    rankings: dict[str, dict[str, tuple[int, ...]]] = {}
    scores: Scores = {method: {} for method in methods}
    for coupled in sets:
        known = evidence.get(coupled.name)
        for method in methods:
            try:
                found = score(model, coupled, method, evidence=known, seed=seed)
            except SpecError as error:
                left[f"{coupled.name} by {method}"] = str(error)
                continue
            scores[method][coupled.name] = found
            rankings.setdefault(coupled.name, {})[method] = _order(found)
        if coupled.name not in rankings:
            instead = "hessian" if evidence else "l2"
            rankings[coupled.name] = {instead: _order(score(model, coupled, instead, evidence=known))}
            left[f"{coupled.name} by {methods[0]}"] += f"; it is ranked by {instead}"
    return rankings, scores


def _evidence(
    model: nn.Module, batches: Sequence[Inputs], sets: Sequence[CoupledSet], seed: int,
    distance: OutputDistance | None, mask: str | None,
) -> dict[str, UnitEvidence]:  # fmt: skip
    from ...compressors.structure import collect

    axis = None if distance is None else distance.class_axis
    return collect(
        model, batches, sets, seed=seed, class_axis=-1 if axis is None else axis,
        scales=None if distance is None else distance.scales, mask=mask,
    )  # fmt: skip


def _order(scores: Tensor) -> tuple[int, ...]:
    return tuple(scores.argsort(descending=True, stable=True).tolist())


def _forbidden(section: SpaceSection, coupled: CoupledSet, round_to: int) -> str:
    """Reason why none of the shares takes a unit away, in a clause; "" if one does, or none is asked for."""
    from ...compressors.structure import n_kept

    shares = [share for share in shares_of(section, coupled) if share < 1.0]
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
    section: SpaceSection, sets: Sequence[CoupledSet], scores: Scores
) -> dict[str, dict[float, dict[str, float]]]:
    """Score -> share of all units -> name of a set -> share of it that one threshold for all sets leaves."""
    from ...compressors.structure import keep_above

    shares = sorted({share for axis in keep_axes().values() for share in asked_shares(section, axis)}, reverse=True)
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
    """Refuse a key of [space] that fits nothing in this model."""
    section = task.space
    for kind, axis in keep_axes().items():
        if asked_shares(section, axis) and not any(coupled.kind == kind for coupled in sets):
            raise TaskError(
                f"space.{axis.key}: this model has no {axis.key} that can be removed{_why(left)}; leave {axis.key} out"
            )
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
