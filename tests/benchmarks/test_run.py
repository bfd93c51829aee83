"""A real run, small: every kind of player on DS-CNN, cut off and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from searchbench import play

pytestmark = pytest.mark.assets


@pytest.mark.parametrize("searcher", ["evolution", "hawq-v3", "spdy", "evopress"])
def test_a_run_that_was_cut_off_comes_to_the_same(searcher: str, assets: Path, tmp_path: Path) -> None:
    """20 samples an evaluation, so that it takes seconds; what it spends is in the ledger, to the pass. A table is as
    large as the search may cost: the one that is cut off was to cost as much."""
    whole = play.run("dscnn-bits", searcher, 0, evaluations=90, work=tmp_path / "whole", samples=20)
    play.run("dscnn-bits", searcher, 0, evaluations=80, work=tmp_path / "parts", samples=20, table_for=90)
    again = play.run("dscnn-bits", searcher, 0, evaluations=90, work=tmp_path / "parts", samples=20)
    assert again.points == whole.points
    assert again.booked == whole.booked
    assert whole.evaluations >= 90
    assert whole.booked["baselines"] == 6 * 20  # one for each width
