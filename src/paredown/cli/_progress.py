"""Progress of a long run on stderr: one live panel on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from . import _console
from . import _format as fmt

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..search import Progress

PHASES = ("load", "store", "baselines", "table", "search", "export", "verify", "report", "done")
"""Phases in the order of a search. They are not imported, so the panel can appear before anything heavy is loaded."""

LINE_EVERY_S = 10.0
"""Least time between two plain lines of the same phase."""


class Display(Protocol):
    """Context manager that is called with each `Progress`."""

    def __call__(self, progress: Progress) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def display(title: str) -> Display:
    """Make the live panel if stderr is a terminal that can move its cursor, else plain lines."""
    console = _console.err()
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return Panel(title)
    return Lines()


class Lines:
    """Plain lines: one when the phase changes, then one every `LINE_EVERY_S`. Each message is written at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] | None = None) -> None:
        self._clock = clock
        self._write = write or _to_stderr
        self._phase = self._message = ""
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if progress.message and progress.message != self._message:
            self._message = progress.message
            self._write(progress.message)
        if progress.phase in ("", self._phase) and (not progress.phase or now - self._at < LINE_EVERY_S):
            return
        self._phase, self._at = progress.phase, now
        self._write(line(progress))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def line(progress: Progress) -> str:
    """Format one line:
    `search 37/150 · 2 failed · 62 s used, 190 s left · hypervolume 0.412 · best accuracy 98.20 %, bytes 12.3 kB`.
    """
    parts = [f"{progress.phase} {progress.done}/{progress.total}" if progress.total else progress.phase]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.phase != "done":
        parts.append(_time(progress.spent_s, progress.left_s))
    else:
        parts.append(f"{fmt.seconds(progress.spent_s)} used")
    if progress.hypervolume is not None:
        parts.append(f"hypervolume {fmt.significant(progress.hypervolume, 4)}")
    if progress.best:
        parts.append(f"best {_best(progress.best)}")
    return " · ".join(parts)


def _time(spent_s: float, left_s: float | None) -> str:
    used = f"{fmt.seconds(spent_s)} used"
    return used if left_s is None else f"{used}, {fmt.seconds(left_s)} left"


def _best(best: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {fmt.value(name, value)}" for name, value in best.items())


class Panel:
    """Panel at the foot of the terminal. It is redrawn in place, and disappears when the run is over."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._title = title
        self._clock = clock
        self._progress: Progress | None = None
        self._message = ""
        self._at = clock()
        self._live = Live(
            get_renderable=self.render,
            console=_console.err(),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )

    def __call__(self, progress: Progress) -> None:
        from rich.text import Text

        if progress.message and progress.message != self._message:
            self._message = progress.message
            self._live.console.print(Text(progress.message))
        if progress.phase:
            self._progress, self._at = progress, self._clock()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        from rich.panel import Panel as Frame
        from rich.text import Text

        progress = self._progress
        body: RenderableType = Text("starting …") if progress is None else self._body(progress)
        return Frame(body, title=Text(self._title), title_align="left", border_style="cyan", padding=(0, 1))

    def _body(self, progress: Progress) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column()
        rows.add_row("phase", _phases(progress.phase))
        if progress.total:
            bar = Table.grid(padding=(0, 2))
            bar.add_row(
                ProgressBar(total=progress.total, completed=min(progress.done, progress.total), width=36),
                Text(f"{progress.done} of {progress.total}"),
                Text(f"{progress.failed} failed", style="bold red")
                if progress.failed
                else Text("none failed", style="dim"),
            )
            rows.add_row("trials" if progress.phase in ("baselines", "search", "finalists") else "done", bar)
        passed = self._clock() - self._at  # the clock goes on between two reports
        left = None if progress.left_s is None else max(0.0, progress.left_s - passed)
        rows.add_row("budget", Text(_time(progress.spent_s + passed, left)))
        if progress.hypervolume is not None:
            rows.add_row("hypervolume", Text(fmt.significant(progress.hypervolume, 4)))
        if progress.best:
            rows.add_row("best so far", Text(_best(progress.best)))
        return rows


def _phases(current: str) -> RenderableType:
    """Show all phases in order, the present one in bold. The promotion of finalists is a part of the search."""
    from rich.text import Text

    text, current = Text(), "search" if current == "finalists" else current
    passed = True
    for phase in PHASES[:-1]:
        if phase == current:
            passed = False
            text.append(phase, style="bold cyan")
        else:
            text.append(phase, style="green" if passed else "dim")
        if phase != PHASES[-2]:
            text.append(" › ", style="dim")
    return text
