"""Report of `paredown doctor`: what is installed, what is missing, and how to get it. It uses no network."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..search.task import _machine as here
from . import _format as fmt
from ._tables import facts_table, table

if TYPE_CHECKING:
    from rich.console import RenderableType

FOLDERS = ("search", "compressors", "evaluators", "hardware_profiles")
"""Parts of the package that lie at the top of a checkout."""

_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}


def examine() -> dict[str, Any]:
    """Make the report, JSON-ready (docs/json.md lists its keys).

    `ok` is false if a search cannot run; `problems` then says why.
    """
    environment = here.environment()
    packages = environment["packages"]
    problems = [f"{name} is not installed; pip install paredown" for name in here.CORE[1:] if packages[name] is None]
    folders = {name: _folder(name) for name in FOLDERS}
    problems += [f"paredown.{name}: {state}" for name, state in folders.items() if not state.startswith("ok")]
    runtimes = _runtimes(can_import=not problems)
    extras = {
        extra: {
            "installed": not (missing := [name for name in names if packages[name] is None]),
            "missing": missing,
            "how": f"pip install 'paredown[{extra}]'" if missing else "",
        }
        for extra, names in here.EXTRAS.items()
    }
    return {
        "ok": not problems,
        "problems": problems,
        "machine": {key: environment[key] for key in environment if key != "packages"},
        "packages": packages,
        "extras": extras,
        "runtimes": runtimes,
        "folders": folders,
        "telemetry_off_during_runs": sorted(_TELEMETRY),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI"),
    }


def _folder(name: str) -> str:
    """Say how `paredown.<name>` is found (installed, or by a link in a checkout), or else what to do."""
    beside = Path(__file__).parents[1] / name
    spec = find_spec(f"paredown.{name}")
    if spec is not None and spec.origin is not None:
        return f"ok (link to {os.readlink(beside)})" if beside.is_symlink() else f"ok ({Path(spec.origin).parent})"
    if beside.is_file():
        return (
            f"{beside} should be a symbolic link and is a text file: this checkout was made without symbolic links "
            "(git config core.symlinks); `pip install .` or `pip install -e .` works without them"
        )
    if beside.is_symlink():
        return f"{beside} links to {os.readlink(beside)}, which is not there; check out the whole repository"
    return "not found; install paredown again"


def _runtimes(*, can_import: bool) -> dict[str, dict[str, Any]]:
    """Ask each runtime whether it can be used here, and if not, how to get it. Keys are names of runtimes."""
    if not can_import:
        return {}
    from ..evaluators.runtimes import get_runtime, list_runtimes

    found = {}
    for name in list_runtimes():
        how = get_runtime(name).available()
        found[name] = {"available": how is None, "how": how or "", "version": here.version_of(name)}
    return found


def tables(report: dict[str, Any]) -> list[RenderableType]:
    """Make the tables that show the report to people."""
    from rich.text import Text

    machine = dict(report["machine"])
    memory = machine.pop("memory_bytes")
    facts = facts_table({**machine, "memory": None if memory is None else fmt.n_bytes(memory)})
    packages = table("package", "version", "")
    needed_by = {name: extra for extra, names in reversed(here.EXTRAS.items()) for name in names}
    for name, version in report["packages"].items():
        if name == "paredown" and version is None:
            packages.add_row(name, "not installed", "running from a checkout")
            continue
        extra = needed_by.get(name)
        advice = "" if version else (f"pip install 'paredown\\[{extra}]'" if extra else "needed")
        packages.add_row(
            name, version or "missing", advice, style=None if version else ("yellow" if extra else "bold red")
        )
    runtimes = table("runtime", "version", "")
    for name, state in report["runtimes"].items():
        runtimes.add_row(
            name, state["version"] or fmt.DASH, "ready" if state["available"] else Text(state["how"], style="yellow")
        )
    folders = table("part", "found")
    for name, state in report["folders"].items():
        folders.add_row(f"paredown.{name}", Text(state, style="" if state.startswith("ok") else "bold red"))
    return [facts, packages, runtimes, folders]
