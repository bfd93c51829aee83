"""Sizes from which a form is exported as such, from the runtime's shipped profile.

The exporters and the modelled latency read the same rules, so that they cannot disagree. Exporters ask the profile of
the runtime's plain x86-64 machine, whatever they run on: an artifact does not depend on where it is made.
"""

from __future__ import annotations

from functools import cache

from ...hardware_profiles import HardwareProfile, Rule, load_profile
from ._narrow import NarrowRule


@cache
def narrow_rule(runtime: str) -> NarrowRule:
    """Rule for weight-only integers. Raises `ValueError` where the rules have different sizes."""
    rules = [rule for rule in _rules(runtime) if rule.when.blocks is not None]
    (conditions,) = {(rule.when.min_weights, rule.when.blocks) for rule in rules}
    from_size, blocks = conditions
    assert blocks is not None
    return NarrowRule(
        bits=tuple(sorted(rule.runs_as.weight_bits for rule in rules)), from_size=from_size or 0, blocks=blocks
    )


@cache
def dynamic_from(runtime: str) -> int:
    """Least channels, out and in, of a linear layer that finds its inputs' ranges at run time and multiplies
    integers.
    """
    (found,) = {rule.when.min_channels or 0 for rule in _rules(runtime) if rule.when.dynamic}
    return found


@cache
def _profile(runtime: str) -> HardwareProfile:
    return load_profile(f"x86-64-{runtime}")


def _rules(runtime: str) -> tuple[Rule, ...]:
    return _profile(runtime).lowering
