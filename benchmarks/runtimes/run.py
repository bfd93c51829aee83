"""Models of the assets × runtimes × formats, beside the makers' own quantizers: latency at batch 1 and 32, quality,
bytes.

PYTHONPATH=DIR python benchmarks/runtimes/run.py --out benchmarks/results/runtimes.json

DIR may hold NNCF (`pip install --no-deps --target DIR nncf tabulate pydot ninja`); without it its rows say so. One
pinned core; everything of a model is interleaved, but PyTorch apart from the others, for it empties the caches. It
takes about twelve minutes; `--models resnet20 --seconds 0.2` a minute.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "quantization")]

from quantbench.subjects import SUBJECTS  # noqa: E402
from runtimebench import where  # noqa: E402
from runtimebench.contestants import COMPILED, Contestant, Problem, ours, peers  # noqa: E402
from runtimebench.goals import goals  # noqa: E402

from paredown.evaluators import exclusive_slot, interleaved, pinned  # noqa: E402
from paredown.evaluators.latency import last_cores, machine_facts  # noqa: E402

N_COMPARED = 128
BATCHES = (1, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=["resnet20", "resnet8", "dscnn", "kwt1", "stories260k"])
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing a model at batch 1; twice that at 32")
    parser.add_argument("--samples", type=int, default=2500, help="of the report split, at most")
    parser.add_argument("--leave-out", nargs="*", default=[], help="contestants, by name, such as 'torch-compile fp32'")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with pinned(last_cores(1)):
        for name in arguments.models:
            print(f"{name} …", file=sys.stderr, flush=True)
            results[name] = measure(name, arguments.seconds, arguments.samples, arguments.leave_out)
            _write(arguments.out, results)  # so that nothing is lost where it is stopped
    print(summary(_write(arguments.out, results)))


def _write(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    found = {
        "command": "python " + shlex.join(["benchmarks/runtimes/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_facts(threads=1),
        "load": os.getloadavg()[0],
        "goals": goals(results),
        "models": results,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    out.with_suffix(".md").write_text(summary(found))
    return found


def measure(name: str, seconds: float, n_samples: int, left_out: Sequence[str]) -> dict[str, Any]:
    problem = Problem.of(SUBJECTS[name]())
    subject = problem.subject
    n_samples = min(n_samples, 16 if subject.metric == "perplexity" else n_samples)
    with tempfile.TemporaryDirectory(prefix="paredown-bench-") as temporary:
        folder = Path(temporary)
        contestants = list(ours(problem, folder, min(N_COMPARED, n_samples), left_out))
        contestants += peers(problem, folder, folder / "onnxruntime fp32" / "model.onnx")
        rows = {each.name: _row(each) for each in contestants}
        running = [each for each in contestants if each.session is not None]
        for each in tuple(running):
            try:
                rows[each.name] |= _quality(each, problem, n_samples)
            except Exception as error:  # a maker's model may not run; the table says so
                rows[each.name]["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                running.remove(each)
        for batch in BATCHES:
            for group in (
                [e for e in running if e.runtime in COMPILED],
                [e for e in running if e.runtime not in COMPILED],
            ):
                _time(group, rows, problem, batch, seconds * (2 if batch > 1 else 1))
        others = [e for e in running if e.runtime in COMPILED]
        _time(others, rows, problem, 1, seconds, untimed=0, key="ms_1_among_others")
        profiles = {}
        if name == "kwt1":
            one = subject.report.take(1).inputs
            for format in ("fp32", "int8"):
                profiles[f"openvino {format}"] = where.in_openvino(folder / f"openvino {format}" / "model.xml", one)
                profiles[f"onnxruntime {format}"] = where.in_onnxruntime(
                    folder / f"onnxruntime {format}" / "model.onnx", one
                )
    return {"metric": subject.metric, "rows": list(rows.values()), "where_the_time_goes_ms": profiles}


def _row(each: Contestant) -> dict[str, Any]:
    row: dict[str, Any] = {"name": each.name, "runtime": each.runtime, "format": each.format}
    if each.reason:
        return row | {"reason": each.reason}
    return row | {"file_bytes": each.file_bytes, "export_s": round(each.export_s, 1)}


def _quality(each: Contestant, problem: Problem, n_samples: int) -> dict[str, Any]:
    """Accuracy, or of a language model the share of tokens that it puts first; and how far from PyTorch it is."""
    report = problem.subject.report.take(n_samples)
    outputs = torch.cat([each.session.run(inputs) for inputs, _ in report.batches(32)])
    if problem.subject.metric == "perplexity":
        right = outputs[:, :-1].argmax(-1) == report.inputs[:, 1:]
        found = {"quality": float(right.double().mean()), "n_report": right.numel()}
    else:
        right = outputs.argmax(-1) == report.targets
        found = {"quality": float(right.double().mean()), "n_report": len(right)}
    if each.expected is not None:
        mine, theirs = outputs[: len(each.expected)], each.expected
        found["rms_from_pytorch"] = float((mine - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())
        found["same_argmax"] = float((mine.argmax(-1) == theirs.argmax(-1)).double().mean())
    if hasattr(each.session, "compile_s"):
        found["compile_s"] = round(each.session.compile_s, 1)
    return found


def _time(
    group: Sequence[Contestant], rows: dict[str, Any], problem: Problem, batch: int, seconds: float, *,
    untimed: int = 1, key: str = "",
) -> None:  # fmt: skip
    inputs = problem.subject.report.take(batch).inputs
    timers = {each.name: (lambda each=each: each.session.run(inputs)) for each in group}
    if not timers:
        return
    with exclusive_slot():
        samples = interleaved(
            timers,
            min_rounds=20,
            min_seconds=seconds,
            max_seconds=3 * seconds,
            untimed=untimed,
            rng=np.random.default_rng(0),
        )
    for name, taken in samples.items():
        measured = taken.measurement()
        rows[name][key or f"ms_{batch}"] = measured.value
        rows[name][f"{key or f'ms_{batch}'}_interval"] = [measured.low, measured.high]


def summary(found: dict[str, Any]) -> str:
    lines = [f"`{found['command']}`, {found['date']}, load {found['load']:.1f}. p10 in ms, one pinned thread.", ""]
    lines += ["| goal | got | met | by |", "|---|---|---|---|"]
    for goal in found["goals"]:
        got = "-" if goal["got"] is None else f"{goal['got']:.3f}"
        met = {True: "yes", False: "**no**", None: "not seen"}[goal["met"]]
        lines.append(f"| {goal['goal']} | {got} | {met} | {goal['by']} |")
    for name, result in found["models"].items():
        lines += [
            "",
            f"## {name}",
            "",
            "| | batch 1 | the same, caches full of the others | batch 32 | quality | from PyTorch (rms) | file |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            if "reason" in row:
                lines.append(f"| {row['name']} | {row['reason']} | | | | | |")
                continue
            numbers = [f"{row[key]:.3f}" if key in row else "-" for key in ("ms_1", "ms_1_among_others", "ms_32")]
            apart = f"{row['rms_from_pytorch']:.1e}" if "rms_from_pytorch" in row else "-"
            lines.append(
                f"| {row['name']} | {' | '.join(numbers)} | {row['quality']:.4f} | {apart} | {row['file_bytes']:,} |"
            )
        for kind, parts in result["where_the_time_goes_ms"].items():
            most = ", ".join(f"{part} {ms:.3f}" for part, ms in list(parts.items())[:7])
            lines += ["", f"{kind}, {sum(parts.values()):.2f} ms in kernels: {most}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
