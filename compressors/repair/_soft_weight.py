"""Weight with soft rounding, as block reconstruction learns it (see `quantization/_soft_rounding.py`)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..quantization import Coded, Rounder, soft_variable, stretched
from ..values import LayerSpec
from ..variants import Variant, decode, load_coded, store_coded


class SoftWeight:
    """Weight whose entries lie between two neighbouring codes each; one of the two is the present code."""

    def __init__(self, variant: Variant, spec: LayerSpec, original: Tensor) -> None:
        self.spec, self.shape = spec, tuple(original.shape)
        rows = (len(original), original[0].numel())
        self.coded, survives = load_coded(variant.tensors, rows, spec)
        grid, device = self.coded.grid, original.device
        rounder = Rounder(grid, self.coded.params, rows)
        offset = torch.zeros(()) if rounder.zero is None else rounder.zero - float(rounder.half)
        codes, (low, high) = self.coded.codes.float(), grid.code_range
        decoded = variant.effective.reshape(rows)
        frozen = torch.zeros(rows, dtype=torch.bool)
        if spec.sparsity > 0.0 or survives is not None:
            frozen = decoded == 0  # another zero would need other bytes
        codes = torch.where(frozen, offset.expand(rows), codes)
        place = original.cpu().float().reshape(rows) / rounder.scale + offset
        floor = place.floor()
        base = torch.where(codes > floor + 1.0, codes - 1.0, torch.where(codes < floor, codes, floor))
        base = base.clamp(min=float(low), max=float(high - 1))
        nearest = place.round().clamp(min=float(low), max=float(high)) == codes
        share = torch.where(nearest, place - base, 0.2 + 0.6 * (codes - base)).clamp(0.01, 0.99)
        self.base, self.frozen, self.kept = base, frozen, codes
        self._floor, self._scale = ((base - offset).to(device), rounder.scale.to(device))
        self._moving = (~frozen).to(device)
        self.logit = soft_variable(share).to(device).requires_grad_()
        self.dtype = original.dtype

    def share(self) -> Tensor:
        """Position (R, C) in [0, 1] between the lower and the upper code; 0 for frozen entries."""
        return stretched(torch.sigmoid(self.logit)).clamp(0.0, 1.0) * self._moving

    def weight(self) -> Tensor:
        values = (self._floor + self.share()) * self._scale * self._moving
        return values.reshape(self.shape).to(self.dtype)

    def variant(self, before: Variant) -> Variant:
        """Variant with each code rounded to the nearer neighbour; `before` itself where that would take more bytes."""
        with torch.no_grad():
            up = (self.share() >= 0.5).cpu().float()
        codes = torch.where(self.frozen, self.kept, self.base + up).to(torch.int8)
        tensors = store_coded(Coded(codes=codes, params=self.coded.params, grid=self.coded.grid), self.spec)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if sum(tensor.nbytes for tensor in tensors.values()) > before.n_bytes:
            return before
        return dataclasses.replace(before, tensors=tensors, effective=decode(self.spec, self.shape, tensors))
