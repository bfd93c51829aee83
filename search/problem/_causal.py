"""Check that the ids among the inputs may tell the targets: the decoder's own, of which it reads none ahead."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...evaluators import Inputs, Metric, Split

_RELATIVE = 1e-3
"""Difference of an output, relative to the largest, that is more than another order of sums."""


def check_decoder_ids(model: nn.Module, split: Split, metric: Metric) -> None:
    """Raise `TaskError` where the targets' place would be told by the ids of an encoder.

    Some encoder–decoders make the ids of the decoder themselves, of `input_ids` or of `labels` moved right by one. The
    output at t is then that of the target at t, which the ids that stand among the inputs cannot tell.
    """
    if metric.targets_from is None or not isinstance(split.inputs, Mapping) or "decoder_input_ids" in split.inputs:
        return
    if "decoder_input_ids" not in inspect.signature(model.forward).parameters:
        return
    ids, given = split.inputs.get("input_ids"), split.targets
    if given is not None and (ids is None or given.shape != ids.shape or _is_aligned(metric)):
        return
    raise TaskError(
        f"{metric.name}: {type(model).__name__} has a decoder whose ids are not among the inputs "
        f"({', '.join(split.inputs)}), and {'targets' if given is None else 'the place of the targets'} would be "
        "guessed from the encoder's; add decoder_input_ids to the inputs of data.factory: the labels moved right by "
        "one, behind decoder_start_token_id"
        + ("" if given is None else "; or set [quality] targets = 'aligned' where the target at t is that of output t")
    )


def _is_aligned(metric: Metric) -> bool:
    return getattr(metric.targets_from, "keywords", {}).get("form") == "aligned"


def check_causal(model: nn.Module, split: Split, metric: Metric, sample: Split) -> None:
    """Raise `TaskError` where targets are the next tokens and the model reads them (BERT and its like).

    sample  one sample of `split`; its last real token is replaced, and the outputs before it are compared
    """
    if metric.targets_from is None or split.targets is not None:
        return
    from ...evaluators import run_split

    changed = _with_another_end(sample)
    if changed is None:
        return
    other, place = changed
    before, after = (metric.read(run_split(model, one, 1)) for one in (sample, other))
    if before.dim() != 3 or before.shape != after.shape:
        return
    apart = float((before - after)[:, :place].abs().max())
    if apart > _RELATIVE * float(before.abs().max()):
        raise TaskError(
            f"{metric.name} without targets asks for the next token, but outputs of this model depend on tokens behind "
            f"them (token {place} changes outputs before it), so it is no decoder; give targets: the masked words, and "
            "-100 elsewhere"
        )


def _with_another_end(sample: Split) -> tuple[Split, int] | None:
    """Return the sample with another last real token, and its place; None where there is nothing to change."""
    from ...evaluators import Split

    name, ids = _ids(sample.inputs)
    if ids is None or ids.dim() != 2 or ids.is_floating_point():
        return None
    real = sample.output_positions()
    places = [n for n in range(ids.shape[1]) if real is None or bool(real[0, n])]
    place = places[-1] if places else 0
    others = [int(token) for token in ids[0].tolist() if token != int(ids[0, place])]
    if place == 0 or not others:
        return None
    changed = ids.clone()
    changed[0, place] = others[0]
    inputs: Inputs = changed
    if isinstance(sample.inputs, dict):
        inputs = {**sample.inputs, name: changed}
    elif isinstance(sample.inputs, tuple):
        inputs = (changed, *sample.inputs[1:])
    return Split(sample.name, inputs, mask=sample.mask), place


def _ids(inputs: Inputs) -> tuple[str, Tensor | None]:
    if isinstance(inputs, dict):
        name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
        return name, inputs.get(name)
    return "", inputs[0] if isinstance(inputs, tuple) else inputs
