"""Where a model's time goes, by the kind of kernel, as the runtime's own profiler has it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor


def in_openvino(path: Path, x: Tensor, rounds: int = 60) -> dict[str, float]:
    """Kind and primitive -> milliseconds of one run: of each node the 10th percentile, added up."""
    from paredown.evaluators.runtimes import OpenVinoSession

    session = OpenVinoSession(path, 1)
    session._config["PERF_COUNT"] = True
    session.run(x)
    request: Any = next(iter(session._requests.values()))
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        session.run(x)
        for node in request.profiling_info:
            seen[f"{node.node_type} {node.exec_type}", node.node_name].append(1e3 * node.real_time.total_seconds())
    return _added(seen)


def in_onnxruntime(path: Path, x: Tensor, rounds: int = 60) -> dict[str, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.numpy()}
        for _ in range(rounds):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen[event["args"]["op_name"], event["name"]].append(1e-3 * event["dur"])
    return _added(seen)


def _added(seen: dict[tuple[str, str], list[float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for (kind, _), taken in seen.items():
        total[kind] += float(np.percentile(taken, 10))
    ordered = sorted(total.items(), key=lambda item: -item[1])
    return {kind: round(ms, 4) for kind, ms in ordered if ms > 0}
