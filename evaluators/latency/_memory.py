"""Peak memory of a session, in a process that holds nothing else.

`main` is what the child does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ParedownError
from ..values import Measurement

if TYPE_CHECKING:
    from ...compressors import Inputs

_PATIENCE_S = 300.0
_CHILD = "import sys; from paredown.evaluators.latency._memory import main; sys.exit(main(sys.argv[1:]))"


def peak_memory(path: Path, runtime: str, one: Inputs, *, threads: int = 1, runs: int = 3) -> Measurement:
    """Largest growth in bytes of a fresh process that loaded the model and ran it: `VmHWM` after, less `VmRSS` before.

    The runtime was imported before, and had run a model of one ReLU. Linux; runtimes that load ONNX or OpenVINO.

    Raises `ParedownError` with the child's last words where it fails.
    """
    import torch
    from safetensors.torch import save_file

    from ..runtimes import as_call

    args, kwargs = as_call(one)
    tensors = {**{str(n): x.contiguous() for n, x in enumerate(args)}, **kwargs}
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        save_file({name: x.detach() for name, x in tensors.items() if isinstance(x, torch.Tensor)}, f"{folder}/in.st")
        spec = {
            "path": str(path.resolve()), "runtime": runtime, "threads": threads, "runs": runs, "named": bool(kwargs)
        }  # fmt: skip
        (Path(folder) / "spec.json").write_text(json.dumps(spec))
        package = str(Path(__file__).resolve().parents[3])
        paths = [p for p in (*sys.path, package) if p]
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, f"{folder}/spec.json"], capture_output=True, text=True, check=False,
                timeout=_PATIENCE_S, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ParedownError(f"the memory of {path} was not known after {_PATIENCE_S:g} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise ParedownError(f"the memory of {path} could not be measured: {last}")
    return Measurement(value=float(json.loads(done.stdout)["peak_bytes"]), unit="B", n=runs)


def memory_bytes(field: str, status: Path = Path("/proc/self/status")) -> int:
    """`VmRSS` or `VmHWM` of this process in bytes. Raises `ParedownError` where the system does not report it."""
    try:
        for line in status.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError as error:
        raise ParedownError(f"{status} cannot be read: peak memory is measured on Linux only") from error
    raise ParedownError(f"{status} has no field {field}: peak memory is measured on Linux only")


def main(argv: Sequence[str]) -> int:
    from safetensors.torch import load_file

    from ..runtimes import get_runtime
    from ._micro_graphs import empty_graph

    spec: dict[str, Any] = json.loads(Path(argv[0]).read_text())
    tensors = load_file(Path(argv[0]).with_name("in.st"))
    inputs: Any = tensors if spec["named"] else tuple(tensors[str(n)] for n in range(len(tensors)))
    runtime = get_runtime(spec["runtime"])
    small = Path(argv[0]).with_name("small.onnx")
    small.write_bytes(empty_graph())
    import torch

    runtime.load(small, threads=spec["threads"]).run(torch.zeros(1, 8, 2, 2))
    before = memory_bytes("VmRSS")
    session = runtime.load(Path(spec["path"]), threads=spec["threads"])
    for _ in range(spec["runs"]):
        session.run(inputs)
    print(json.dumps({"peak_bytes": max(0, memory_bytes("VmHWM") - before)}))
    return 0
