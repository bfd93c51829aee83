"""Samples for calibration, search (validation) or report (test)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

import torch
from torch import Tensor

from ...compressors.anatomy import continued, output_positions, positions
from ...errors import InputError

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""Arguments of a model: `model(x)`, `model(*xs)` or `model(**xs)`. Axis 0 of every tensor is the sample."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples, all in memory.

    name     what it is for: "calibration", "search" or "report"
    inputs   see `Inputs`; N samples along axis 0 of every tensor
    targets  N along axis 0, or None where the metric needs none (perplexity takes the next token)
    mask     name of the mask among the inputs; None: `attention_mask` (`compressors.anatomy.positions`)

    Raises `InputError` where it is empty, is no tensor, or the lengths differ.
    """

    name: str
    inputs: Inputs
    targets: Tensor | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        parts = self._parts()
        if not parts:
            raise InputError(f"the {self.name} split has no inputs; give a tensor, or a tuple or dict of tensors")
        lengths = {}
        for label, part in parts:
            if not isinstance(part, Tensor):
                raise InputError(
                    f"{label} of the {self.name} split must be a tensor, got {type(part).__name__}; "
                    "a split's inputs are a tensor, a tuple of tensors or a dict of tensors"
                )
            if part.dim() == 0:
                raise InputError(f"{label} of the {self.name} split is a scalar; axis 0 must be the sample")
            lengths[label] = part.shape[0]
        if len(set(lengths.values())) > 1:
            came = ", ".join(f"{label} {n}" for label, n in lengths.items())
            raise InputError(f"the {self.name} split must have as many samples in every tensor, got {came}")
        if not len(self):
            raise InputError(f"the {self.name} split is empty; it needs at least one sample")

    def __len__(self) -> int:
        first = self._parts()[0][1]
        return int(first.shape[0])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{label} {tuple(part.shape)}" for label, part in self._parts())
        return f"Split({self.name!r}, {shapes})"

    def positions(self) -> Tensor | None:
        """Real positions of the inputs (`compressors.anatomy.positions`). Raises `InputError`."""
        return positions(self.inputs, self.mask)

    def output_positions(self) -> Tensor | None:
        """Real positions of the outputs: the decoder's, in an encoder–decoder. Raises `InputError`."""
        return output_positions(self.inputs, self.mask)

    def continued(self) -> Tensor | None:
        """Positions of the outputs that continue the document of the position before; None where all do."""
        return continued(self.inputs, self.mask)

    def take(self, n: int) -> Split:
        """Take the first `n` samples, or all where there are fewer. A view: nothing is copied."""
        if n < 1:
            raise InputError(f"a split cannot be cut to {n} samples; take at least 1")
        if n >= len(self):
            return self
        return self._map(lambda part: part[:n])

    def between(self, start: int, stop: int) -> Split:
        """Take the samples from `start` up to, not including, `stop`, or the last. A view: nothing is copied."""
        if not 0 <= start < min(stop, len(self)):
            raise InputError(f"a split of {len(self)} has no samples from {start} up to {stop}")
        return self._map(itemgetter(slice(start, stop)))

    def select(self, index: Tensor) -> Split:
        """Take the samples at `index` (M,), in that order; a copy."""
        return self._map(lambda part: part[index])

    def batches(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """Yield (inputs, targets) in order, `batch_size` samples each; the last batch may be smaller. Views."""
        if batch_size < 1:
            raise InputError(f"batch size must be at least 1, got {batch_size}")
        for start in range(0, len(self), batch_size):
            batch = self._map(itemgetter(slice(start, start + batch_size)))
            yield batch.inputs, batch.targets

    def sample_digests(self) -> list[bytes]:
        """Hashes of each sample's inputs (not its target): two splits overlap where these do."""
        hashes = [hashlib.blake2b(digest_size=16) for _ in range(len(self))]
        for label, part in self._parts(targets=False):
            head = f"{label} {part.dtype} {tuple(part.shape[1:])};".encode()
            for one, row in zip(hashes, _rows(part), strict=True):
                one.update(head)
                one.update(row)
        return [one.digest() for one in hashes]

    @property
    def digest(self) -> str:
        """sha256 of inputs and targets, in order; the name is not part of it."""
        whole = hashlib.sha256()
        for label, part in self._parts():
            whole.update(f"{label} {part.dtype} {tuple(part.shape)};".encode())
            for row in _rows(part):
                whole.update(row)
        return whole.hexdigest()

    def _parts(self, *, targets: bool = True) -> list[tuple[str, Tensor]]:
        parts: list[tuple[str, Tensor]]
        if isinstance(self.inputs, dict):
            parts = [(f"inputs[{key!r}]", self.inputs[key]) for key in sorted(self.inputs)]
        elif isinstance(self.inputs, tuple):
            parts = [(f"inputs[{i}]", part) for i, part in enumerate(self.inputs)]
        else:
            parts = [("inputs", self.inputs)]
        if targets and self.targets is not None:
            parts.append(("targets", self.targets))
        return parts

    def _map(self, cut: Callable[[Tensor], Tensor]) -> Split:
        inputs: Inputs
        if isinstance(self.inputs, dict):
            inputs = {key: cut(part) for key, part in self.inputs.items()}
        elif isinstance(self.inputs, tuple):
            inputs = tuple(cut(part) for part in self.inputs)
        else:
            inputs = cut(self.inputs)
        return replace(self, inputs=inputs, targets=None if self.targets is None else cut(self.targets))


def _rows(part: Tensor) -> Iterator[memoryview]:
    """Bytes of each sample, in any dtype (also bfloat16, which numpy does not know)."""
    flat = part.detach().cpu().contiguous().reshape(part.shape[0], -1).view(torch.uint8).numpy()
    for row in flat:
        yield row.data
