"""Commands that read a run: its status, its front, its layers, and its answer to other limits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._command import command
from ..errors import InputError, ParedownError
from . import _console as console
from ._options import Json, RunFolder

if TYPE_CHECKING:
    from ..search import Front, Resolution

_FAILURES_SHOWN = 5


def status(run: RunFolder, as_json: Json = False) -> None:
    """Show what a run is doing, what it has spent, and the front so far."""
    from ..search import open_run

    opened = open_run(run)
    facts = opened.status()
    if as_json:
        console.show_json(facts)
        return
    from ._tables import facts_table, front_table, rows_table

    failures = facts.pop("failures", [])
    console.show(facts_table(facts))
    if failures:
        console.show(rows_table(failures[-_FAILURES_SHOWN:]))
    if len(failures) > _FAILURES_SHOWN:
        console.say(f"and {len(failures) - _FAILURES_SHOWN} earlier ones: {command('status', run, '--json')}")
    front = opened.front()
    if front.points:
        console.show(front_table(front, width=console.out().width))


def front(
    run: RunFolder,
    everything: Annotated[bool, typer.Option("--all", help="Show every completed trial and every metric.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Show the same trials with the modelled costs of another device.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the points of a run, beside the original and the uniform baselines."""
    from ..search import open_run

    show_front(open_run(run).front(all=everything, profile=profile), as_json, everything=everything)


def explain(
    run: RunFolder,
    point: Annotated[
        str, typer.Argument(metavar="POINT", help="As for export, or the ID of any trial.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Show each layer of a point: its spec, cost, saving and sensitivity, and the kernel that ran."""
    from ..search import open_run
    from ..search.artifacts import add_kernels

    opened = open_run(run)
    point_id = point if re.fullmatch(r"t\d+", point) else opened.front().pick(point).id
    layers = opened.explain(point_id)
    try:
        otherwise = add_kernels(opened, point_id, layers)
    except ParedownError as error:  # the runtime may not be here, where a run is only looked at
        otherwise = {}
        console.say(f"the kernels that ran are not known: {error}")
    found = opened.state.verified.get(int(point_id.removeprefix("t")))
    agreement = found.agreement if found else ""
    if as_json:
        console.show_json({"point": point_id, "layers": layers, "ran_otherwise": otherwise, "agreement": agreement})
        return
    from ._tables import layers_table

    console.show(layers_table(layers))
    for fqn, what in otherwise.items():
        console.say(f"{fqn} {what}")
    if agreement:
        console.say(agreement)
    if any(row["weight_bytes"] is None for row in layers):
        console.say("removed units and blocks have rows of their own; the rows of layers are for their whole size")
    console.say("sensitivity: divergence of the outputs with this layer alone at its level; weight error: ‖W-Ŵ‖²/‖W‖²")


def resolve(
    run: RunFolder,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help='"bytes<=100000", "bytes<=25%" of the original, "accuracy>=0.98,latency_ms<=0.5". May be repeated. '
            "Default: the run's own.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Hardware profile of another device.", show_default=False),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="COST", help="Answer every budget of a cost: bytes, macs, bops, latency_ms.", show_default=False
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Number of budgets of a sweep.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="Write the config, for `paredown apply`.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the best candidate within other limits, or for another device, in seconds.

    It is predicted from the run's trials; nothing is evaluated.

    The best evaluated trial within the same limits is shown beside it.
    """
    from ..search import resolve as resolve_run

    if out is not None and sweep is not None:
        raise InputError(
            "--out writes one config, and --sweep finds many; give the limits of one with --limit, without --sweep"
        )
    found = resolve_run(run, limits=limit, profile=profile, sweep=sweep, points=points)
    if out is not None:
        from ..search.run import write_atomic

        write_atomic(out, json.dumps(dict(found.points[0].config), indent=2) + "\n")
    _show_resolution(found, as_json)
    if out is not None:
        console.say(f"next: {command('apply', out, '--task', 'TASK.toml', '--out', 'DIR')}")


def show_front(front: Front, as_json: bool, *, everything: bool = False) -> None:
    """Print a front: a table with notes, or JSON. Raises `InputError` if it has no points."""
    if as_json:
        console.show_json(front.to_dict())
        return
    if not front.points:
        raise InputError(f"{front.run} has no points yet; `{command('status', front.run)}` shows its progress")
    from ._tables import front_notes, front_table, reasons_table

    reasons = reasons_table(front, everything=everything)
    console.show(front_table(front, everything=everything, width=console.out().width), *([reasons] if reasons else []))
    for note in front_notes(front):
        console.say(note)


def _show_resolution(found: Resolution, as_json: bool) -> None:
    if as_json:
        console.show_json(found.to_dict())
        return
    from ._resolution import notes, resolution_table

    console.show(resolution_table(found))
    for note in notes(found):
        console.say(note)
