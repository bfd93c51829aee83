"""Hypervolume against cost: one panel a problem, the median of the seeds as a line, their range as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .play import ASSISTED, OWN
from .traces import Trace

N_STEPS = 60
COLUMNS = 2
FIRST = 5.0
"""Full evaluations at which the cost axis begins."""


def draw(problems: Mapping[str, Sequence[Trace]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = sorted({t.searcher for traces in problems.values() for t in traces}, key=lambda n: (n != OWN, n))
    colours = {name: ("black" if name == OWN else f"C{i % 10}") for i, name in enumerate(names)}
    rows = -(-len(problems) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(6.0 * COLUMNS, 3.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(problems) :]:
        axis.set_axis_off()
    for axis, (problem, traces) in zip(axes.flat, problems.items(), strict=False):
        for name in names:
            own = [trace for trace in traces if trace.searcher == name]
            if not own:
                continue
            end = max(FIRST * 2, float(np.median([t.context.get("budget", t.evaluations) for t in own])))
            costs = np.geomspace(FIRST, end, N_STEPS)
            volumes = np.array([[trace.volume_at(cost) for cost in costs] for trace in own])
            style = "--" if name in ASSISTED else "-"
            width = 2.2 if name == OWN else 1.2
            axis.plot(costs, np.median(volumes, axis=0), style, color=colours[name], linewidth=width, label=name)
            if len(own) > 1:
                axis.fill_between(costs, volumes.min(axis=0), volumes.max(axis=0), color=colours[name], alpha=0.12)
        axis.set_xscale("log")
        axis.set_title(problem)
        axis.set_xlabel("cost, in full evaluations")
        axis.set_ylabel("hypervolume")
        axis.grid(alpha=0.3)
    handles = {h.get_label(): h for axis in axes.flat for h in axis.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
