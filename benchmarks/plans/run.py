"""What each plan gives on ResNet-20 at 4 mean bits: accuracy on the report split, size, and what the profile says.

python benchmarks/plans/run.py [--bits 4] [--out benchmarks/results/plans.json]

Four minutes of one core. Needs PAREDOWN_ASSETS (see examples/README.md).
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import paredown
from paredown.compressors import LayerSpec
from paredown.evaluators import Scores, divergence_per_sample, evaluate_outputs, paired_test
from paredown.search import Task
from paredown.search.artifacts import Exporter
from paredown.search.evaluation import LayerVariants
from paredown.search.plans import STRATEGIES
from paredown.search.problem import Problem, judge, prepare
from paredown.search.task import environment

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "plans.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    example = Task.load(ROOT / "examples" / "cifar10" / "task.toml")
    task = Task.from_dict({**example.to_dict(), "limits": {}}, base_dir=example.base_dir)
    plans = {
        strategy: paredown.plan(task, strategy=strategy, bits=None if strategy == "fp16-mse" else arguments.bits)
        for strategy in STRATEGIES
    }
    with tempfile.TemporaryDirectory() as folder:
        wanted = [LayerSpec.from_dict(spec) for plan in plans.values() for spec in plan.config["layers"].values()]
        problem = prepare(task, store=Path(folder), specs=lambda _: wanted)
        bed = Bed(problem)
        rows = {"original": bed.measure({}, {})}
        for strategy, plan in plans.items():
            assignment = {fqn: LayerSpec.from_dict(spec) for fqn, spec in plan.config["layers"].items()}
            metrics = {name: m.value for name, m in plan.metrics.items()}
            rows[strategy] = bed.measure(assignment, metrics)
            print(strategy, rows[strategy], flush=True)
    result = {
        "command": f"python benchmarks/plans/run.py --bits {arguments.bits:g}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {key: value for key, value in environment().items() if key not in ("executable", "packages")},
        "profile": problem.profile.name,
        "bits": arguments.bits,
        "report_images": len(problem.report),
        "plans": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    picture(rows, arguments.out.with_suffix(".png"))


class Bed:
    """Accuracy on the report split, beside the uniform plan's on the same images."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.variants, self.exporter = problem, LayerVariants(problem.context), Exporter(problem)
        self.uniform: torch.Tensor | None = None

    def measure(self, assignment: Mapping[str, LayerSpec], metrics: Mapping[str, float]) -> dict[str, Any]:
        from paredown.compressors import CompressedModel

        bench, report, reference = self.problem.context, self.problem.report, self.exporter.reference
        resident = CompressedModel(bench.model, bench.anatomy, bench.calibration)
        with resident.apply(assignment, self.variants.variants(assignment)), torch.inference_mode():
            outputs = torch.cat([bench.model(inputs) for inputs, _ in report.batches(bench.batch_size)])
        scores = evaluate_outputs(bench.metric, report, outputs, reference)
        apart = divergence_per_sample(outputs, reference.outputs, bench.divergence, variance=reference.variance)
        judged = judge(bench, Scores(metric=scores, divergence=apart), split="report")
        accuracy = judged["accuracy"]
        with tempfile.TemporaryDirectory() as folder:
            stored = self.exporter.stored_bytes(assignment, Path(folder))
        row = {**metrics, "accuracy": [accuracy.value, accuracy.low, accuracy.high], "stored_bytes": stored}
        if assignment and self.uniform is None:
            self.uniform = scores
        elif assignment:
            found = paired_test(scores, self.uniform, bench.metric)
            row["over_uniform"] = {
                "difference": found.difference,
                "low": found.low,
                "high": found.high,
                "p": found.p_value,
            }
        return row


def picture(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.0), layout="constrained")
    names = list(rows)
    for at, name in enumerate(names):
        value, low, high = (100 * x for x in rows[name]["accuracy"])
        axes.errorbar(value, at, xerr=[[value - low], [high - value]], fmt="o", color="C0", capsize=3)
        axes.annotate(f"{rows[name]['stored_bytes'] / 1000:.0f} kB", (high, at), (6, -3), textcoords="offset points")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy on the report split, % (95 % interval); stored size beside it")
    axes.margins(x=0.25)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
