"""Effect of one layer's treatment alone on the outputs, for less than a whole pass each.

`PrefixCache` answers from memory what ran before the layer; `fisher_table` guesses all of it from one backward pass;
an `OutputFrame` keeps in which direction it changes them; `loss_gradients` says what the loss makes of each weight.
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
