"""Effect of one layer's treatment alone on the outputs, for less than a whole pass each.

It knows `quality` and `values`. Begin with `_prefix.py`: `PrefixCache` keeps the calls before the layer in memory, so
only the rest of a pass runs. `fisher_table` (`_fisher.py`) estimates the whole table from backward passes. An
`OutputFrame` keeps the direction of a change in the outputs; `loss_gradients` gives the gradients of the loss by each
weight. Another estimate of sensitivity is one file here.
"""

from ._calls import Timeline
from ._fisher import FisherTable, fisher_table
from ._frame import OutputFrame
from ._loss import loss_gradients
from ._prefix import Prefix, PrefixCache, PrefixMismatchError, kept_bytes, modules_around, recomputed_share

__all__ = [
    "FisherTable",
    "OutputFrame",
    "Prefix",
    "PrefixCache",
    "PrefixMismatchError",
    "Timeline",
    "fisher_table",
    "kept_bytes",
    "loss_gradients",
    "modules_around",
    "recomputed_share",
]
