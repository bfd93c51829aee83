"""Makes the table of goals, the tables of hypervolumes and the picture from the traces and the cost figures.

python benchmarks/search/summarise.py

Reads traces/ and costs.json in benchmarks/results/search; writes summary.json, summary.md and hypervolume.png there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from searchbench import goals
from searchbench.picture import draw
from searchbench.play import known_optimum
from searchbench.problems import PROBLEMS, SyntheticSpec
from searchbench.traces import Trace, load_traces

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "search")
    results = parser.parse_args().results
    print(summarise(results))


def summarise(results: Path) -> str:
    """Writes the three files; gives the markdown."""
    traces = load_traces(results / "traces")
    path = results / "costs.json"
    costs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = [*goals.of_traces(traces), *goals.of_costs(costs)]
    problems = goals.by_problem(traces)
    text = "# Goals\n\n" + goals.markdown(found)
    for name, own in problems.items():
        text += f"\n## {name}\n\nHypervolume, median of the seeds, by cost in full evaluations. {_box(own[0])}\n\n"
        text += goals.volumes(own)
        if (optimum := _optimum(name, own)) is not None:
            text += f"\nThe true front's hypervolume, median of the instances: {optimum:.4f}.\n"
    summary = {"goals": [goal.to_dict() for goal in found], "costs": costs, "runs": [_entry(t) for t in traces]}
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (results / "summary.md").write_text(text, encoding="utf-8")
    if problems:
        draw(problems, results / "hypervolume.png")
    return text


def _box(trace: Trace) -> str:
    box = trace.box
    size = f"{box.cheapest:,.0f} to {box.dearest:,.0f} bytes" if trace.problem not in _synthetic() else "all its bytes"
    return f"Box: {box.floor:g} to {box.ceiling:g} nats, {size}; a full evaluation passes {trace.samples} samples."


def _synthetic() -> set[str]:
    return {name for name, spec in PROBLEMS.items() if isinstance(spec, SyntheticSpec)}


def _optimum(name: str, traces: list[Trace]) -> float | None:
    spec = PROBLEMS.get(name)
    if not isinstance(spec, SyntheticSpec) or not spec.is_small:
        return None
    values = sorted(known_optimum(spec, instance) for instance in {trace.instance for trace in traces})
    return values[len(values) // 2]


def _entry(trace: Trace) -> dict[str, object]:
    return {
        "problem": trace.problem,
        "searcher": trace.searcher,
        "seed": trace.seed,
        "evaluations": trace.evaluations,
        "booked": dict(trace.booked),
        "counts": dict(trace.counts),
        "seconds": trace.seconds,
        "volumes": {str(at): trace.volume_at(at) for at in goals.CHECKPOINTS if at <= trace.evaluations * 1.001},
    }


if __name__ == "__main__":
    main()
