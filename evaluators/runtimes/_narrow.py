"""Weight-only integers of a linear layer in the form of ONNX Runtime and OpenVINO: `MatMulNBits`, 4 or 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ...compressors import EvenCodes, Variant
    from ...hardware_profiles import Blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NarrowWeight:
    """Weight as (code - zero) * scale in blocks of columns, as `MatMulNBits` has it.

    codes   (out, blocks, block * bits / 8) uint8, the lower half of a byte first
    scales  (out, blocks) float32
    zeros   (out, ceil(blocks * bits / 8)) uint8, packed alike; None where all are the middle one
    """

    bits: int
    block: int
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowRule:
    """Rule for the weights that a runtime multiplies as codes, because that is no slower.

    It comes from the shipped profile of the runtime (`narrow_rule`), so that the modelled and the exported form cannot
    differ.

    bits       widths that it has kernels for; a weight of fewer bits is widened to the next
    from_size  weights of a layer, at least
    blocks     columns that share a scale in the kernels
    """

    bits: tuple[int, ...]
    from_size: int
    blocks: Blocks

    def of(self, variant: Variant) -> NarrowWeight | None:
        """Narrow form of a weight; None where it must run as FP32."""
        weight = variant.effective
        bits = next((bits for bits in self.bits if variant.spec.weight_bits <= bits), None)
        if weight.dim() != 2 or bits is None or weight.numel() < self.from_size:
            return None
        even = variant.even_codes()
        if even is None:
            return None
        block = self.blocks.of(even.group, even.codes.shape[1])
        if block is None:
            return None
        return _blocked(even, variant.spec.weight_bits, bits, block)


def _blocked(even: EvenCodes, own_bits: int, bits: int, block: int) -> NarrowWeight:
    rows, columns = even.codes.shape
    blocks = -(-columns // block)
    of_block = np.minimum(np.arange(blocks) * block // even.group, even.scale.shape[1] - 1)
    scales = even.scale.numpy()[:, of_block]
    zeros = even.zero.numpy()[:, of_block].astype(np.int16)
    shift = 2 ** (bits - 1) - 2 ** (own_bits - 1)  # a symmetric code keeps its distance from the middle
    codes = np.empty((rows, blocks * block), np.int16)
    codes[:, :columns] = even.codes.numpy()
    middle = bool((zeros == 2 ** (own_bits - 1)).all())
    if middle:
        codes, zeros = codes + shift, zeros + shift
    codes[:, columns:] = zeros[:, -1:]  # what is padded counts nothing
    return NarrowWeight(
        bits=bits,
        block=block,
        codes=_packed(codes, bits).reshape(rows, blocks, -1),
        scales=np.ascontiguousarray(scales),
        zeros=None if middle else _packed(zeros, bits),
    )


def _packed(values: npt.NDArray[np.int16], bits: int) -> npt.NDArray[np.uint8]:
    """Pack (rows, n) numbers of 4 or 8 bits to (rows, bytes)."""
    codes: npt.NDArray[Any] = values.astype(np.uint8)
    if bits == 8:
        return np.ascontiguousarray(codes)
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    packed: npt.NDArray[np.uint8] = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return packed
