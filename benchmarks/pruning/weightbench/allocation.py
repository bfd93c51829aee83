"""The search's allocation against uniform and global-threshold ones, at no more bytes, on the report split."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paredown.search import Completed, Task
from paredown.search.space import plans, uniform_settings, weights_of

from .bench import Bench

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "search"))
from searchbench import workbench  # noqa: E402
from searchbench.play import _explore  # noqa: E402

SPARSE = {"sparsity": [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], "sparsity_method": ["wanda"]}
MAGNITUDE = {"sparsity": [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
RANK = {"rank": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], "rank_method": ["asvd"]}
SPACES = {"magnitude": MAGNITUDE, "wanda": SPARSE, "low rank": RANK}
MODELS: dict[str, dict[str, Any]] = {
    "resnet20": {
        "model": {"factory": "../../../examples/cifar10/resnet.py:trained_resnet20"},
        "data": {"factory": "../../search/searchbench/sources.py:cifar10", "batch_size": 64},
        "samples": 512,
    },
    "stories260k": {  # a sample is a window of 512 tokens
        "model": {"factory": "factories.py:stories_model"},
        "data": {"factory": "factories.py:stories_splits", "batch_size": 16},
        "quality": {"metric": "perplexity"},
        "leave": ["tok_embeddings", "output"],
        "samples": 24,
        "table_samples": 4,
    },
}
EVALUATIONS = 120


def allocation(bench: Bench, space: str, work: Path, say: Callable[[str], None], evaluations: int = EVALUATIONS) -> Any:
    """JSON-ready: for each baseline the point of the search that costs no more bytes, both on the report split.

    `loss` is what is lost of the metric against the original, in its own unit; `gain` is how much less the search's
    point loses, with its paired 95 % interval.
    """
    with workbench.opened(
        _task(bench.subject.name, space), work / f"{bench.subject.name}-{space}", work / "store"
    ) as at:
        _explore(at, evaluations)
        problem = at.problem
        labels = {c: label for label, c in uniform_settings(problem.space)}
        labels |= {c: label for label, c in plans(problem.space, weights_of(problem.context.model))}
        trials = [t for t in at.state.trials if isinstance(t, Completed) and t.kind != "original"]
        found = []
        for trial in (t for t in trials if t.kind == "uniform"):
            bytes_of = trial.metrics["bytes"].value
            rivals = [t for t in trials if t.kind == "mixed" and t.metrics["bytes"].value <= bytes_of]
            if not rivals:
                continue
            best = min(rivals, key=lambda t: t.metrics["divergence"].value)
            found.append(_compared(bench, problem.space, labels[trial.candidate], trial, best))
            say(f"{bench.subject.name:12} {space:10} {found[-1]}")
    return {"evaluations": evaluations, "baselines": found}


def _compared(bench: Bench, space: Any, label: str, baseline: Completed, best: Completed) -> dict[str, Any]:
    (theirs, their_scores), (ours, our_scores) = (
        bench.of(_assignment(space.assignment(t.candidate))) for t in (baseline, best)
    )
    return {
        "baseline": label,
        "value": theirs["value"],
        "loss": -theirs["gain"],
        "bytes": theirs["bytes"],
        "searched": {key: ours[key] for key in ("value", "bytes")} | {"loss": -ours["gain"]},
        **{key: value for key, value in bench.against(our_scores, their_scores).items() if key != "value"},
    }


def _assignment(assignment: Mapping[str, Any]) -> dict[str, Any]:
    return {fqn: spec for fqn, spec in assignment.items() if not spec.is_neutral}


def _task(model: str, space: str) -> Task:
    given = MODELS[model]
    return Task.from_dict(
        {
            "model": given["model"],
            "data": given["data"],
            "quality": {"max_loss": 1.0, **given.get("quality", {})},
            "space": {"weight_bits": [32], "activation_bits": [32], "leave": given.get("leave", []), **SPACES[space]},
            "hardware": {"runtime": "torch"},
            "search": {"seed": 0, "samples": given["samples"], "table_samples": given.get("table_samples", 64)},
            "budget": {"trials": 1_000_000, "trial_timeout_s": 600.0},
            "mlflow": {"enabled": False},
        },
        base_dir=HERE,
    )
