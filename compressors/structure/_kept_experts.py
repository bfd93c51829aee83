"""What is left of a list of experts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class KeptExperts(nn.ModuleList):
    """By number 0, 1, 2, … as in any list, as the narrowed router counts them; by name what they were before, so that
    whatever is known of a layer by its fqn still holds. `nn.ModuleList(list(kept))` counts the names anew."""

    @classmethod
    def of(cls, experts: nn.ModuleList, kept: Sequence[int]) -> KeptExperts:
        names, left = list(experts._modules), cls()
        for i in kept:
            left.add_module(names[i], experts[i])
        return left

    def _get_abs_string_index(self, idx: int) -> str:
        """Torch's own: from a number to a name."""
        n = len(self)
        if not -n <= idx < n:
            raise IndexError(f"there are {n} experts, got number {idx}")
        return list(self._modules)[idx]
