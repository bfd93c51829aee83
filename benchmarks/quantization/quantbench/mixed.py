"""Mixed precision from the search against the best uniform 4-bit setting: the same method and format, no more bytes.

The search sees the search part alone; of its trials that need no more bytes than the uniform setting the one of least
divergence there is run on the report part, once, and held against the uniform setting sample by sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from torch import Tensor

from paredown.compressors import FORMAT_BITS, LayerSpec
from paredown.evaluators import paired_test
from paredown.search import Completed, Task, open_run, search

from .settings import settings

if TYPE_CHECKING:
    from .measure import Bench

WIDTHS = (2, 3, 4, 5, 6, 8)


def data_of(name: str, samples: int) -> dict[str, Any]:
    """The search's own three splits; its report split is four samples that nothing is made of."""
    from .subjects import SUBJECTS

    subject = SUBJECTS[name]()
    part = subject.search.take(min(samples, len(subject.search)))
    rest = subject.report.take(4)

    def pair(inputs: Tensor, targets: Tensor | None) -> Any:
        return inputs if targets is None else (inputs, targets)

    return {
        "calibration": subject.calibration,
        "search": pair(part.inputs, part.targets),  # type: ignore[arg-type]
        "report": pair(rest.inputs, rest.targets),  # type: ignore[arg-type]
    }


def mixed(bench: Bench, rows: Mapping[str, Any], uniform: str, trials: int) -> dict[str, Any]:
    """`gain` is positive where mixed precision is better than the `uniform` setting, in the metric's unit."""
    subject, spec = bench.subject, settings()[uniform]
    task = Task.from_dict(
        {
            "data": {
                "factory": data_of, "args": {"name": subject.name, "samples": len(subject.search)},
                "batch_size": subject.batch_size, "overlap": "drop",
            },
            "quality": {"metric": subject.metric, "max_loss": 1.0},
            "hardware": {"runtime": "torch"},
            "space": _space(spec),
            "objectives": {"names": ["divergence", "bytes"]},
            "limits": {"bytes": {"max": rows[uniform]["bytes"]}},
            "search": {"seed": 0, "screen": 0},
            "budget": {"trials": trials},
            "mlflow": {"enabled": False},
        },
        base_dir=Path(__file__).parent,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="quantbench-") as folder:
        # exports and their clocks take minutes, and say nothing of the quality
        with mock.patch.multiple("paredown.search._driver", verify_points=mock.DEFAULT, export_original=mock.DEFAULT):
            search(task, model=subject.model, out=Path(folder) / "run", workers=0)
        run = open_run(Path(folder) / "run")
        space = run.space
        known = [trial for trial in run.trials if isinstance(trial, Completed) and trial.kind != "original"]
    most = rows[uniform]["bytes"]
    fitting = [trial for trial in known if trial.metrics["bytes"].value <= most]
    chosen = min(fitting, key=lambda trial: trial.metrics["divergence"].value)
    assignment = {fqn: LayerSpec() for fqn in bench.anatomy.fqns} | dict(space.assignment(chosen.candidate))
    variants = bench.variants(assignment)
    scores, apart = bench.run(assignment, variants, {})
    theirs, _ = bench.run(*bench.compressed(spec)[:2], {})
    paired = paired_test(scores, theirs, bench.metric)
    bits = sum(x.n_weights * assignment[x.fqn].weight_bits for x in bench.anatomy.layers)
    return {
        "uniform": uniform,
        "trials": trials,
        "mean_bits": bits / sum(x.n_weights for x in bench.anatomy.layers),
        "bytes": bench.bytes_of(assignment, variants),
        "uniform_bytes": most,
        "value": bench.value(scores),
        "uniform_value": bench.value(theirs),
        "gain": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "search_divergence": apart,
        "uniform_search_divergence": rows[uniform]["search_divergence"],
    }


def _space(spec: LayerSpec) -> dict[str, Any]:
    widths = FORMAT_BITS[spec.weight_format]
    return {
        "weight_bits": [bits for bits in WIDTHS if bits in widths],
        "activation_bits": [32],
        "weight_method": [spec.weight_method],
        "weight_format": [spec.weight_format],
        "scale_bits": [spec.scale_bits],
    }
