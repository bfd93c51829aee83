"""What stands before the first proposal, where it goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.errors import IntegrityError, ParedownError, TaskError
from paredown.search import Task, open_run
from paredown.search.phases import build_error
from paredown.search.problem import SAME_OUTPUTS


@pytest.mark.parametrize(
    ("why", "kind", "says"),
    [
        ("IntegrityError: x.safetensors is damaged", IntegrityError, "x.safetensors is damaged"),
        ("OSError: [Errno 28] No space left", ParedownError, "the variants of fc could not be stored: [Errno 28] No"),
        ("SpecError: rank is odd", TaskError, "layer fc cannot be compressed: SpecError: rank is odd; leave it alone"),
    ],
)
def test_a_layer_is_not_blamed_for_the_store(why: str, kind: type[ParedownError], says: str) -> None:
    error = build_error("fc", why)
    assert type(error) is kind
    assert str(error).startswith(says)


@pytest.mark.parametrize(
    ("override", "name", "indifference_threshold"),
    [
        ("quality.max_loss=0.1", "divergence", SAME_OUTPUTS),
        ("quality.divergence=mse", "divergence", -math.inf),  # no nats: what is little there, no one knows
        ("quality.guide=metric", "accuracy", -math.inf),
        ("limits.divergence={max=1e-5}", "divergence", 1e-5),
        ("limits.divergence={max=1.0}", "divergence", SAME_OUTPUTS),
    ],
)
def test_what_is_good_enough_is_written_down(
    tiny_task: Callable[..., Task], open_session: Callable[..., object], tmp_path: Path, override: str, name: str,
    indifference_threshold: float,
) -> None:  # fmt: skip
    with open_session(tiny_task(override), tmp_path) as session:  # type: ignore[attr-defined]
        quality = session.problem.guide[0]
        assert (quality.name, quality.indifference_threshold) == (name, indifference_threshold)
        assert open_run(tmp_path / "run").facts().guide == session.problem.guide
