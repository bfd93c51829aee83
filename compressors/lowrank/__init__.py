"""Low-rank factorization: thin matrices in place of one weight.

It knows `registry` and `anatomy`. `README.md` here lists forms and methods. Begin with `_forms.py` (the shapes of the
parts) and `_factorize.py` (a method put to work on each form). A new method is one file like `_svd.py`.
"""

from ._asvd import asvd
from ._cards import CARDS
from ._factorize import factorize
from ._forms import PARTS, full_rank, input_moments, misfit, part_kernels, part_macs, part_shapes, product, unfolded
from ._svd import energy_rank, kept_rank, rank_share, svd

__all__ = [
    "CARDS",
    "PARTS",
    "asvd",
    "energy_rank",
    "factorize",
    "full_rank",
    "input_moments",
    "kept_rank",
    "misfit",
    "part_kernels",
    "part_macs",
    "part_shapes",
    "product",
    "rank_share",
    "svd",
    "unfolded",
]
