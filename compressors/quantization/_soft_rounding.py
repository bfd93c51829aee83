"""Soft rounding: a variable between two codewords, learned by gradients and pushed to one of them.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", eq. 21 to 24. AdaRound learns it for
a layer (`_adaround.py`), block reconstruction for a block (`compressors/repair`).
"""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 0.1
"""Learning rate of the soft variables."""
PUSH = 10.0
"""Weight of the term that pushes shares to 0 or 1."""
STRETCH = 1.1
_WARM = 0.2
"""Share of the steps without the push."""
_SOFTEST, _HARDEST = 20.0, 2.0


def stretched(logistic: Tensor) -> Tensor:
    """Stretch values in [0, 1] to a little beyond both ends, so that clipped shares reach 0 and 1."""
    return logistic * (2.0 * STRETCH - 1.0) - (STRETCH - 1.0)


def soft_variable(share: Tensor) -> Tensor:
    """Logits for which the stretched sigmoid gives `share`, which lies in (0, 1)."""
    logistic = (share + (STRETCH - 1.0)) / (2.0 * STRETCH - 1.0)
    return torch.log(logistic / (1.0 - logistic))


def push_exponent(step: int, n_steps: int) -> float | None:
    """Exponent of the push at this step, falling from 20 to 2; None for the first fifth, which has no push."""
    progress = (step / n_steps - _WARM) / (1.0 - _WARM)
    return _SOFTEST + (_HARDEST - _SOFTEST) * progress if progress > 0.0 else None
