"""What a worker holds: a scaled model of big Linear layers, in a process of its own.

Private memory (RssAnon) is what a worker needs; the store's pages (RssFile) are shared by all workers of a machine, and
the system takes them back when it wants to. Both are given; the goal is about the sum of the private peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paredown.compressors import trace_anatomy

WIDTH, DEPTH = 2048, 32
"""134 million parameters, 0.5 GB."""
N_SAMPLES = 32


def memory() -> dict[str, Any]:
    """Runs this file as a program, once for each kind of work, and reads what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        found = {mode: _in_a_process(mode, folder) for mode in ("build", "evaluate")}
    parameters = DEPTH * WIDTH * WIDTH
    return {
        "memory": {
            "figure": max(one["ratio"] for one in found.values()),
            "where": f"{DEPTH} Linear layers of {WIDTH} × {WIDTH}: {parameters / 1e6:.0f} M parameters",
            "note": "private memory, the higher of the peaks of building variants and of trials; one process each",
            **found,
        }
    }


def _in_a_process(mode: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "searchbench.measure_memory", mode, folder]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return found


def _child(mode: str, folder: Path) -> None:
    import torch
    from torch import nn

    from paredown.compressors import Calibration, LayerSpec
    from paredown.evaluators import ReferenceOutputs, Split, get_metric
    from paredown.search import Candidate, Group, SearchSpace
    from paredown.search.evaluation import Worker
    from paredown.search.problem import EvaluationContext
    from paredown.search.task import Plugins, RepairSection

    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = _status()
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH))).eval().requires_grad_(False)
    split = Split("search", torch.randn(N_SAMPLES, WIDTH), torch.zeros(N_SAMPLES, dtype=torch.int64))
    levels = tuple(LayerSpec(weight_bits=bits) for bits in (8, 4, 3))
    anatomy = trace_anatomy(model, split.take(1).inputs)
    space = SearchSpace(groups=tuple(Group(name=f, layers=(f,), levels=levels) for f in anatomy.fqns))
    bench = EvaluationContext(
        model=model, anatomy=anatomy, calibration=Calibration(ranges={}), space=space, split=split,
        reference=ReferenceOutputs.compute(model, split), metric=get_metric("accuracy"), divergence="kl",
        store=folder, batch_size=N_SAMPLES, plugins=Plugins(references=(), base_dir=folder),
        repair=RepairSection(),
    )  # fmt: skip
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    loaded = _status()["RssAnon"] - start["RssAnon"]
    _forget_peak()
    worker = Worker(bench)
    if mode == "build":
        for fqn in anatomy.fqns:
            worker.build_variants(fqn, levels)
    else:
        for level in range(len(levels)):
            worker.evaluate_low_fidelity(Candidate(levels=(level,) * DEPTH), N_SAMPLES)
    print(json.dumps({"loaded_ratio": loaded / size, **_report(start, size)}))


def _report(start: dict[str, int], size: int) -> dict[str, float]:
    """Bytes over the start; `ratio` is the private memory's peak over the model, as near as the system tells."""
    now = _status()
    pages = now["RssFile"] - start["RssFile"]
    peak = now["VmHWM"] - start["VmRSS"]
    private = max(now["RssAnon"] - start["RssAnon"], peak - pages)  # pages only grow, so this is at most the peak
    return {
        "model_bytes": size,
        "store_pages_bytes": pages,
        "peak_bytes": peak,
        "ratio": private / size,
        "ratio_with_pages": peak / size,
    }


def _status() -> dict[str, int]:
    """Bytes by name, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = (line.partition(":") for line in lines)
    return {name: 1024 * int(value.split()[0]) for name, _, value in fields if value.strip().endswith("kB")}


def _forget_peak() -> None:
    """From here on, VmHWM is the peak of what follows (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
