"""Products with a sparse matrix in each format: matrix times vector, matrix times matrix.

By scipy where it has the format (CSR, CSC, COO, BSR, DIA; CSR by torch for matrices); the others by gathering the
entries of the right side that a format names, and summing them: in rows of one length (ELLPACK, N:M), or from pointer
to pointer (bitmap, gaps). All of them compute in float32, and are checked against the dense product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._base import Pattern

Matrix = NDArray[np.float32]
Product = Callable[[Matrix], Matrix]
"""Type of a product: x (C,) or (C, B) -> W x, (R,) or (R, B)."""


def product(weight: Matrix, name: str, *, block: tuple[int, int] | None = None) -> Product:
    """Make the product with `weight` (R, C) float32, which is converted to the format first.

    name   a format of `SPARSE_FORMATS`, or "dense"
    block  of BSR; both must divide the shape. Default: the block of `best_block`

    Raises `ValueError` for an unknown name, or a shape that BSR's blocks do not divide.
    """
    if name == "dense":
        return lambda x: weight @ x
    if name not in _MADE:
        raise ValueError(f"there is no product in the format {name!r}; known are dense, {', '.join(_MADE)}")
    if name == "bsr":
        return _scipy(_bsr(weight, block or best_block(weight)))
    return _MADE[name](weight)


def best_block(weight: Matrix) -> tuple[int, int]:
    """Block shape with the fewest entries in nonzero blocks, among shapes that divide the matrix."""
    rows, columns = weight.shape
    shapes = [(r, c) for r in (1, 2, 4, 8, 16, 32) for c in (1, 2, 4, 8, 16, 32) if rows % r == 0 and columns % c == 0]
    pattern = Pattern(weight != 0)
    # a block costs an index, about as much as two values
    return min(shapes, key=lambda shape: pattern.blocks(*shape).n * (shape[0] * shape[1] + 2))


def _scipy(matrix: Any) -> Product:
    n_rows = matrix.shape[0]
    return lambda x: (matrix @ x).reshape(n_rows, *x.shape[1:])  # COO makes a number of one row


def _csr(weight: Matrix) -> Product:
    """CSR product. scipy for vectors, torch (MKL) for matrices: at batch 16 torch took two fifths of scipy's time, at 1
    the same.
    """
    import torch
    from scipy import sparse

    by_scipy = _scipy(sparse.csr_array(weight))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")  # products are checked
        by_torch = torch.from_numpy(np.ascontiguousarray(weight)).to_sparse_csr()

    def multiply(x: Matrix) -> Matrix:
        if x.ndim == 1:
            return by_scipy(x)
        found: Matrix = (by_torch @ torch.from_numpy(x)).numpy()
        return found

    return multiply


def _csc(weight: Matrix) -> Product:
    from scipy import sparse

    return _scipy(sparse.csc_array(weight))


def _coo(weight: Matrix) -> Product:
    from scipy import sparse

    return _scipy(sparse.coo_array(weight))


def _dia(weight: Matrix) -> Product:
    from scipy import sparse

    rows, columns = np.nonzero(weight)
    offsets, which = np.unique(columns - rows, return_inverse=True)
    data = np.zeros((len(offsets), weight.shape[1]), dtype=np.float32)
    data[which, columns] = weight[rows, columns]
    return _scipy(sparse.dia_array((data, offsets), shape=weight.shape))


def _bsr(weight: Matrix, block: tuple[int, int]) -> Any:
    from scipy import sparse

    if weight.shape[0] % block[0] or weight.shape[1] % block[1]:
        raise ValueError(f"blocks of {block} do not divide a matrix of {weight.shape}")
    return sparse.bsr_array(weight, blocksize=block)


def _ell(weight: Matrix) -> Product:
    """ELLPACK product, every row padded to the longest: gather, multiply, sum along the row."""
    mask = weight != 0
    n = max(int(np.count_nonzero(mask, axis=1).max(initial=0)), 1)
    columns = np.sort(np.argsort(~mask, axis=1, kind="stable")[:, :n], axis=1)
    return _rows(np.take_along_axis(weight, columns, axis=1), columns)


def _nm(weight: Matrix) -> Product:
    """N:M product by groups of four, padded to the fullest group; a row of groups is a row of ELLPACK."""
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 4)))
    groups = padded.reshape(-1, 4)
    n = max(int(np.count_nonzero(groups, axis=1).max(initial=0)), 1)
    places = np.sort(np.argsort(groups == 0, axis=1, kind="stable")[:, :n], axis=1)
    first = np.tile(np.arange(0, padded.shape[1], 4), weight.shape[0])[:, None]
    values = np.take_along_axis(groups, places, axis=1).reshape(weight.shape[0], -1)
    columns = np.minimum(first + places, weight.shape[1] - 1)  # behind the end the value is 0
    return _rows(values, columns.reshape(weight.shape[0], -1))


def _rows(values: Matrix, columns: NDArray[np.intp]) -> Product:
    def multiply(x: Matrix) -> Matrix:
        found: Matrix
        if x.ndim == 1:
            found = np.einsum("rk,rk->r", values, x[columns])
        else:
            found = np.matmul(values[:, None, :], x[columns])[:, 0]
        return found

    return multiply


def _pointers(weight: Matrix) -> Product:
    """Product for entries in the order of the matrix, as a bitmap or gaps give them; summed between row pointers."""
    rows, columns = np.nonzero(weight)
    values = weight[rows, columns]
    filled, starts = np.unique(rows, return_index=True)

    def multiply(x: Matrix) -> Matrix:
        found = np.zeros((weight.shape[0], *x.shape[1:]), dtype=np.float32)
        if len(starts):
            parts = values * x[columns] if x.ndim == 1 else values[:, None] * x[columns]
            found[filled] = np.add.reduceat(parts, starts, axis=0)
        return found

    return multiply


_MADE: dict[str, Callable[[Matrix], Product]] = {
    "bitmap": _pointers,
    "coo": _coo,
    "csr": _csr,
    "csc": _csc,
    "bsr": lambda weight: _scipy(_bsr(weight, best_block(weight))),
    "ell": _ell,
    "dia": _dia,
    "nm": _nm,
    "gaps": _pointers,
    "blockmap": _pointers,
}
PRODUCTS = ("dense", *_MADE)
"""Names that `product` accepts."""
