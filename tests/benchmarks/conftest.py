"""The benchmarks are scripts beside a package of their own, which no test run has on its path."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "search"))
sys.path.append(str(BENCHMARKS / "quantization"))  # behind, for both have a `summarise`
sys.path.append(str(BENCHMARKS / "storage"))
