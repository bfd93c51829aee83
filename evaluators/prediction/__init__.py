"""Predicted latency of a model's forms on a real runtime, from a few dozen of them that were measured whole.

`measure_table` gives a `LatencyTable`, which predicts all other forms with an interval; this folder's README explains
the method. It knows `latency` and `runtimes`. Begin with `_campaign.py` (what is measured) and `_table.py` (the
result). Another property of a model that affects latency is a block in `_features.py`.
"""

from ._bed import Bed, Timed
from ._campaign import measure, measure_table, offers_of
from ._choice import draw, next_to_measure
from ._features import LayerClass, Layout
from ._fit import NAMES, fit
from ._forms import Form, form_of, forms_of
from ._lone import with_lone_gains
from ._table import LatencyTable, MeasuredModel, Quality
from ._template import Template
from ._wiring import Edge, Wiring

__all__ = [
    "NAMES",
    "Bed",
    "Edge",
    "Form",
    "LatencyTable",
    "LayerClass",
    "Layout",
    "MeasuredModel",
    "Quality",
    "Template",
    "Timed",
    "Wiring",
    "draw",
    "fit",
    "form_of",
    "forms_of",
    "measure",
    "measure_table",
    "next_to_measure",
    "offers_of",
    "with_lone_gains",
]
