"""Two thin matrices for one (`_svd`)."""

from ._svd import kept_rank, svd

__all__ = ["kept_rank", "svd"]
