"""Whether the latency protocol can be trusted: identical models called different, a planted slowdown overlooked.

python benchmarks/latency/protocol.py --out benchmarks/results/latency/protocol.json      # about 5 minutes

In each repetition the original is loaded twice (two names of one model), and the second once more with a tenth of each
run's own time added behind it. Each pair is timed as points are (one second, interleaved, one pinned core) and judged
as they are. Half of the repetitions are run beside two processes that compute all the time on the same cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paredown.compressors import trace_anatomy

sys.path.insert(0, str(Path(__file__).parent))

from latencybench import models

from paredown.compressors import calibrate
from paredown.evaluators import aa_floor, exclusive_slot, interleaved, pinned
from paredown.evaluators.latency import compare, last_cores, machine_facts
from paredown.evaluators.prediction import Template
from paredown.evaluators.runtimes import get_runtime

GOALS = {"false_alone": 0.05, "false_beside_hogs": 0.10, "seen": 0.95}
_HOG = "while True: sum(i * i for i in range(100_000))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--model", default="resnet20", choices=list(models.MODELS))
    parser.add_argument("--runtime", default="openvino")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    allowed = sorted(os.sched_getaffinity(0))
    model, inputs = models.load(arguments.model)
    anatomy = trace_anatomy(model, inputs[:1])
    template = Template.trace(model, anatomy, calibrate(model, [inputs], anatomy), inputs[:2])
    with pinned(last_cores(1)) as pinning, tempfile.TemporaryDirectory() as folder:
        path = template.write({}, Path(folder) / "model.onnx", guarded=arguments.runtime == "onnxruntime")
        load = lambda: get_runtime(arguments.runtime).load(path, threads=1)
        result: dict[str, Any] = {
            "command": "python benchmarks/latency/protocol.py " + " ".join(sys.argv[1:]),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine_facts(load(), threads=1, pinning=pinning),
            "goals": GOALS,
        }
        for name, n_hogs in (("alone", 0), ("beside two hogs", 2)):
            with hogs(n_hogs, allowed):
                result[name] = judged(load, inputs[:1], arguments.repeats, arguments.seconds)
            print(name, json.dumps(result[name]), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def judged(load: Callable[[], Any], one: Any, repeats: int, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    same, slower = [], []
    floor = 0.0
    for n in range(repeats):
        a, b = load(), load()
        run = {"a": lambda a=a: a.run(one), "b": lambda b=b: b.run(one)}
        with exclusive_slot():
            if n == 0:
                floor = aa_floor(run["a"], run["b"], rng=rng)
            for kind, found in (("same", same), ("slower", slower)):
                second = run["b"] if kind == "same" else a_tenth_slower(run["b"])
                samples = interleaved({"a": run["a"], "b": second}, min_seconds=seconds, rng=rng)
                found.append(compare(samples["b"], samples["a"], floor=floor))
    apart = np.abs(np.log([c.ratio for c in same]))
    return {
        "repeats": repeats,
        "aa_floor": round(floor, 5),
        "called_different": sum(c.verdict != "tie" for c in same) / repeats,
        "slowdown_seen": sum(c.verdict == "slower" for c in slower) / repeats,
        "interval_holds_1": sum(c.low <= 1.0 <= c.high for c in same) / repeats,
        "apart_median": round(float(np.median(apart)), 5),
        "apart_p95": round(float(np.quantile(apart, 0.95)), 5),
        "slowdown_measured": round(float(np.median([c.ratio for c in slower])) - 1.0, 4),
    }


def a_tenth_slower(run: Callable[[], Any]) -> Callable[[], None]:
    def slow() -> None:
        start = time.perf_counter_ns()
        run()
        end = time.perf_counter_ns()
        until = end + (end - start) // 10
        while time.perf_counter_ns() < until:
            pass

    return slow


@contextmanager
def hogs(n: int, cores: list[int]) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(n)]
    for process in running:
        os.sched_setaffinity(process.pid, cores)
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
