"""Judges the searchers' fronts on samples that no decision saw, and writes the summary.

python benchmarks/search/unseen.py --label 324be08
python benchmarks/search/unseen.py --label better --searchers evolution evolution@default

Traces go to benchmarks/results/search/unseen/LABEL/; a run that is there is left alone, and the summary compares all
labels. NAME@METHOD plays a searcher with another quantizer, NAME@default with the product's own quantizer and repairs.
A problem whose files or modules are missing is skipped, with the reason.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import torch
from searchbench.play import OWN, plays, run, split_name
from searchbench.problems import PROBLEMS, Problem
from searchbench.rivals import ONE_SEED, QUANTIZERS, RIVALS
from searchbench.standings import CHECKPOINTS, leads, standings, table
from searchbench.traces import Trace, load_traces

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("resnet20-bits", "dscnn-bits", "kwt1-bits", "resnet44-bits")
UNIFORM_METHODS = ("minmax", "percentile", "hqq", "gptq", "descent")
SEARCHERS = (
    OWN, *RIVALS, *(f"{name}@{method}" for name, method in QUANTIZERS.items()),
    *(f"uniform@{method}" for method in UNIFORM_METHODS),
)  # fmt: skip
"""The default searcher and all rivals with the problem's quantizer, then the rivals with their own."""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    folder = arguments.results / "unseen" / arguments.label
    for seed, problem in product(range(arguments.seeds), _playable(arguments.problem)):
        for searcher in arguments.searchers:
            is_double = seed > 0 and split_name(searcher)[0] in ONE_SEED
            if plays(problem, searcher) and not is_double:
                _play(arguments, problem, searcher, seed, folder / problem / f"{searcher}-{seed}.json")
    print(summarise(arguments.results))


def _playable(problems: Sequence[str]) -> list[str]:
    kept = []
    for problem in problems:
        spec = PROBLEMS[problem]
        missing = spec.missing if isinstance(spec, Problem) else "is synthetic and has no samples"
        if missing:
            print(f"{problem}: skipped, {missing}", file=sys.stderr)
        else:
            kept.append(problem)
    return kept


def _play(arguments: argparse.Namespace, problem: str, searcher: str, seed: int, path: Path) -> None:
    budget = float(CHECKPOINTS[-1])
    if path.is_file() and Trace.load(path).context["budget"] >= budget:
        return
    began = time.monotonic()
    work = arguments.work / arguments.label
    trace = run(problem, searcher, seed, evaluations=budget, work=work, judged_at=CHECKPOINTS)
    command = shlex.join(["python", "benchmarks/search/unseen.py", *sys.argv[1:]])
    facts = {"budget": budget, "command": command, "commit": _commit(), "date": datetime.now(UTC).date().isoformat()}
    replace(trace, context={**trace.context, **facts}).save(path)
    line = f"{problem:18} {searcher:16} seed {seed}: {trace.volume_at(budget):.4f}, {time.monotonic() - began:.0f} s"
    print(line, file=sys.stderr, flush=True)


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def summarise(results: Path) -> str:
    """Writes unseen.json and unseen.md; gives the markdown."""
    by_problem: dict[str, dict[str, list[Trace]]] = {}
    for folder in sorted((results / "unseen").iterdir(), key=lambda path: _first_date(path)):
        for trace in load_traces(folder):
            by_problem.setdefault(trace.problem, {}).setdefault(folder.name, []).append(trace)
    found, text = [], ""
    for name in (name for name in PROBLEMS if name in by_problem):
        spec = PROBLEMS[name]
        if not isinstance(spec, Problem):
            continue
        own = standings(dict(by_problem[name]), spec.worst)
        trace = next(iter(by_problem[name].values()))[0]
        found += own
        text += f"\n## {name}\n\n{_described(trace, spec)}\n\n{table(own)}" if own else ""
    lead = f"Lead on unseen samples over the best rival with the same quantizer:\n\n{leads(found)}"
    text = f"# Fronts on unseen samples\n\n{lead}{text}"
    context = {
        revision: {key: traces[0].context.get(key) for key in ("command", "commit", "date", "processor", "torch")}
        for by_revision in by_problem.values()
        for revision, traces in by_revision.items()
    }
    data = {"revisions": context, "standings": [one.to_dict() for one in found]}
    (results / "unseen.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (results / "unseen.md").write_text(text, encoding="utf-8")
    return text


def _first_date(folder: Path) -> tuple[str, str]:
    dates = [str(trace.context.get("date", "")) for trace in load_traces(folder)]
    return min(dates, default=""), folder.name


def _described(trace: Trace, spec: Problem) -> str:
    n = trace.unseen.n if trace.unseen is not None else 0
    name = trace.unseen.name if trace.unseen is not None else "the metric"
    return (
        f"{trace.samples} samples are searched on, {n} others judge. Box: {spec.floor:g} to {spec.ceiling:g} nats or "
        f"{name} up to {spec.worst:g} worse than the original's, {trace.box.cheapest:,.0f} to "
        f"{trace.box.dearest:,.0f} bytes."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", required=True, help="name of this revision of the product in the tables")
    parser.add_argument("--problem", nargs="+", choices=list(PROBLEMS), default=list(FIRST))
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), help="NAME or NAME@METHOD")
    parser.add_argument("--seeds", type=int, default=2, help="so many: 0, 1, 2, …")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "search")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search-unseen", help="runs and variant stores")
    return parser.parse_args()


if __name__ == "__main__":
    main()
