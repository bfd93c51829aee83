"""Fronts judged on samples that the search did not see: by hand, and on a small net that every rival plays on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unseen as script
from searchbench import play, workbench
from searchbench.problems import DEFAULTS, PROBLEMS, Problem
from searchbench.rivals import RIVALS
from searchbench.rivals._gradients import curvature, fisher_diagonals, weight_of
from searchbench.standings import BEST_UNIFORM, leads, standings, table
from searchbench.traces import Box, Trace, Unseen

from paredown.search import Candidate
from paredown.search.evaluation import Worker

FACTORY = """
import torch
from torch import nn


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    return net.eval()


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(400, 6, generator=generator)
    with torch.no_grad():
        labels = (model()(inputs) + 0.05 * torch.randn(400, 3, generator=generator)).argmax(dim=1)
    cuts = {"calibration": slice(0, 64), "search": slice(64, 128), "report": slice(128, 400)}
    return {name: (inputs[part], labels[part]) for name, part in cuts.items()}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """Three layers of a perceptron; 64 samples are searched on, 200 judge."""
    (tmp_path / "tiny.py").write_text(FACTORY, encoding="utf-8")
    problem = Problem(
        name="tiny", model={"factory": f"{tmp_path}/tiny.py:model"}, data={"factory": f"{tmp_path}/tiny.py:data"},
        space={"weight_bits": [2, 3, 4, 8]}, samples=64, floor=1e-5, ceiling=1.0, unseen=200,
    )  # fmt: skip
    monkeypatch.setitem(PROBLEMS, "tiny", problem)
    return problem


@pytest.mark.parametrize("searcher", ["evolution", *RIVALS, "spdy@minmax", f"evolution@{DEFAULTS}"])
def test_every_player_is_judged(searcher: str, tiny: Problem, tmp_path: Path) -> None:
    trace = play.run("tiny", searcher, 0, evaluations=24, work=tmp_path, judged_at=(12, 24))
    assert len(trace.points) == len(trace.levels) == len(trace.metrics) >= 3
    assert trace.unseen is not None
    assert (trace.unseen.n, trace.unseen.name, trace.unseen.maximise) == (200, "accuracy", True)
    judged = {i for i, value in enumerate(trace.unseen.divergence) if value is not None}
    assert judged >= {*trace.on_front(12), *trace.on_front(24)}
    assert all((trace.unseen.metric[i] is not None) == (i in judged) for i in range(len(trace.points)))


def test_the_figures_are_those_of_the_levels(tiny: Problem, tmp_path: Path) -> None:
    """Applied again by hand: divergence and accuracy on the first 200 samples of the report split."""
    trace = play.run("tiny", "fisher", 0, evaluations=15, work=tmp_path, judged_at=(15,))
    task = tiny.task("random", {}, 0)
    with workbench.opened(task, tmp_path / "again", tmp_path / "store") as bench:
        split, worker = bench.problem.report.take(200), Worker(bench.problem.context)
        inputs = torch.as_tensor(split.inputs)
        before = bench.problem.context.model(inputs).log_softmax(dim=1).double()
        assert trace.unseen is not None
        assert trace.unseen.original == pytest.approx(_accuracy(before, split.targets))
        place = trace.on_front(15)[0]
        with worker.candidate_model.applied(Candidate(levels=trace.levels[place])) as model:
            after = model(inputs).log_softmax(dim=1).double()
        found = worker.evaluate_low_fidelity(Candidate(levels=trace.levels[place]), 64).metrics
    apart = (before.exp() * (before - after)).sum(dim=1).mean()
    assert trace.unseen.divergence[place] == pytest.approx(float(apart), rel=1e-2)
    assert trace.unseen.metric[place] == pytest.approx(_accuracy(after, split.targets))
    assert (found["divergence"].value, found["accuracy"].value) == pytest.approx(
        (trace.points[place][1], trace.metrics[place])
    )


def _accuracy(outputs: torch.Tensor, targets: Any) -> float:
    return float((outputs.argmax(dim=1) == targets).double().mean())


