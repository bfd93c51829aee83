"""Opening a run's folder, where something is missing or of another version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.errors import IntegrityError
from paredown.search import Task, open_run, resume
from paredown.search.run import create_run

MakeTask = Callable[..., Task]


def test_a_ledger_that_is_gone_is_named(tiny_task: MakeTask, tmp_path: Path) -> None:
    _, ledger = create_run(tmp_path / "run", tiny_task())
    ledger.close()
    ledger.path.unlink()
    for opens in (open_run, resume):
        with pytest.raises(IntegrityError, match=r"has a task\.json but no ledger\.log"):
            opens(tmp_path / "run")


@pytest.mark.parametrize(
    "record", [{"type": "row", "group": 1}, {"type": "trial", "status": "paused", "levels": []}, {"kind": "row"}]
)
def test_a_record_of_another_version_is_refused_in_words(
    tiny_task: MakeTask, tmp_path: Path, record: dict[str, object]
) -> None:
    _, ledger = create_run(tmp_path / "run", tiny_task())
    with ledger:
        ledger.append(record)
    with pytest.raises(IntegrityError, match="this version of paredown cannot read"):
        open_run(tmp_path / "run")
    with pytest.raises(IntegrityError, match="this version of paredown cannot read"):
        create_run(tmp_path / "run", tiny_task())
