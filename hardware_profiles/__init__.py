"""What a device and its runtime can run, and what it costs: data, checked when it is loaded.

A profile is a JSON file (docs/hardware.md): a device, a runtime on it, figures with their sources, and rules that say
what really runs. One that was measured is made like any other, with `kind: "measured"` in its figures:
`HardwareProfile.from_dict({...}).save("mine.json")`.
"""

from __future__ import annotations

from ._device import Alignment, Cache, Energy, Operator, Tile
from ._figure import BOUNDS, RATE_BOUNDS, Figure
from ._files import list_profiles, load_profile, schema
from ._lowering import KINDS, Blocks, Lowered, Match, Rule, RunsAs, Treatment
from ._migrate import SCHEMA_VERSION, migrate
from ._profile import HardwareProfile, ProfileError

__all__ = [
    "BOUNDS",
    "KINDS",
    "RATE_BOUNDS",
    "SCHEMA_VERSION",
    "Alignment",
    "Blocks",
    "Cache",
    "Energy",
    "Figure",
    "HardwareProfile",
    "Lowered",
    "Match",
    "Operator",
    "ProfileError",
    "Rule",
    "RunsAs",
    "Tile",
    "Treatment",
    "list_profiles",
    "load_profile",
    "migrate",
    "schema",
]