def test_fisher_information_of_a_linear_layer(tiny: Problem, tmp_path: Path) -> None:
    """Of the last layer: the gradient of one sample is (p - y) x', whose square is averaged over the samples."""
    with workbench.opened(tiny.task("random", {}, 0), tmp_path / "run", tmp_path / "store") as bench:
        context = bench.problem.context
        split, weight = context.split.take(8), weight_of(context.model, "4")
        found = fisher_diagonals(context, split, {"4": weight}, np.random.default_rng(0))["4"]
        x = context.model[:4](torch.as_tensor(split.inputs))
        error = context.model[4](x).softmax(dim=1) - torch.nn.functional.one_hot(torch.as_tensor(split.targets), 3)
        expected = (error[:, :, None] * x[:, None, :]).square().mean(dim=0)
        assert found == pytest.approx(expected.numpy(), rel=1e-4)
        assert not weight.requires_grad
        lab = play.RealLab(bench, 1e6)
        both = curvature(lab, np.random.default_rng(0))
        assert lab.spent == 64 * (4 + 3)  # four uniform settings, and three passes for each of 64 gradients
        order = np.argsort(lab.costs, axis=1)
        for scores in (both.weighted, both.traced):
            assert (np.diff(np.take_along_axis(scores, order, axis=1), axis=1) < 0).all()


def test_a_problem_says_what_it_lacks(tiny: Problem) -> None:
    assert tiny.missing == ""
    from dataclasses import replace

    absent = replace(tiny, needs={"json": "it is there", "no_such_module": "pip install no-such-module"})
    assert absent.missing == "needs no_such_module (pip install no-such-module)"


def test_quantizers_are_named_unless_the_defaults_are_asked_for(tiny: Problem) -> None:
    def written(problem: Problem) -> tuple[Any, Any]:
        task = problem.task("random", {}, 0).to_dict()
        return task["space"].get("weight_method"), task["repair"].get("batch_norm")

    assert list(written(tiny)[0]) == ["affine"]
    assert written(tiny)[1] == "off"
    assert list(written(tiny.as_methods("gptq"))[0]) == ["gptq"]
    assert tiny.as_methods(DEFAULTS).methods == tiny.as_methods(DEFAULTS).repair == {}


def test_the_command_plays_once_and_appends(
    tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "CHECKPOINTS", (8, 12))
    for label in ("old", "old", "new"):
        common = ["--results", str(tmp_path / "r"), "--work", str(tmp_path / "w"), "--seeds", "2"]
        names = ["--problem", "tiny", "synthetic-known", "--searchers", "random", "uniform", "uniform@minmax"]
        monkeypatch.setattr(sys, "argv", ["unseen.py", "--label", label, *names, *common])
        script.main()
    said = capsys.readouterr().err
    assert said.count("tiny ") == 8  # of each label two seeds of `random`, and one of each `uniform`
    assert said.count("synthetic-known: skipped, is synthetic") == 3
    paths = sorted((tmp_path / "r" / "unseen").rglob("*.json"))
    assert [path.relative_to(tmp_path / "r" / "unseen").parts[0] for path in paths] == ["new"] * 4 + ["old"] * 4
    facts = Trace.load(paths[0]).context
    assert {"command", "commit", "date", "budget", "processor"} <= set(facts)
    text = (tmp_path / "r" / "unseen.md").read_text(encoding="utf-8")
    assert "| random | old | 2 |" in text
    assert "| random | new | 2 |" in text
    data = json.loads((tmp_path / "r" / "unseen.json").read_text(encoding="utf-8"))
    assert set(data["revisions"]) == {"old", "new"}


BOX = Box(floor=1e-2, ceiling=1.0, cheapest=0.0, dearest=1000.0)
TOLD = (0.1, 500.0, 0.8, 0.1, 0.7)  # divergence, bytes, accuracy, and both on unseen samples


