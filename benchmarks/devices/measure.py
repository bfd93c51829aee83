"""FP32 and INT8 latencies of three real nets in both runtimes, for `error.py` to hold the roofline against.

    python benchmarks/devices/measure.py                    # about 2 minutes, on a machine that does nothing else
    python benchmarks/devices/measure.py --seconds 0.2      # a look

Both forms are edited into one traced graph, as the predictor does, and timed as points are: one pinned thread, batch 1,
interleaved run by run, the 10th percentile. FP32 and INT8 of a net and a runtime are always of one session.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paredown.compressors import trace_anatomy

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "latency"), str(HERE.parent / "search")]

from latencybench import models  # noqa: E402

from paredown.compressors import LayerSpec, calibrate  # noqa: E402
from paredown.evaluators import LatencySamples, Pinning, exclusive_slot, interleaved, pinned  # noqa: E402
from paredown.evaluators.latency import compare, last_cores, machine_facts  # noqa: E402
from paredown.evaluators.prediction import (  # noqa: E402
    Bed,
    Template,
    forms_of,
)

RUNTIMES = ("onnxruntime", "openvino")
INT8 = LayerSpec(weight_bits=8, activation_bits=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "measured.json")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed runs for each net and runtime")
    parser.add_argument("--models", nargs="*", default=list(models.MODELS), choices=list(models.MODELS))
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with pinned(last_cores(1)) as pinning:
        for name in arguments.models:
            for runtime in arguments.runtimes:
                rows += timed(name, runtime, arguments.seconds)
                print(*(f"{row['model']} {row['runtime']} {row['format']}: {row['ms']:.4g} ms" for row in rows[-2:]))
        arguments.out.write_text(json.dumps(document(rows, pinning), indent=1) + "\n")


def document(rows: list[dict[str, Any]], pinning: Pinning) -> dict[str, Any]:
    facts = machine_facts(threads=1, pinning=pinning)
    return {
        "machine": f"{facts['cpu']}, one pinned thread, batch 1, interleaved 10th percentile",
        "facts": facts,
        "versions": {runtime: _version(runtime) for runtime in RUNTIMES},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "python benchmarks/devices/measure.py " + " ".join(sys.argv[1:]),
        "ms": rows,
    }


def timed(name: str, runtime: str, seconds: float) -> list[dict[str, Any]]:
    """A row of each format. `faster`: of INT8 over FP32, with its interval."""
    model, inputs = models.load(name)
    anatomy = trace_anatomy(model, inputs[:1])
    template = Template.trace(model, anatomy, calibrate(model, [inputs], anatomy), inputs[:2])
    bed, one = Bed(template, inputs[:1], runtime=runtime, threads=1), inputs[:1]
    try:
        sessions = {"fp32": bed.load({}), "int8": bed.load(forms_of(anatomy, dict.fromkeys(anatomy.fqns, INT8)))}
        timers = {form: partial(session.run, one) for form, session in sessions.items()}
        with exclusive_slot():
            samples = interleaved(timers, min_seconds=seconds, rng=np.random.default_rng(0))
    finally:
        bed.close()
    fp32, int8 = samples["fp32"], samples["int8"]
    apart = compare(fp32, int8)
    faster = {"faster": apart.ratio, "low": apart.low, "high": apart.high}
    return [
        {"model": name, "runtime": runtime, "format": form, **_figures(samples), **more}
        for form, samples, more in (("fp32", fp32, {}), ("int8", int8, faster))
    ]


def _figures(samples: LatencySamples) -> dict[str, Any]:
    p10 = samples.measurement(keep_samples=False)
    return {"ms": p10.value, "ms_low": p10.low, "ms_high": p10.high, "n": p10.n}


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)


if __name__ == "__main__":
    main()
