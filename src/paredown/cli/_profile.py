"""Command `paredown profile`: a hardware profile of this machine and a runtime, from measurements."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _console as console
from . import _format as fmt

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluators.latency import LayerShape, MachineFigures
    from ..evaluators.prediction import LatencyTable
    from ..hardware_profiles import HardwareProfile, Match
    from ..search import Task
    from ..search.problem import Problem

SLOWEST = 6
"""Number of a task's layers that are measured alone: those with the most multiply-accumulates."""


ProfileJson = Annotated[bool, typer.Option("--json", help="Print the figures and the profile as JSON on stdout.")]


def profile(
    runtime: Annotated[
        str | None,
        typer.Option(help="onnxruntime or openvino. Default: the task's, else what is installed.", show_default=False),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="TASK.toml",
            help="Also measure its model's layers, and make a table to predict its latencies from.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the hardware profile, and with --task the table.", show_default=False),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Profile for the figures that are not measured. Default: the nearest shipped profile.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: the task's, else 1.", show_default=False)] = None,
    models: Annotated[int, typer.Option(min=4, help="With --task: number of whole models to measure.")] = 80,
    minutes: Annotated[float, typer.Option(min=0.0, help="With --task: longest time to measure them.")] = 5.0,
    as_json: ProfileJson = False,
) -> None:
    """Measure which layers really run faster on this machine, how fast they are, and how fast memory is.

    This takes minutes; leave the machine alone meanwhile. FILE is a hardware profile for [hardware] profile.

    With --task the table for [hardware] latency_table is written beside FILE, as FILE.latency.json.
    """
    from ..evaluators.latency import STANDARD, machine_profile, measure_machine, nearest_profile
    from ..hardware_profiles import load_profile
    from ..search import Task

    loaded = Task.load(task) if task is not None else None
    named = loaded.hardware.runtime if loaded is not None and loaded.hardware.runtime != "auto" else None
    chosen = runtime or named or _installed()
    if loaded is not None and chosen != loaded.hardware.runtime:
        loaded = loaded.with_overrides([f"hardware.runtime={json.dumps(chosen)}"])
    given = load_profile(base) if base is not None else None  # a wrong name is an error now, and not after minutes
    n_threads = threads or (loaded.hardware.threads if loaded else 1)
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        problem = _problem_of(loaded, Path(folder)) if loaded is not None else None
        shapes = [*STANDARD, *(_shapes_of(problem) if problem is not None else ())]
        figures = measure_machine(chosen, threads=n_threads, shapes=shapes, say=lambda text: console.say(f"… {text}"))
        table = _table(problem, chosen, n_threads, models, 60.0 * minutes) if problem is not None else None
    made = machine_profile(figures, given or load_profile(nearest_profile(figures)))
    if out is not None:
        made.save(out)
        if table is not None:
            table.save(_table_path(out))
    if as_json:
        console.show_json({**figures.to_dict(), "profile": made.to_dict()})
    _tell(figures, made, table, out)


def _installed() -> str:
    from ..errors import MissingExtra
    from ..evaluators.runtimes import get_runtime

    for name in ("openvino", "onnxruntime"):
        if get_runtime(name).available() is None:
            return name
    raise MissingExtra("measuring a machine needs a runtime; get one with: pip install 'paredown[openvino]'")


def _problem_of(task: Task, folder: Path) -> Problem:
    from ..search.problem import prepare
    from ..search.task import settle_profile

    return prepare(settle_profile(task), store=folder / "store")


