"""One BLAS thread in the driver, and as many as before afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from paredown.search import Front, Progress, Task
from paredown.search.phases import one_blas_thread


def _threads() -> list[int]:
    np.linalg.eigvalsh(np.eye(1))
    return [library.num_threads for library in ThreadpoolController().select(internal_api="openblas").lib_controllers]


@pytest.fixture
def two_threads() -> Iterator[None]:
    if not _threads():
        pytest.skip("this numpy has no OpenBLAS")
    with ThreadpoolController().select(internal_api="openblas").limit(limits=2):
        yield


def test_one_thread_within_and_as_before_afterwards(two_threads: None) -> None:
    before = _threads()
    with one_blas_thread():
        assert set(_threads()) == {1}
    assert _threads() == before


def test_as_before_after_an_error_too(two_threads: None) -> None:
    before = _threads()
    with pytest.raises(RuntimeError, match="planted"), one_blas_thread():
        raise RuntimeError("planted")
    assert _threads() == before


def test_a_search_proposes_in_one_thread(
    two_threads: None, tiny_task: Callable[..., Task], tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    seen: set[int] = set()

    def looked_at(progress: Progress) -> None:
        if progress.phase == "search":
            seen.update(_threads())

    search_unverified(tiny_task(), out=tmp_path / "run", workers=0, progress=looked_at)
    assert seen == {1}
