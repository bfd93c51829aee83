"""Storage formats for the positions of nonzeros: ten formats, the rule that picks one, and products with the stored
form.

It knows `files`. Begin with `_base.py`, whose docstring defines a format. A new format is one file here and one entry
in `_formats.py`. `README.md` compares them.
"""

from ._base import ByteSource, Encoded, Format, Pattern, Plan, Source, check_width
from ._crossover import STRUCTURES, Choice, crossover, fastest, made, measure, structure_of
from ._formats import SPARSE_FORMATS, decode, encode, encode_as, plans, smallest
from ._products import PRODUCTS, product

__all__ = [
    "PRODUCTS",
    "SPARSE_FORMATS",
    "STRUCTURES",
    "ByteSource",
    "Choice",
    "Encoded",
    "Format",
    "Pattern",
    "Plan",
    "Source",
    "check_width",
    "crossover",
    "decode",
    "encode",
    "encode_as",
    "fastest",
    "made",
    "measure",
    "plans",
    "product",
    "smallest",
    "structure_of",
]
