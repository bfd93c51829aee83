"""Text of the parent run's page in MLflow: picks, the front, where the time went. MLflow is not imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...evaluators import Measurement
    from ..front import Front

MAX_NOTE = 8000
"""Most letters of a tag, and so of a run's description."""
_WORTH_NAMING_S = 0.05
"""Shorter times are not listed."""


def front_tags(front: Front | None, seconds: Mapping[str, float], spent_s: float) -> dict[str, str]:
    """Tags of the parent run: the picks, by which runs can be found, and the description.

    seconds  purpose -> wall clock
    spent_s  wall clock of the whole run
    """
    picks = {} if front is None else {f"pick.{name}": point_id for name, point_id in front.picks.items()}
    return {**picks, "mlflow.note.content": note(front, seconds, spent_s)}


def note(front: Front | None, seconds: Mapping[str, float], spent_s: float) -> str:
    """Description of the run in Markdown. The page shows its first lines; a table that is too long is cut at a row."""
    times = times_line(seconds, spent_s)
    if front is None or not front.points:
        return times or "Nothing has been evaluated yet."
    names = list(dict.fromkeys([*(o.name for o in front.objectives), "bytes", "latency_ms"]))
    names = [name for name in names if any(name in p.metrics for p in front.points)]
    marks = {p.id: ", ".join(name for name, chosen in front.picks.items() if chosen == p.id) for p in front.points}
    lines = [
        *_picks(front, names),
        *(["", times] if times else []),
        "",
        "Figures of verified points: the report split, in a fresh process. `front.html` is among the artifacts.",
        *(part for line in front.size_lines for part in ("", line)),
        *(part for line in front.star_lines for part in ("", line)),
        "",
        f"| point | kind | {' | '.join(names)} | verified | recommended | pick | note |",
        f"|---|---|{'---:|' * len(names)}---|---|---|---|",
    ]
    for p in front.points:
        if not (p.on_front or p.kind != "mixed"):
            continue
        cells = [_figure(p.metrics[name]) if name in p.metrics else "–" for name in names]
        marked = ["yes" if p.verified else "no", "★" if p.recommended else "", marks[p.id], p.note.replace("|", "/")]
        lines.append(f"| {' | '.join([p.id, p.kind, *cells, *marked])} |")
    text = lines[0]
    for line in lines[1:]:
        if len(text) + len(line) + 1 > MAX_NOTE:
            break
        text = f"{text}\n{line}"
    return text


def times_line(seconds: Mapping[str, float], spent_s: float) -> str:
    """`Where the time went (29 s): verification 17 s (59 %), mirrors 4.1 s (14 %), …`, the longest first.

    Very short times are left out, and `other` is the time without a purpose. Empty before any time is known.
    """
    if not seconds or spent_s <= 0:
        return ""
    ranked = [*sorted(seconds.items(), key=lambda item: -item[1]), ("other", spent_s - sum(seconds.values()))]
    parts = [
        f"{name} {s:.{1 if s < 10 else 0}f} s ({100 * s / spent_s:.0f} %)" for name, s in ranked if s >= _WORTH_NAMING_S
    ]
    return f"Where the time went ({spent_s:.0f} s): {', '.join(parts)}."


def _picks(front: Front, names: Sequence[str]) -> list[str]:
    """Lines on the picks, one for each point: `- **knee, smallest** t25: accuracy 0.9567, bytes 10494`."""
    if not front.picks:
        verified = any(p.verified for p in front.points)
        return ["No mixed point is recommended." if verified else "There are no picks yet."]
    lines = []
    for point in (front[point_id] for point_id in dict.fromkeys(front.picks.values())):
        picks = ", ".join(name for name, chosen in front.picks.items() if chosen == point.id)
        figures = ", ".join(f"{name} {_figure(point.metrics[name])}" for name in names if name in point.metrics)
        lines.append(f"- **{picks}** {point.id}: {figures}")
    return lines


def _figure(measured: Measurement) -> str:
    """A number, and its source if it was not measured."""
    return f"{measured.value:.5g}" + ("" if measured.source == "measured" else f" ({measured.source})")
