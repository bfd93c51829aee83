"""Command `paredown plan`: a config without a search."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._command import command
from . import _console as console
from . import _format as fmt
from ._options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from ..search import Plan


class Strategy(StrEnum):
    """Rules that make a config; see `search/plans/`."""

    uniform = "uniform"
    sensitivity = "sensitivity"
    performance = "performance"
    energy = "energy"
    fp16_mse = "fp16-mse"


def plan(
    task: Annotated[
        Path | None,
        typer.Argument(metavar="TASK.toml", help="Default: the embedded handwritten digits.", show_default=False),
    ] = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="uniform: the same for all layers. sensitivity: bits where they matter. performance, energy: "
            "fast or frugal by the profile. fp16-mse: FP16 where INT8 is too coarse."
        ),
    ] = Strategy.sensitivity,
    bits: Annotated[
        float | None,
        typer.Option(help="Mean bits of a weight. Default: the task's limits on costs, else 4.", show_default=False),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help='"bytes<=100000", "bytes<=25%" of the original, "latency_ms<=0.5"; may be repeated.',
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="fp16-mse: relative error of INT8 above which a layer stays in FP16. Default: 1e-4."),
    ] = None,
    slack: Annotated[
        float, typer.Option(min=0.0, help="performance, energy: share of divergence that they may add to the least.")
    ] = 0.25,
    out: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="Write the config, for `paredown apply`.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a config by a rule or from the sensitivity table, without a search. It is not evaluated."""
    from ..digits import TASK_PATH
    from ..search import plan as make_plan
    from ..search.run import write_atomic
    from ..search.space import describe_places
    from ._progress import display

    if task is None:
        console.say("no task given: planning for the embedded handwritten digits")
    with display("paredown plan") as progress:
        found = make_plan(
            task or TASK_PATH, strategy=strategy.value, bits=bits, limits=limit, threshold=threshold, slack=slack,
            progress=progress,
        )  # fmt: skip
    if out is not None:
        write_atomic(out, json.dumps(dict(found.config), indent=2) + "\n")
    console.show_json(found.to_dict()) if as_json else _show(found)
    for line in (*describe_places(found.places), *found.notes):
        console.say(line)
    if out is not None:
        console.say(f"next: {command('apply', out, '--task', task or 'TASK.toml', '--out', 'DIR')}")


def _show(found: Plan) -> None:
    """Print the costs of a plan, and the treatment of each layer."""
    from ..search.values import of_first_device
    from ._tables import facts_table

    shown = {name: fmt.measurement(name, m) for name, m in of_first_device(found.metrics).items()}
    if (original := found.original.get("bytes")) is not None:
        times = fmt.times(original.value / max(1.0, found.metrics["bytes"].value))
        shown["bytes"] = f"{shown['bytes']} ({times} smaller than the original)"
        wide = found.original.get("fp32_bytes")
        beside = f" ({fmt.measurement('bytes', wide)} in FP32)" if wide is not None else ""
        shown["original bytes"] = f"{fmt.measurement('bytes', original)}{beside}"
    console.show(facts_table({"strategy": found.strategy, **shown}))
    console.show(_levels(found.config["layers"]))


def _levels(layers: dict[str, dict[str, Any]]) -> Table:
    from ..compressors import LayerSpec
    from ._tables import table

    made = table("layer", "becomes")
    for fqn, spec in layers.items():
        made.add_row(fqn, LayerSpec.from_dict(spec).label())
    return made
