"""A searcher from outside the package: keeps the contract, proposes the trials of a run, and goes on with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.errors import InputError
from paredown.search import Task, open_run, resume, search, verify_artifact
from paredown.search.searchers import SEARCHERS
from paredown.testing import check_searcher


def test_it_leads_a_search_and_is_resumed(recipe: Callable[..., Task], tmp_path: Path) -> None:
    front = search(recipe("A searcher", "space.activation_bits=[32]"), out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    proposed = [trial.candidate.levels for trial in run.trials if trial.kind == "mixed"]
    assert len(proposed) == 4
    assert all(point.verified for point in front.points)
    assert verify_artifact(tmp_path / "run" / "verified" / front.points[-1].id, task=tmp_path / "run")["ok"]
    resume(tmp_path / "run", workers=0)
    assert [t.candidate.levels for t in open_run(tmp_path / "run").trials if t.kind == "mixed"] == proposed


def test_it_keeps_the_contract(recipe: Callable[..., Task]) -> None:
    from paredown.search.task import Plugins

    Plugins.of(recipe("A searcher")).load()
    factory = SEARCHERS["screened"].load()
    check_searcher(factory)


def test_a_misspelled_name_is_refused_before_anything_is_measured(recipe: Callable[..., Task], tmp_path: Path) -> None:
    task = recipe("A searcher", "search.searcher=screend")
    with pytest.raises(
        InputError, match=r"searcher must be one of .*screened, .*, got 'screend'; did you mean screened"
    ):
        search(task, out=tmp_path / "run", workers=0)
    assert not open_run(tmp_path / "run").trials
