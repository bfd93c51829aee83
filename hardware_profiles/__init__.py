"""Hardware profiles: the kernels that a device and its runtime have, and their costs. Checked when they are loaded.

A profile is a JSON file (docs/hardware.md): a device, a runtime on it, figures with their sources, and rules from a
treatment to a kernel. A measured profile is made like any other, with `kind: "measured"` in its figures:
`HardwareProfile.from_dict({...}).save("mine.json")`. This folder imports no other. Begin with `_profile.py`.
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