def _shapes_of(problem: Problem) -> list[LayerShape]:
    """Choose the layers with the most multiply-accumulates, one of each shape."""
    from ..evaluators.latency import LayerShape

    found: dict[object, LayerShape] = {}
    for layer in sorted(problem.anatomy.layers, key=lambda layer: -layer.macs):
        if layer.kind == "conv2d" and layer.weight_shape[2] == layer.weight_shape[3] and layer.weight_shape[2] % 2:
            stride = max(1, round(layer.input_shape[-1] / layer.output_shape[-1]))
            shape = LayerShape(
                operator="conv2d", weight=layer.weight_shape, input=layer.input_shape, groups=layer.groups,
                stride=stride,
            )  # fmt: skip
        elif layer.kind == "linear":
            rows = 1
            for side in layer.input_shape[:-1]:
                rows *= side
            shape = LayerShape(operator="linear", weight=layer.weight_shape, input=(rows, layer.weight_shape[1]))
        else:
            continue
        found.setdefault((shape.operator, shape.weight, shape.input, shape.groups), shape)
    return list(found.values())[:SLOWEST]


def _table(problem: Problem, runtime: str, threads: int, models: int, seconds: float) -> LatencyTable:
    from ..evaluators.prediction import measure_table
    from ..search.task import runtime_options

    options = runtime_options(problem.task, [one.profile for one in problem.devices], runtime)
    return measure_table(
        problem.context.model, problem.anatomy, problem.context.calibration, problem.calibration_inputs,
        [(group.layers, group.levels) for group in problem.space.groups], runtime=runtime, threads=threads,
        digest=problem.model_digest, options=options, n_models=models, max_seconds=seconds,
        say=lambda done, total: console.say(f"… model {done} of {total}") if done % 10 == 0 else None,
    )  # fmt: skip


def _table_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.latency.json")


def _tell(figures: MachineFigures, made: HardwareProfile, table: LatencyTable | None, out: Path | None) -> None:
    console.err().print(figures_table(figures))
    for name, figure in (*figures.rates_gmac_s.items(), *figures.bandwidth_gb_s.items(), *figures.overhead_us.items()):
        console.say(f"{name}: {fmt.significant(figure.value)} {figure.unit}")
    faster = [form for form, is_native in figures.natively.items() if is_native]
    console.say(f"{figures.cpu}, {figures.runtime} {figures.runtime_version}, {figures.runtime_threads} thread(s)")
    console.say(f"runs faster than FP32 here, for some layer at least: {', '.join(faster) or 'nothing'}")
    for rule in made.lowering:
        if rule.note.startswith("measured"):
            kinds = ", ".join(rule.when.kinds or ("all",))
            said = " depthwise" if rule.when.depthwise else ""
            console.say(f"{kinds}{said}, {_asked(rule.when)}: {rule.runs_as.kernel}; {rule.note}")
    if table is not None:
        quality = table.quality()
        console.say(
            f"{quality.n} models measured in {table.seconds:.0f} s, each predicted from the others within "
            f"{100 * quality.mape:.1f} % (worst {100 * quality.worst:.1f} %); the original: {table.original_ms:.4g} ms"
        )
    if out is not None:
        console.say(f"next: [hardware] profile = {_toml(out)}")
        if table is not None:
            console.say(f"      [hardware] latency_table = {_toml(_table_path(out))}")


def _toml(path: Path) -> str:
    """Write a path as a string of TOML (a JSON string is one)."""
    return json.dumps(str(path), ensure_ascii=False)


def _asked(when: Match) -> str:
    """Name what the rule asks for: `INT8`, or zeros, or everything else."""
    if when.activation_bits == (8,):
        return "INT8" + (f" from {when.min_channels} channels on" if when.min_channels else "")
    return "zeros" if when.patterns or when.min_sparsity else "everything else"


def figures_table(figures: MachineFigures) -> Table:
    """Make a table with a row for each layer and form: time, speedup over FP32, and the kernel that ran."""
    from ._tables import escape, table

    made = table("layer", "form", "time", "faster", "rate", "ran", right=["time", "faster", "rate"])
    for kernel in figures.kernels:
        if kernel.ms is None:
            continue
        made.add_row(
            escape(f"{kernel.operator} {kernel.shape}"), kernel.form, fmt.value("ms", kernel.ms, "ms"),
            fmt.times(kernel.speedup), f"{fmt.significant(kernel.gmac_s or 0.0)} GMAC/s", escape(kernel.kernel),
        )  # fmt: skip
    return made