def a_trace(searcher: str, *points: tuple[float, float, float, float | None, float | None], **changes: Any) -> Trace:
    """The uniform setting costs one evaluation, and each further point 20. The original has .9, and .8 unseen."""
    rows = [TOLD, *points]
    return Trace(
        problem="p", searcher=searcher, seed=0, samples=10, box=BOX, spent=1000.0, booked={"baselines": 10.0},
        points=tuple((10.0 + 200.0 * i, row[0], row[1]) for i, row in enumerate(rows)),
        levels=tuple((i,) for i in range(len(rows))), metrics=tuple(row[2] for row in rows),
        unseen=Unseen(
            n=9, name="accuracy", maximise=True, original=0.8, original_search=0.9,
            divergence=tuple(row[3] for row in rows), metric=tuple(row[4] for row in rows),
        ),
        **changes,
    )  # fmt: skip


def test_what_is_kept_of_a_gain() -> None:
    """In the search's eyes the divergence falls to the floor (volume .25 → .5), unseen to 10^-1.5 (→ .375)."""
    own = a_trace("evolution", (0.01, 500.0, 0.9, 10**-1.5, 0.75))
    (early, middle, last) = standings({"old": [own]}, worst=0.2)
    assert (early.evaluations, early.volumes.divergence) == (25, pytest.approx(0.5))
    assert last.volumes.divergence_unseen == pytest.approx(0.375)
    assert (last.gain.divergence, last.gain.divergence_unseen) == pytest.approx((0.25, 0.125))
    assert last.kept == pytest.approx(0.5)
    # accuracy: .1 lost of .2 (.25) becomes 0 (.5); unseen .1 lost (.25) becomes .05 lost (.375)
    assert (last.volumes.metric, last.volumes.metric_unseen) == pytest.approx((0.5, 0.375))
    assert last.kept_metric == pytest.approx(0.5)
    assert middle == standings({"old": [own]}, worst=0.2)[1]


def test_the_front_is_chosen_on_the_search_samples() -> None:
    """The point that looked worse is not taken, though it is the better one on unseen samples."""
    own = a_trace("evolution", (0.05, 400.0, 0.85, 0.2, 0.6), (0.06, 400.0, 0.85, 0.011, 0.8))
    last = standings({"old": [own]}, worst=0.2)[-1]
    assert last.volumes.divergence_unseen == pytest.approx(BOX.volume([(0.2, 400.0)]))


def test_a_point_without_a_figure_adds_nothing() -> None:
    own = a_trace("evolution", (0.01, 500.0, 0.9, None, None))
    last = standings({"old": [own]}, worst=0.2)[-1]
    assert (last.volumes.divergence_unseen, last.volumes.metric_unseen) == (0.0, 0.0)


def test_uniform_settings_of_all_methods_are_one_front() -> None:
    traces = [a_trace("uniform"), a_trace("uniform@gptq", (0.05, 250.0, 0.9, 0.05, 0.8))]
    every = standings({"old": traces}, worst=0.2)
    found = {one.searcher: one for one in every}
    assert found[BEST_UNIFORM].volumes == found["uniform@gptq"].volumes
    assert found["uniform"].kept is None
    assert "| – | – |" in table(every)


def test_revisions_stand_side_by_side_and_lead_over_the_rivals_of_any() -> None:
    rival = a_trace("fisher", (0.05, 500.0, 0.8, 0.05, 0.7))
    old, new = (a_trace("evolution", (x, 500.0, 0.9, x, 0.8)) for x in (0.08, 0.01))
    other = a_trace("spdy@gptq", (0.01, 10.0, 0.9, 0.01, 0.8))  # another quantizer is no rival of equal means
    found = standings({"old": [rival, old, other], "new": [new]}, worst=0.2)
    lines = leads(found).splitlines()[2:]
    gap = [BOX.volume([(x, 500.0)]) - BOX.volume([(0.05, 500.0)]) for x in (0.08, 0.01)]
    assert lines[0].startswith(f"| p | old | {gap[0]:+.3f} (fisher) |")
    assert lines[1].startswith(f"| p | new | {gap[1]:+.3f} (fisher) |")
    assert table(found).splitlines()[2].startswith("| spdy@gptq | old | 1 | 0.")
