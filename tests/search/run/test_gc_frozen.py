"""What the collector looks at while a search runs."""

import gc
from collections.abc import Iterator

import pytest

from paredown.search.run import collector_off, freeze_gc, gc_frozen


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_the_collector_is_back_afterwards() -> None:
    with collector_off():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    with collector_off():
        pass
    assert not gc.isenabled()


def test_what_is_settled_is_the_collectors_again_afterwards() -> None:
    gc.unfreeze()
    with gc_frozen():
        freeze_gc()
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen() -> None:
    gc.freeze()
    with gc_frozen():
        freeze_gc()
    assert gc.get_freeze_count() > 0
