"""The live panel and the plain lines."""

import io

import pytest
from rich.console import Console

from paredown.cli import _console, _progress
from paredown.search import Progress

LATE = Progress(
    phase="search",
    done=37,
    total=150,
    failed=2,
    spent_s=62.0,
    left_s=190.0,
    hypervolume=0.41234,
    best={"accuracy": 0.982, "bytes": 12345.0},
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_line():
    assert _progress.line(LATE) == (
        "search 37/150 · 2 failed · 1 m 02 s used, 3 m 10 s left · hypervolume 0.4123"
        " · best accuracy 98.20 %, bytes 12.3 kB"
    )
    assert _progress.line(Progress(phase="load")) == "load · 0 s used"


def test_lines_are_few_but_every_phase_and_message_is_there():
    clock, lines = Clock(), []
    show = _progress.Lines(clock, lines.append)
    with show:
        for i in range(1000):
            clock.now = 0.1 * i  # a hundred seconds
            show(Progress(phase="search", done=i, total=1000))
        show(Progress(phase="", message="a layer is left alone"))
        show(Progress(phase="", message="a layer is left alone"))
        show(Progress(phase="done", spent_s=100))
    assert [text.split()[1] for text in lines[:3]] == ["0/1000", "100/1000", "200/1000"]
    assert lines[-2:] == ["a layer is left alone", "done · 1 m 40 s used"]
    assert len(lines) == 12


def test_no_terminal_no_panel(capsys):
    with _progress.display("run") as show:
        show(LATE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("search 37/150")
    assert "\x1b" not in captured.err


@pytest.fixture
def terminal(monkeypatch):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=30, color_system="truecolor", _environ={}
    )
    monkeypatch.setattr(_console, "err", lambda: console)
    return console


def text_of(panel):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(panel.render())
    return console.file.getvalue()


def test_panel_shows_everything_of_the_progress(terminal):
    panel = _progress.Panel("paredown · runs/demo", Clock())
    assert "starting" in text_of(panel)
    panel(LATE)
    text = text_of(panel)
    for part in (
        "runs/demo",
        "load › store › baselines › table › search › export › verify › report",
        "37 of 150",
        "2 failed",
        "1 m 02 s used, 3 m 10 s left",
        "0.4123",
        "accuracy 98.20 %, bytes 12.3 kB",
    ):
        assert part in text


def test_the_finalists_are_part_of_the_search(terminal):
    def bold(phase):
        text = _progress._phases(phase)
        return [text.plain[span.start : span.end] for span in text.spans if "bold" in str(span.style)]

    assert bold("finalists") == bold("search") == ["search"]
    assert bold("export") == ["export"]


def test_the_panels_clock_goes_on_between_two_reports(terminal):
    clock = Clock()
    panel = _progress.Panel("run", clock)
    panel(LATE)
    clock.now = 30.0
    assert "1 m 32 s used, 2 m 40 s left" in text_of(panel)
    clock.now = 1000.0
    assert "0 s left" in text_of(panel)


def test_a_message_stays_above_the_panel_and_the_panel_goes(terminal):
    panel = _progress.Panel("run", Clock())
    with panel:
        panel(LATE)
        panel(Progress(phase="", message="left alone: [head]"))
        assert "search" in text_of(panel)  # a mere message does not hide the phase
    assert terminal.file.getvalue().count("left alone: [head]") == 1


def test_the_panel_ends_with_an_exception(terminal):
    def work():
        with _progress.Panel("run", Clock()) as panel:
            panel(LATE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "\x1b[?25h" in terminal.file.getvalue()  # the cursor is shown again
