"""Remaining experts of a list of experts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class KeptExperts(nn.ModuleList):
    """List of experts with new numbers and old names.

    By number 0, 1, 2, … it acts like any list, as the narrowed router counts. By name the experts keep their old
    numbers, so that data keyed by a layer's fqn stays valid. `nn.ModuleList(list(kept))` renames them.
    """

    @classmethod
    def of(cls, experts: nn.ModuleList, kept: Sequence[int]) -> KeptExperts:
        names, left = list(experts._modules), cls()
        for i in kept:
            left.add_module(names[i], experts[i])
        return left

    def _get_abs_string_index(self, idx: int) -> str:
        """Name of an expert from its number; overrides torch's method."""
        n = len(self)
        if not -n <= idx < n:
            raise IndexError(f"there are {n} experts, got number {idx}")
        return list(self._modules)[idx]
