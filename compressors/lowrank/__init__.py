"""Thin matrices for one. `README.md` here lists forms and methods."""

from ._asvd import asvd
from ._factorize import factorize
from ._forms import PARTS, full_rank, input_moments, misfit, part_kernels, part_macs, part_shapes, product, unfolded
from ._svd import energy_rank, kept_rank, rank_share, svd

__all__ = [
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
