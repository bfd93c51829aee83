"""The version of the ledger's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 4
"""Version of the records that this paredown writes. The records "started" and "facts" carry it as `schema_version`.

1  no record carries a version; keys of the facts that came later have defaults
2  the facts are a `RunFacts` with exactly its fields; layers of the anatomy have `residual_output` for `sum_after`, and
   `relu_before_mean` for `relu_behind`
3  the facts have `quality_is` and `outputs`; `scores` of a verified point may be rows
4  the facts have `repair`
"""


def schema_version(record: Mapping[str, Any]) -> int:
    """Return the version of the format that a record was written in; 1 where it does not say."""
    return int(record.get("schema_version", 1))
