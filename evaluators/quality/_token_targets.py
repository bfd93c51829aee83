"""Targets of a language model: given in one of two conventions, or the next token of its ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..values import Inputs, Split
from ._constants import IGNORED
from ._error import MetricError

TargetForm = Literal["auto", "aligned", "ids"]
"""aligned  the target at t is that of the output at t: next tokens that are shifted already, masked tokens, tags
ids      the targets are the input ids, as the `labels` of transformers: the output at t is compared with t + 1
auto     told apart by the ids
"""
_COMPANIONS = ("position_ids", "token_type_ids", "cache_position", "labels")
_HINT = "give targets: return (inputs, targets) from the data factory, with -100 where none counts"


def token_targets(split: Split, form: TargetForm = "auto") -> Tensor:
    """Targets (N, T) int64 for logits (N, T, V), with -100 where none counts.

    A target counts where it and the token before it are real (`Split.output_positions`) and belong to one document
    (`Split.continued`). Without targets in the split they are the next tokens of the ids: of `decoder_input_ids` where
    the inputs have them, else of `input_ids`, or of the inputs where they are one tensor.

    Raises `MetricError` where there are no such ids, and where given targets are neither the ids nor the next ids.
    """
    real, follows = split.output_positions(), split.continued()
    given = split.targets
    if given is None:
        return _next(_ids(split), real, follows)
    ids = _ids_or_none(split.inputs)
    if given.is_floating_point() or given.dim() != 2 or ids is None or ids.shape != given.shape:
        return given  # no targets of tokens, or no ids beside them: nothing to tell apart
    if form == "auto":
        form = _form_of(given, ids, real, split)
    if form == "ids":
        return _next(given, real, follows)
    return _aligned(given, ids, real, follows) if _is_shifted(given, ids, real) else given


def _next(ids: Tensor, real: Tensor | None, follows: Tensor | None) -> Tensor:
    """The token at t + 1 for position t, except the last."""
    targets = torch.full_like(ids, IGNORED, dtype=torch.int64)
    targets[:, :-1] = ids[:, 1:]
    if real is not None:
        targets[:, :-1][~(real[:, 1:] & real[:, :-1])] = IGNORED
    if follows is not None:
        targets[:, :-1][~follows[:, 1:]] = IGNORED
    return targets


def _aligned(given: Tensor, ids: Tensor, real: Tensor | None, follows: Tensor | None) -> Tensor:
    """Next tokens as they were given, less those that stand behind the end of a text or document. The target at the end
    of a text is kept where it is another than the token of the padding behind it.
    """
    targets = given.clone()
    behind = torch.zeros_like(ids, dtype=torch.bool)
    if real is not None:
        behind[:, :-1] = ~real[:, 1:] & (given[:, :-1] == ids[:, 1:])
        behind |= ~real
    if follows is not None:
        behind[:, :-1] |= ~follows[:, 1:] & (given[:, :-1] == ids[:, 1:])
    targets[behind] = IGNORED
    return targets


def _form_of(given: Tensor, ids: Tensor, real: Tensor | None, split: Split) -> TargetForm:
    """Tell targets that are the ids from those that are the next ids."""
    counts = given != IGNORED
    if real is not None:
        counts = counts & real
    is_decoder = isinstance(split.inputs, Mapping) and "decoder_input_ids" in split.inputs
    if not is_decoder and bool((given == ids)[counts].all()):
        return "ids"
    if _is_shifted(given, ids, real):
        return "aligned"
    same = int((given == ids)[counts].sum())
    raise MetricError(
        f"the targets of the {split.name} split are neither the {_name(split.inputs)} nor the next ones where they "
        f"count ({same} of {int(counts.sum())} equal the id at their own place); set [quality] targets: 'aligned' "
        f"where the target at t is that of the output at t (masked tokens, tags), 'ids' where it is that of t - 1"
    )


def _is_shifted(given: Tensor, ids: Tensor, real: Tensor | None) -> bool:
    counts = given[:, :-1] != IGNORED
    if real is not None:
        counts = counts & real[:, 1:] & real[:, :-1]
    return bool((given[:, :-1] == ids[:, 1:])[counts].all()) and bool(counts.any())


def _name(inputs: Inputs) -> str:
    return "decoder_input_ids" if isinstance(inputs, Mapping) and "decoder_input_ids" in inputs else "input ids"


def _ids_or_none(inputs: Inputs) -> Tensor | None:
    found: Any = inputs
    if isinstance(inputs, Mapping):
        found = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    elif isinstance(inputs, tuple):
        found = inputs[0]
    is_ids = isinstance(found, Tensor) and not found.is_floating_point() and found.dim() == 2
    return found if is_ids else None


def _ids(split: Split) -> Tensor:
    """Ids (N, T) whose next tokens are the targets of a split that has none. Raises `MetricError` for a guess."""
    inputs = split.inputs
    others: Mapping[str, Tensor] = {}
    ids: Tensor
    if isinstance(inputs, dict):
        if "decoder_input_ids" in inputs:
            ids = inputs["decoder_input_ids"]
        elif "input_ids" in inputs:
            ids = inputs["input_ids"]
            others = {key: part for key, part in inputs.items() if key != "input_ids"}
        else:
            raise MetricError(
                f"perplexity needs targets, or inputs named 'input_ids'; got {', '.join(sorted(inputs))}; {_HINT}"
            )
    elif isinstance(inputs, tuple):
        ids, others = inputs[0], {str(place): part for place, part in enumerate(inputs[1:], 1)}
    else:
        ids = inputs
    if ids.is_floating_point() or ids.dim() != 2 or ids.shape[1] < 2:
        raise MetricError(
            "perplexity needs targets, or token ids (N, T) with T >= 2 as inputs; "
            f"got inputs {tuple(ids.shape)} of {ids.dtype}; {_HINT}"
        )
    for name, part in others.items():
        _refuse_second_text(name, part, ids, split)
    return ids


def _refuse_second_text(name: str, part: Tensor, ids: Tensor, split: Split) -> None:
    """Raise `MetricError` for an input beside the ids that may be the text whose next token is meant, or a mask."""
    if name == split.mask or name in _COMPANIONS or name.endswith("_mask"):
        if name == "labels":
            raise MetricError(
                f"perplexity: the inputs hold labels; return them as the targets, (inputs, labels); {_HINT}"
            )
        return
    if name.startswith("decoder"):
        raise MetricError(f"perplexity: the model has a decoder ({name}), whose ids are not among the inputs; {_HINT}")
    if part.dim() != 2 or part.is_floating_point() or part.shape[1] < 2:
        return
    if bool(((part == 0) | (part == 1)).all()):
        if part.shape == ids.shape and bool((part == 0).any()):
            raise MetricError(
                f"perplexity: input {name} may be a mask; name it: [data] mask = {name!r}, or give the inputs as a "
                f"dict; or {_HINT}"
            )
        return
    raise MetricError(
        f"perplexity: the inputs hold two texts, and the targets would be guessed from the first (input {name} is "
        f"another); {_HINT}"
    )
