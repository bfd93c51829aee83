"""The embedded default: scikit-learn's handwritten digits and a small CNN, so that `paredown search` runs with no task.

`task.toml` is the task, `digits.safetensors` the weights, and `examples/digits/train.py` made them.
"""

from __future__ import annotations

from pathlib import Path

TASK_PATH = Path(__file__).with_name("task.toml")
"""The embedded task file; what it names lies beside it."""

WEIGHTS_PATH = Path(__file__).with_name("digits.safetensors")
"""The weights that `examples/digits/train.py` writes."""

__all__ = ["TASK_PATH", "WEIGHTS_PATH"]
