"""Word error rate: edits from the right text over its words, over the whole data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ._class_axis import LAST
from ._error import MetricError
from ._metric import Metric


def wer(*, blank: int = 0, space: int | None = None) -> Metric:
    """Make the word error rate: the least insertions, deletions and substitutions of words, summed over all samples, by
    the sum of the right words. It may exceed 1.

    Outputs are logits (N, T, C) of frames, decoded greedily as CTC does: the likeliest token of each frame, repeats
    merged, blanks left out; or tokens (N, T) of integers, taken as they are. Targets are tokens (N, L) of integers;
    those below 0 (-100) and blanks are left out. Frames that a mask hides say nothing.

    blank  token that stands for none
    space  token between words; None: every token is a word, so that the figure is the rate of token errors
    """
    return Metric(
        name="wer",
        maximise=False,
        per_sample=partial(_per_sample, blank, space),
        weight=lambda targets: torch.tensor([len(words) for words in _target_words(targets, blank, space)]),
        range=(0.0, math.inf),
        frames=True,
        divergence="kl",
        class_axis=LAST,  # the targets are texts of another length than the frames, and tell nothing
    )


def _per_sample(
    blank: int, space: int | None, outputs: Tensor, targets: Tensor | None, reference: Tensor | None
) -> Tensor:
    """Rows (edits, right words)."""
    right = _target_words(targets, blank, space)
    if outputs.is_floating_point() and outputs.dim() == 3:
        if not 0 <= blank < outputs.shape[-1]:
            raise MetricError(
                f"wer: blank = {blank} is no token of outputs {tuple(outputs.shape)}; [quality] args says it"
            )
        tokens = outputs.argmax(dim=-1).masked_fill(outputs.isnan().any(dim=-1), blank)  # NaN: a hidden frame
        decoded = [_words(_collapsed(frames, blank), space) for frames in tokens.tolist()]
    elif not outputs.is_floating_point() and outputs.dim() == 2:
        decoded = [_words([t for t in tokens if t >= 0 and t != blank], space) for tokens in outputs.tolist()]
    else:
        raise MetricError(
            f"wer: expected logits (N, T, C) of frames, or tokens (N, T) of integers, got {tuple(outputs.shape)} of "
            f"{outputs.dtype}"
        )
    return torch.tensor([(_edits(a, b), len(b)) for a, b in zip(decoded, right, strict=True)], dtype=torch.float64)


def _target_words(targets: Tensor | None, blank: int, space: int | None) -> list[list[tuple[int, ...]]]:
    if targets is None or targets.is_floating_point() or targets.dim() != 2:
        came = "none" if targets is None else f"{tuple(targets.shape)} of {targets.dtype}"
        raise MetricError(f"wer: expected targets (N, L) of integers, the tokens of each text, got {came}")
    return [_words([t for t in tokens if t >= 0 and t != blank], space) for tokens in targets.tolist()]


def _collapsed(frames: Sequence[int], blank: int) -> list[int]:
    """CTC: repeats merged, then blanks left out."""
    return [t for t, before in zip(frames, [None, *frames[:-1]], strict=True) if t not in (before, blank)]


def _words(tokens: Sequence[int], space: int | None) -> list[tuple[int, ...]]:
    words: list[tuple[int, ...]] = []
    word: list[int] = []
    for token in tokens:
        if space is None:
            words.append((token,))
        elif token != space:
            word.append(token)
        elif word:
            words.append(tuple(word))
            word = []
    return [*words, tuple(word)] if word else words


def _edits(mine: Sequence[tuple[int, ...]], right: Sequence[tuple[int, ...]]) -> int:
    """Levenshtein's distance of two lists of words."""
    numbers = {word: n for n, word in enumerate({*mine, *right})}
    columns = np.array([numbers[word] for word in right], dtype=np.int64)
    steps = np.arange(len(right) + 1)
    row = steps
    for n, word in enumerate(mine, 1):
        best = np.empty_like(row)
        best[0] = n
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (columns != numbers[word]))
        row = np.minimum.accumulate(best - steps) + steps  # and insertions, from the left
    return int(row[-1])


WER = wer()
