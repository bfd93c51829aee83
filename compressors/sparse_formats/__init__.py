"""Where a matrix has values: ten ways to store that, the rule that picks one, and products with what is stored."""

from __future__ import annotations

from ._base import ByteSource, Encoded, Format, Pattern, Plan, Source, check_width
from ._crossover import Choice, fastest
from ._formats import SPARSE_FORMATS, decode, encode, encode_as, plans, smallest
from ._products import PRODUCTS, product

__all__ = [
    "PRODUCTS",
    "SPARSE_FORMATS",
    "ByteSource",
    "Choice",
    "Encoded",
    "Format",
    "Pattern",
    "Plan",
    "Source",
    "check_width",
    "decode",
    "encode",
    "encode_as",
    "fastest",
    "plans",
    "product",
    "smallest",
]
