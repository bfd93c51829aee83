"""What a device and its runtime can run, and what it costs: data, checked when it is loaded."""

from __future__ import annotations

from ._files import list_profiles, load_profile, schema
from ._lowering import KINDS, Lowered, Match, Rule, RunsAs
from ._profile import SCHEMA_VERSION, Energy, Figure, HardwareProfile, ProfileError

__all__ = [
    "KINDS",
    "SCHEMA_VERSION",
    "Energy",
    "Figure",
    "HardwareProfile",
    "Lowered",
    "Match",
    "ProfileError",
    "Rule",
    "RunsAs",
    "list_profiles",
    "load_profile",
    "schema",
]
