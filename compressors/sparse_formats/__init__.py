"""Where a matrix has values: nine ways to store that, the rule that picks one, and products with what is stored."""

from __future__ import annotations

from ._base import ByteSource, Encoded, Format, Pattern, Plan, Source, check_width
from ._formats import SPARSE_FORMATS, decode, encode, encode_as, plans, smallest

__all__ = [
    "SPARSE_FORMATS",
    "ByteSource",
    "Encoded",
    "Format",
    "Pattern",
    "Plan",
    "Source",
    "check_width",
    "decode",
    "encode",
    "encode_as",
    "plans",
    "smallest",
]
