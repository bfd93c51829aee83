"""The embedded default task, which `paredown search` runs when no task is given.

It has scikit-learn's handwritten digits and a small CNN. `task.toml` is the task and `digits.safetensors` has the
weights. `examples/digits/train.py` made them.
"""

from __future__ import annotations

from pathlib import Path

TASK_PATH = Path(__file__).with_name("task.toml")
"""Path of the embedded task file. The files that it names lie beside it."""

WEIGHTS_PATH = Path(__file__).with_name("digits.safetensors")
"""Path of the weights that `examples/digits/train.py` writes."""

__all__ = ["TASK_PATH", "WEIGHTS_PATH"]
