"""What stands before the first proposal, where it goes wrong."""

from __future__ import annotations

import pytest

from paredown.errors import IntegrityError, ParedownError, TaskError
from paredown.search._groundwork import _build_error


@pytest.mark.parametrize(
    ("why", "kind", "says"),
    [
        ("IntegrityError: x.safetensors is damaged", IntegrityError, "x.safetensors is damaged"),
        ("OSError: [Errno 28] No space left", ParedownError, "the variants of fc could not be stored: [Errno 28] No"),
        ("SpecError: rank is odd", TaskError, "layer fc cannot be compressed: SpecError: rank is odd; leave it alone"),
    ],
)
def test_a_layer_is_not_blamed_for_the_store(why: str, kind: type[ParedownError], says: str) -> None:
    error = _build_error("fc", why)
    assert type(error) is kind
    assert str(error).startswith(says)
