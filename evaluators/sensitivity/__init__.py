"""How much one layer's treatment alone changes the outputs: cheaper than a whole pass for each.

`PrefixCache` answers from memory what ran before the layer; `fisher_table` guesses all of it from one backward pass.
"""

from __future__ import annotations

from ._calls import Timeline
from ._fisher import FisherTable, fisher_table
from ._prefix import Prefix, PrefixCache, PrefixMismatchError, kept_bytes, recomputed_share

__all__ = [
    "FisherTable",
    "Prefix",
    "PrefixCache",
    "PrefixMismatchError",
    "Timeline",
    "fisher_table",
    "kept_bytes",
    "recomputed_share",
]
