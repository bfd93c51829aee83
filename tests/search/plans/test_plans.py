"""Plans: what each strategy promises of its config, exactly where it can be worked out by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paredown
from paredown.compressors import LayerSpec
from paredown.errors import InputError, LimitsNotMet
from paredown.search import (
    Candidate,
    Completed,
    Front,
    Group,
    SearchSpace,
    SensitivityTable,
    Task,
    apply_config,
)
from paredown.search.artifacts import read_artifact
from paredown.search.plans import (
    MEAN_BITS,
    STRATEGIES,
    StrategyContext,
    mean_bits,
    performance_levels,
    sensitivity_levels,
    uniform_levels,
)

TINY = Path(__file__).parents[1] / "tiny"
WIDTHS = (8, 4, 2)


def task(**tables: Any) -> Task:
    data: dict[str, Any] = {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [2, 4, 8, 32]},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "search": {"table_samples": 32},
        "budget": {"trials": 6},
        "mlflow": {"enabled": False},
    }
    return Task.from_dict(data | tables, base_dir=TINY)


def ground(limits: Mapping[str, Any], *, bits: float | None = None, seed: int = 0) -> StrategyContext:
    """Four layers of 10, 20, 30 and 40 weights at three widths, with made-up sensitivities, times and operations."""
    rng = np.random.default_rng(seed)
    sizes = (10, 20, 30, 40)
    specs = tuple(LayerSpec(weight_bits=width) for width in WIDTHS)
    space = SearchSpace(groups=tuple(Group(name=f"l{i}", layers=(f"l{i}",), levels=specs) for i in range(len(sizes))))
    divergence = tuple(tuple(sorted(rng.random(3).tolist())) for _ in sizes)
    rows = lambda f: tuple(tuple(float(f(size, width)) for width in WIDTHS) for size in sizes)
    costs = {
        "bytes": rows(lambda size, width: size * width / 8),
        "macs": rows(lambda size, width: size),
        "bops": rows(lambda size, width: 32 * size * width),
        "latency_ms": rows(lambda size, width: size * (1.0 if width == 8 else 0.5)),
    }
    table = SensitivityTable(divergence=divergence, costs=costs, fixed=dict.fromkeys(costs, 1.0), n_samples=1)
    return StrategyContext(
        space=space, anatomy=_Anatomy(sizes), limits=limits, bits=bits, costs=costs,  # type: ignore[arg-type]
        fixed=dict.fromkeys(costs, 1.0), weight_error=rows(lambda size, width: 2.0**-width), measure=lambda: table,
    )  # fmt: skip


class _Anatomy:
    """What a ground asks of one: how many weights a layer has."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def __getitem__(self, fqn: str) -> Any:
        return type("Layer", (), {"n_weights": self.sizes[int(fqn[1:])]})


def every(made: StrategyContext) -> list[tuple[tuple[int, ...], dict[str, float]]]:
    found = []
    for levels in itertools.product(range(3), repeat=4):
        candidate = Candidate(levels=levels)
        costs = {name: made.table.cost_of(name, candidate) for name in made.costs}
        costs |= {"divergence": made.table.divergence_of(candidate)}
        costs[MEAN_BITS] = sum(s * WIDTHS[i] for s, i in zip((10, 20, 30, 40), levels, strict=True)) / 100
        found.append((levels, costs))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limits", [{MEAN_BITS: (None, 4.0)}, {"bytes": (None, 40.0)}], ids=["bits", "bytes"])
def test_sensitivity_is_the_best_of_all_candidates_within_the_limits(seed: int, limits: Mapping[str, Any]) -> None:
    made = ground(limits, seed=seed)
    allowed = [(c["divergence"], levels) for levels, c in every(made) if all(c[n] <= b[1] for n, b in limits.items())]
    chosen = sensitivity_levels(made)
    assert made.table.divergence_of(Candidate(levels=chosen)) == pytest.approx(min(allowed)[0], rel=2e-4)


@pytest.mark.parametrize("seed", range(5))
def test_performance_is_the_fastest_within_the_slack_and_then_has_the_fewest_operations(seed: int) -> None:
    made = ground({MEAN_BITS: (None, 5.0)}, seed=seed)
    within = [(levels, c) for levels, c in every(made) if c[MEAN_BITS] <= 5.0 + 1e-9]
    most = 1.25 * min(c["divergence"] for _, c in within)
    able = [c for _, c in within if c["divergence"] <= most * (1 + 1e-9)]
    fastest = min(c["latency_ms"] for c in able)
    fewest = min(c["bops"] for c in able if c["latency_ms"] <= fastest * (1 + 1e-6))
    chosen = dict(every(made))[performance_levels(made, 0.25)]
    assert chosen["divergence"] <= most * (1 + 1e-3)
    assert (chosen["latency_ms"], chosen["bops"]) == (pytest.approx(fastest), pytest.approx(fewest))


