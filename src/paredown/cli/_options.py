"""Arguments and options of several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; docs/json.md lists its keys.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Ray workers; 0 searches in this process. Default: one for each core.", show_default=False
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="Address of a running Ray cluster. Default: this machine.", show_default=False),
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.", show_default=False)]
