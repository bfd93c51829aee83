"""The files of a run that people read: `front.png`, `front.html`, `trials.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..run import write_atomic
from ..values import MODELLED, STATUS, Completed, Failed, SearchSpace, Trial
from ._axes import COSTS

if TYPE_CHECKING:
    from ..front import Front

PICTURE, PAGE, TABLE = "front.png", "front.html", "trials.csv"


def write_report(folder: Path, front: Front, trials: Sequence[Trial], *, space: SearchSpace) -> tuple[Path, ...]:
    """Write (over) the picture, the page and the table in `folder`; gives their paths.

    A front without points has a table only. The page is interactive where plotly is installed, else it shows the
    picture. It is one file that works offline.
    """
    table = folder / TABLE
    write_atomic(table, trials_csv(trials, space))
    if not front.points:
        return (table,)
    from ._html import page
    from ._png import draw

    picture = draw(front, trials, folder / PICTURE)
    write_atomic(folder / PAGE, page(front, trials, picture))
    return picture, folder / PAGE, table


def trials_csv(trials: Sequence[Trial], space: SearchSpace) -> str:
    """Table of the trials as CSV, in the order of their numbers: outcome, metrics, and the level of each group."""
    columns, rows = trial_rows(trials, space)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def trial_rows(trials: Sequence[Trial], space: SearchSpace) -> tuple[list[str], list[list[str | float | int | None]]]:
    """(columns, rows) of the table of trials, quality before costs.

    A metric that a trial does not have is None, and so are the bounds of an exact one. Columns like `latency_ms_source`
    say whether a cost on the device was modelled or predicted. On a further device (`latency_ms@NAME`) it is modelled.
    """
    with_metrics = [t for t in trials if not isinstance(t, Failed)]
    names = sorted(dict.fromkeys(name for t in with_metrics for name in t.metrics), key=lambda name: name in COSTS)
    sources = [n for n in names if n in MODELLED]
    spans = {n for n in names if any(n in t.metrics and t.metrics[n].low is not None for t in with_metrics)}
    columns = [
        "trial",
        "kind",
        "outcome",
        *(c for n in names for c in ([n, f"{n}_low", f"{n}_high"] if n in spans else [n])),
    ]
    columns += [f"{n}_source" for n in sources]
    columns += ["samples", "seconds", "reason", *(group.name for group in space.groups)]
    rows: list[list[str | float | int | None]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        row: list[str | float | int | None] = [f"t{trial.number}", trial.kind, STATUS[type(trial)]]
        metrics = {} if isinstance(trial, Failed) else trial.metrics
        for name in names:
            measured = metrics.get(name)
            row.append(measured.value if measured else None)
            if name in spans:
                row += [measured.low, measured.high] if measured else [None, None]
        row += [metrics[n].source if n in metrics else None for n in sources]
        row += [getattr(trial, "samples", None), getattr(trial, "seconds", None)]
        row.append(None if isinstance(trial, Completed) else trial.reason)
        row += _levels(trial, space)
        rows.append(row)
    return columns, rows


def _levels(trial: Trial, space: SearchSpace) -> list[str | float | int | None]:
    if trial.kind == "original":
        return ["fp32"] * len(space)
    return [group.levels[level].label() for group, level in zip(space.groups, trial.candidate.levels, strict=True)]
