"""Positions of a sequence that are real: read from the masks among a model's inputs.

A mask (N, T) says 1 for a real position; numbers above 1 there number the documents of a packed sequence. Masks
(N, T, T) and (N, H, T, T) say which position reads which, and are reduced. They may be boolean, 0/1, or additive (0 and
-inf, or a large negative number). A name that ends with `key_padding_mask` means the opposite, as in
`torch.nn.MultiheadAttention`: True is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError

ATTENTION_MASK = "attention_mask"
DECODER_MASK = "decoder_attention_mask"
DECODER_IDS = "decoder_input_ids"
POSITION_IDS = "position_ids"

_HIDDEN_BELOW = -1000.0
"""Additive masks hide what is below: people write -1e4, -1e9, the least number of a dtype, or -inf."""


def positions(inputs: object, mask_name: str | None = None) -> Tensor | None:
    """Tell which positions of the inputs are real: bool (N, T), or None where there is no mask.

    mask_name  entry of dict inputs (or, as "1", the place in a tuple) that is the mask; default `attention_mask`. In an
               encoder–decoder this is the encoder's; a name that begins with "decoder" is the decoder's (see
               `output_positions`)

    Raises `InputError` where the named mask is missing, and for a mask of another form.
    """
    is_named_here = mask_name is not None and not (_has_decoder(inputs) and mask_name.startswith("decoder"))
    return _reduced(*_found(inputs, mask_name if is_named_here else None, ATTENTION_MASK))


def output_positions(inputs: object, mask_name: str | None = None) -> Tensor | None:
    """Tell which positions of the outputs are real, like `positions`.

    For inputs with `decoder_input_ids` they are the decoder's: by `decoder_attention_mask`, or by a `mask_name` that
    begins with "decoder".
    """
    if not _has_decoder(inputs):
        return positions(inputs, mask_name)
    is_named_here = mask_name is not None and mask_name.startswith("decoder")
    return _reduced(*_found(inputs, mask_name if is_named_here else None, DECODER_MASK))


def continued(inputs: object, mask_name: str | None = None) -> Tensor | None:
    """Tell which positions of the outputs continue the document of the position before: bool (N, T), False at 0.

    A document of a packed sequence begins where `position_ids` does not rise, where the number in the mask changes, or
    where neither of two neighbours may read the other. None where nothing says where documents begin.
    """
    has_decoder = _has_decoder(inputs)
    name = mask_name if mask_name is not None and mask_name.startswith("decoder") == has_decoder else None
    _, mask = _found(inputs, name, DECODER_MASK if has_decoder else ATTENTION_MASK)
    found: Tensor | None = None
    if mask is not None and mask.dim() == 2 and not mask.is_floating_point() and bool((mask > 1).any()):
        found = mask[:, 1:] == mask[:, :-1]
    elif mask is not None and mask.dim() > 2 and mask.shape[-1] == mask.shape[-2] > 1:
        reads = _reads(mask)
        found = reads.diagonal(-1, 1, 2) | reads.diagonal(1, 1, 2)
    key = "decoder_" + POSITION_IDS if has_decoder else POSITION_IDS
    position_ids = inputs.get(key) if isinstance(inputs, Mapping) else None
    if isinstance(position_ids, Tensor) and position_ids.dim() == 2 and position_ids.shape[1] > 1:
        rises = position_ids[:, 1:] > position_ids[:, :-1]
        found = rises if found is None else found & rises
    if found is None:
        return None
    return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)


def _has_decoder(inputs: object) -> bool:
    return isinstance(inputs, Mapping) and DECODER_IDS in inputs


def _found(inputs: object, name: str | None, default: str) -> tuple[str, Tensor | None]:
    """(Name of the mask, the mask or None)."""
    if name is None:
        mask = inputs.get(default) if isinstance(inputs, Mapping) else None
        return default, mask if isinstance(mask, Tensor) else None
    found: Any = None
    if isinstance(inputs, Mapping):
        found = inputs.get(name)
    elif isinstance(inputs, tuple) and name.isdigit() and int(name) < len(inputs):
        found = inputs[int(name)]
    if not isinstance(found, Tensor):
        known = (
            ", ".join(sorted(map(str, inputs)))
            if isinstance(inputs, Mapping)
            else f"a tuple of {len(inputs)} (a place in it is named '0', '1', …)"
            if isinstance(inputs, tuple)
            else "one tensor"
        )
        raise InputError(f"[data] mask = {name!r} names no tensor among the inputs, which are {known}")
    return name, found


def _reduced(name: str, mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    if not 2 <= mask.dim() <= 4 or mask.is_complex():
        raise InputError(
            f"the mask {name!r} must be (N, T), (N, T, T) or (N, H, T, T), got {tuple(mask.shape)}; "
            "axis 0 is the sample"
        )
    if mask.dim() == 2:
        is_open = _open(mask)
        return ~is_open if name.endswith("key_padding_mask") else is_open
    return _reads(mask).any(dim=1)


def _open(mask: Tensor) -> Tensor:
    """True where a mask lets through."""
    if mask.dtype == torch.bool:
        return mask
    is_all_zero = mask.is_floating_point() and mask.dim() > 2 and not bool((mask > 0).any())  # 0/1 masks let some in
    is_additive = is_all_zero or bool((mask < 0).any())
    return mask > _HIDDEN_BELOW if is_additive else mask > 0


def _reads(mask: Tensor) -> Tensor:
    """Relation of the positions that read each other: bool (N, T, T) from a mask (N, T, T) or (N, H, T, T), any head.

    A softmax over nothing is NaN, so masks let padding read something after all: everything (transformers) or itself.
    Rows that read everything are closed here, unless no later row reads less, as at the end of a causal mask. So are
    positions that read only themselves and that no other reads, unless all do.
    """
    is_open = _open(mask)
    if is_open.dim() == 4:
        is_open = is_open.any(dim=1)
    full = is_open.all(dim=2)
    less_later = (~full).flip(1).cummax(dim=1).values.flip(1)
    reads = is_open & ~(full & less_later)[:, :, None]
    n = reads.shape[2]
    if reads.shape[1] != n or n == 1:
        return reads
    others = reads & ~torch.eye(n, dtype=torch.bool, device=reads.device)
    joined = others.any(dim=1) | others.any(dim=2)
    alone = ~joined & joined.any(dim=1, keepdim=True)
    return reads & ~alone[:, :, None]
