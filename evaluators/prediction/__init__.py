"""Latency of a model's forms on a real runtime, predicted from a few dozen of them that were measured whole.

`measure_table` gives a `LatencyTable`, which foresees all others with an interval. How: this folder's card.
"""

from __future__ import annotations

from ._campaign import measure, measure_table, offers_of
from ._choice import draw, next_to_measure
from ._features import Layout
from ._fit import fit
from ._forms import Form, form_of, forms_of
from ._table import LatencyTable, MeasuredModel, Quality

__all__ = [
    "Form",
    "LatencyTable",
    "Layout",
    "MeasuredModel",
    "Quality",
    "draw",
    "fit",
    "form_of",
    "forms_of",
    "measure",
    "measure_table",
    "next_to_measure",
    "offers_of",
]
