"""Ranks by number and by energy, as shares of a layer's own full rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import LayerInfo

Weights = Callable[[str], "Tensor"]
"""fqn -> that layer's weight."""


def by_form(
    layer: LayerInfo, chosen: Mapping[str, Sequence[Any]], weights: Weights | None
) -> Iterator[dict[str, Sequence[Any]]]:
    """Yield the chosen values once for each form of low rank, with the layer's own ranks of that form among `rank`."""
    for form in chosen["rank_form"]:
        ranks = (*chosen["rank"], *_own_ranks(layer, form, chosen["rank_number"], chosen["rank_energy"], weights))
        yield {**chosen, "rank": ranks, "rank_form": (form,)}


def _own_ranks(
    layer: LayerInfo, form: str, numbers: Sequence[int], energies: Sequence[float], weights: Weights | None
) -> list[float]:
    """Shares of the full rank; none for a layer that has no rank to lower."""
    if not numbers and not energies:
        return []
    from ...compressors.lowrank import energy_rank, full_rank, misfit, rank_share, unfolded

    if layer.kind == "embedding" or layer.groups != 1 or misfit(form, layer.weight_shape) is not None:
        return []
    full = full_rank(form, layer.weight_shape)
    ranks = [number for number in numbers if number < full]
    if energies:
        if weights is None:
            raise TaskError("space.rank_energy looks at the weights, and the model is not at hand here")
        matrix = weights(layer.fqn).detach().float().cpu().reshape(layer.matrix_shape)
        matrix = unfolded(form, matrix, layer.weight_shape)
        ranks += [rank for energy in energies if (rank := energy_rank(matrix, energy)) < full]
    return [rank_share(rank, full) for rank in dict.fromkeys(ranks)]
