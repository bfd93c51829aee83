"""What can be removed whole: channels, heads, neurons, width, units, blocks, experts (see README.md)."""

from ._find import Structure, find
from ._mask import masked
from ._removal import Removal, removal_of
from ._remove import remove, remove_
from ._sets import KINDS, Attribute, CoupledSet, Member

__all__ = [
    "KINDS", "Attribute", "CoupledSet", "Member", "Removal", "Structure", "find", "masked", "removal_of", "remove", "remove_",
]