def test_uniform_takes_the_width_that_was_asked_for_or_the_dearest_within_the_limits() -> None:
    assert uniform_levels(ground({MEAN_BITS: (None, 4.0)}, bits=4)) == (1, 1, 1, 1)
    assert uniform_levels(ground({"bytes": (None, 99.0)})) == (1, 1, 1, 1)
    assert uniform_levels(ground({"bytes": (None, 101.0)})) == (0, 0, 0, 0)
    with pytest.raises(LimitsNotMet, match=r"no uniform setting of 3 bits; it has w8, w4, w2"):
        uniform_levels(ground({MEAN_BITS: (None, 3.0)}, bits=3))
    with pytest.raises(LimitsNotMet, match=r"the least that one has is bytes 26"):
        uniform_levels(ground({"bytes": (None, 20.0)}))


def test_mean_bits_weigh_each_weight_alike() -> None:
    made = ground({})
    rows = mean_bits(made.space, made.anatomy)
    assert rows[:, 0].tolist() == pytest.approx([0.8, 1.6, 2.4, 3.2])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_gives_a_config_that_can_be_applied(strategy: str, tmp_path: Path) -> None:
    used = task()
    made = paredown.plan(used, strategy=strategy)
    assert made.strategy == strategy
    assert json.loads(json.dumps(made.to_dict()))["config"]["layers"]
    if strategy != "fp16-mse":
        assert made.limits == {MEAN_BITS: (None, 4.0)}
        assert made.metrics[MEAN_BITS].value <= 4.0
    assert ("divergence" in made.metrics) == (strategy in ("sensitivity", "performance", "energy"))
    if strategy in ("uniform", "sensitivity"):  # the artifact is as large as the plan has said
        artifact = read_artifact(apply_config(made.config, used, tmp_path / "applied"))
        assert artifact.claims["bytes"].value == made.metrics["bytes"].value


def test_the_tasks_own_limits_hold_where_none_are_given() -> None:
    limited = task(limits={"bytes": {"max_ratio": 0.4}})
    made = paredown.plan(limited, strategy="sensitivity")
    assert set(made.limits) == {"bytes"}
    assert made.metrics["bytes"].value <= made.limits["bytes"][1]  # type: ignore[operator]
    other = paredown.plan(limited, strategy="sensitivity", limits="mean_bits<=3,bytes<=90%")
    assert other.metrics[MEAN_BITS].value <= 3.0
    assert paredown.plan(limited, strategy="sensitivity").config == made.config, "twice the same"


def test_fp16_stays_where_int8_is_coarser_than_the_threshold() -> None:
    some = paredown.plan(task(), strategy="fp16-mse", threshold=0.0)
    assert {spec.get("weight_format") for spec in some.config["layers"].values()} == {"fp16"}
    middle = sorted(some.errors.values())[1]
    mixed = paredown.plan(task(space={"leave": ["last"]}), strategy="fp16-mse", threshold=middle)
    assert "last" not in mixed.config["layers"]
    for fqn, spec in mixed.config["layers"].items():
        assert (spec["weight_bits"] == 16) == (mixed.errors[fqn] > middle)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "best"}, "one of uniform, sensitivity, performance, energy, fp16-mse, got 'best'"),
        ({"bits": 4, "limits": "bytes<=25%"}, "bits or limits, not both"),
        ({"bits": 0.5}, "bits must be from 1 to 32"),
        ({"strategy": "fp16-mse", "bits": 4}, "has a threshold and no budget"),
        ({"threshold": 1e-3}, "a threshold is for fp16-mse alone"),
        ({"strategy": "energy", "slack": -1.0}, "slack is a share"),
        ({"limits": "accuracy>=0.9"}, "a limit is on one of bytes"),
    ],
)
def test_arguments_that_do_not_go_together_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paredown.plan(task(), **arguments)


def test_a_searcher_without_a_table_gets_one_for_the_plan() -> None:
    genetic = task(search={"table_samples": 32, "searcher": "genetic", "params": {"population": 4, "elites": 1}})
    assert "divergence" in paredown.plan(genetic).metrics


def test_a_space_that_removes_something_is_refused_by_name() -> None:
    removing = task(space={"weight_bits": [4, 32], "neurons": [1.0, 0.5]})
    with pytest.raises(InputError, match="offers to remove neurons:first; leave channels"):
        paredown.plan(removing, strategy="uniform")


def test_what_cannot_be_kept_says_what_can() -> None:
    with pytest.raises(LimitsNotMet, match="bytes <= 10 is out of reach: the least that this space allows is"):
        paredown.plan(task(), limits="bytes<=10")


def test_a_search_evaluates_the_plans_first(tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    plans = ["uniform", "sensitivity", "performance", "fp16-mse"]
    used = task(search={"table_samples": 32, "plans": plans, "race": False}, space={"weight_bits": [2, 3, 4, 6, 32]})
    front = search_unverified(used, out=tmp_path / "run", workers=0)
    run = paredown.open_run(front.run)
    notes = list(run.state.notes)
    named = [note for note in notes if "is the plan" in note]
    assert {word for note in named for word in note.replace(",", "").split()} >= {
        "uniform",
        "sensitivity",
        "performance",
    }
    assert "no plan fp16-mse: the space lacks its levels" in " ".join(notes)
    planned = paredown.plan(used, strategy="sensitivity").config["layers"]
    first = next(note for note in named if "sensitivity" in note)
    trial = run.trial(first.split()[0])
    assert isinstance(trial, Completed)
    assert {f: s.to_dict() for f, s in run.space.assignment(trial.candidate).items()} == planned
    assert run.state.n_mixed == 6, "plans are trials of the budget"
