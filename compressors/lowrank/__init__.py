"""Thin matrices for one. `README.md` here lists forms and methods."""

from ._asvd import asvd
from ._factorize import factorize
from ._forms import PARTS, full_rank, misfit, part_kernels, part_macs, part_shapes, unfolded
from ._svd import energy_rank, kept_rank, rank_share, svd

__all__ = [
    "PARTS",
    "asvd",
    "energy_rank",
    "factorize",
    "full_rank",
    "kept_rank",
    "misfit",
    "part_kernels",
    "part_macs",
    "part_shapes",
    "rank_share",
    "svd",
    "unfolded",
]
