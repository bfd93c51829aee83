"""The files in the folder of a run that people read: the picture, the page and the table of trials.

It draws fronts and evaluates nothing. It knows `front` and `run`. Begin with `_axes.py` (axes, points and
their roles) and `_write.py`. A new picture is one file here.
"""

from ._axes import COSTS, label_of, uniform_label
from ._html import page
from ._ratios import Ratio, ratio_of
from ._write import PAGE, PICTURE, TABLE, trial_rows, trials_csv, write_report

__all__ = [
    "COSTS",
    "PAGE",
    "PICTURE",
    "TABLE",
    "Ratio",
    "label_of",
    "page",
    "ratio_of",
    "trial_rows",
    "trials_csv",
    "uniform_label",
    "write_report",
]
