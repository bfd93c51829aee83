"""Groups of the space for coupled sets and blocks, and the baselines with one threshold for all sets.

A group whose name has a colon ("channels:conv1", "block:layers.2") is a set or a block. Its levels are shares of the
units that stay. A trial masks units; an export removes them. The layers' other treatment applies to the rest of their
weights, in a trial too, so both have the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ...errors import SpecError, TaskError
from ..values import block_name
from ._keeps import shares_of

if TYPE_CHECKING:
    from ..task import SpaceSection
    from ..values import Candidate, Group, SearchSpace
    from ._structured import Structured


def structural_groups(section: SpaceSection, structured: Structured) -> list[Group]:
    """The groups of sets and blocks, each with its levels from the whole to the smallest."""
    from ...compressors.structure import n_kept
    from ..values import Group

    groups = []
    for coupled in structured.sets:
        levels: dict[tuple[int, str], LayerSpec] = {}
        for share in sorted(shares_of(section, coupled), reverse=True):
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
    """(label, candidate) with one threshold for all sets, for each score and share that the space offers.

    Each set is at the level nearest to the share that the threshold leaves of it; layers are left alone where they can
    be. Each candidate comes once. The label names the share of all units that the threshold leaves, whatever the sets
    keep (`threshold k75`).
    """
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
