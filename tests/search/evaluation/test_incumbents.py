"""Early stopping: which incumbent a candidate has to beat, what a worker returns, and what a run records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paredown._arrays import SingleArray
from paredown.errors import IntegrityError
from paredown.evaluators import Measurement, SequentialTest
from paredown.search import Candidate, Completed, EarlyStopped, Front, Objective, Task, open_run
from paredown.search.evaluation import Incumbent, Incumbents, Worker
from paredown.search.front import select
from paredown.search.problem import prepare
from paredown.search.run import read
from paredown.search.values import pack_losses, trial_from_record, trial_to_record, unpack_losses

MakeTask = Callable[..., Task]
TEST = SequentialTest(looks=(2,), total=4)
GUIDE = (Objective(name="divergence"), Objective(name="bytes"))


def _done(number: int, divergence: float, n_bytes: float, **more: float) -> Completed:
    values = {"divergence": divergence, "bytes": n_bytes, **more}
    return Completed(
        number=number,
        candidate=Candidate(levels=(number,)),
        kind="mixed",
        metrics={name: Measurement(value=value) for name, value in values.items()},
    )


def _losses(mean: float) -> SingleArray:
    return np.full(4, mean, dtype=np.float32)


def _asked(n_bytes: float) -> dict[str, Measurement]:
    return {"bytes": Measurement(value=n_bytes)}


def test_the_rival_is_the_best_of_those_no_dearer() -> None:
    rivals = Incumbents(GUIDE, ["bytes", "macs"], {}, TEST)
    for number, (divergence, n_bytes) in enumerate([(3.0, 10.0), (2.0, 20.0), (1.0, 30.0)]):
        assert rivals.add(_done(number, divergence, n_bytes), _losses(divergence))
    assert rivals.to_beat(_asked(9.0)) is None
    found = [rivals.to_beat(_asked(n_bytes)) for n_bytes in (10.0, 25.0, 99.0)]
    assert [rival.number for rival in found if rival] == [0, 1, 2]


def test_only_the_front_is_kept() -> None:
    rivals = Incumbents(GUIDE, ["bytes"], {}, TEST)
    assert rivals.add(_done(0, 2.0, 20.0), _losses(2.0))
    assert not rivals.add(_done(1, 2.5, 20.0), _losses(2.5))
    assert rivals.add(_done(2, 1.0, 20.0), _losses(1.0))  # trial 0 is off the front now
    assert len(rivals) == 1
    assert not rivals.add(_done(3, 0.5, 20.0), None)  # its losses are not known
    assert not rivals.add(_done(4, 0.5, 20.0), np.zeros(3, dtype=np.float32))  # of another split
    assert not rivals.add(replace(_done(5, 0.0, 1.0), kind="original"), _losses(0.0))


def test_only_what_is_allowed_is_a_rival() -> None:
    rivals = Incumbents(GUIDE, ["bytes"], {"accuracy": (0.9, None)}, TEST)
    assert not rivals.add(_done(0, 1.0, 10.0, accuracy=0.8), _losses(1.0))
    assert rivals.add(_done(1, 2.0, 10.0, accuracy=0.9), _losses(2.0))


def test_every_cost_counts() -> None:
    guide = (*GUIDE, Objective(name="macs"))
    rivals = Incumbents(guide, ["bytes", "macs"], {}, TEST)
    rivals.add(_done(0, 1.0, 10.0, macs=50.0), _losses(1.0))
    assert rivals.to_beat(_asked(20.0) | {"macs": Measurement(value=40.0)}) is None
    assert rivals.to_beat(_asked(20.0) | {"macs": Measurement(value=50.0)}) is not None


@pytest.mark.parametrize(
    "guide",
    [
        (*GUIDE, Objective(name="accuracy", maximise=True)),  # two qualities: none stands for both
        (Objective(name="divergence"),),  # nothing to be dearer in
    ],
)
def test_nobody_races_where_that_says_nothing(guide: tuple[Objective, ...]) -> None:
    rivals = Incumbents(guide, ["bytes"], {}, TEST)
    assert rivals.quality is None
    assert rivals.test is None
    assert not rivals.add(_done(0, 1.0, 10.0, accuracy=1.0), _losses(1.0))
    assert rivals.to_beat(_asked(10.0)) is None


def test_memory_is_bounded() -> None:
    rivals = Incumbents(GUIDE, ["bytes"], {}, TEST, max_bytes=2 * 16)
    kept = [rivals.add(_done(i, 3.0 - i, 10.0 + i), _losses(1.0)) for i in range(3)]
    assert kept == [True, True, False]
    assert rivals.add(_done(3, 0.1, 10.0), _losses(0.1))  # it beats both: there is room


def test_losses_survive_the_ledger() -> None:
    losses = np.array([0.0, 1e-7, 3.25, 1e30], dtype=np.float32)
    assert (unpack_losses(pack_losses(losses)) == losses).all()
    with pytest.raises(IntegrityError, match="cannot be read"):
        unpack_losses("no base64")
    with pytest.raises(IntegrityError, match="cannot be read"):
        unpack_losses("AAAA")  # three bytes


def test_a_dominated_trial_survives_the_ledger() -> None:
    trial = EarlyStopped(
        number=3, candidate=Candidate(levels=(1, 2)), kind="mixed", reason="t1 is no dearer",
        metrics={"divergence": Measurement(value=1.0, low=0.5, high=1.5, n=32)}, beaten_by=1, samples=32, seconds=0.5,
    )  # fmt: skip
    assert trial_from_record(trial_to_record(trial)) == trial
    with pytest.raises(ValueError, match="finite estimates only"):
        replace(trial, metrics={"divergence": Measurement(value=float("nan"))})


def test_an_estimate_is_never_on_the_front() -> None:
    original = replace(_done(0, 0.0, 40.0, accuracy=1.0), kind="original")
    done = _done(1, 1.0, 10.0, accuracy=0.9)
    better = EarlyStopped(
        number=2, candidate=Candidate(levels=(2,)), kind="mixed", reason="", beaten_by=1, samples=32,
        metrics=_done(2, 0.1, 5.0, accuracy=1.0).metrics,
    )  # fmt: skip
    objectives = (Objective(name="accuracy", maximise=True), Objective(name="bytes"))
    assert select([original, done, better], objectives, GUIDE, {}).front == {1}


@pytest.fixture
def worker(tiny_task: MakeTask, tmp_path: Path) -> Worker:
    return Worker(prepare(tiny_task(), store=tmp_path / "store").context)


def _worst_and_best(worker: Worker) -> tuple[Candidate, Candidate]:
    lowest = len(worker.context.space.groups[0].levels) - 1
    return Candidate(levels=(lowest,) * 3), Candidate(levels=(1, 1, 1))


def _incumbent(losses: SingleArray | None) -> Incumbent:
    assert losses is not None
    return Incumbent(number=7, costs=(), loss=float(losses.mean()), losses=losses)


def test_a_race_is_stopped_early_or_is_a_trial(worker: Worker) -> None:
    test = SequentialTest(looks=(32, 64, 128), total=160)
    worst, best = _worst_and_best(worker)
    alone = worker.evaluate(worst, quality="divergence", test=test)
    assert (alone.samples, alone.beaten_by) == (160, None)
    assert alone.losses is not None
    whole = worker.evaluate_low_fidelity(worst, 160).metrics
    assert alone.metrics["divergence"].value == pytest.approx(whole["divergence"].value)
    assert alone.metrics["accuracy"] == whole["accuracy"]
    assert float(alone.losses.mean()) == pytest.approx(whole["divergence"].value, rel=1e-6)

    strong = worker.evaluate(best, quality="divergence", test=test).losses
    lost = worker.evaluate(worst, quality="divergence", test=test, incumbent=_incumbent(strong))
    assert lost.beaten_by == 7
    assert lost.losses is None
    assert lost.samples in (32, 64, 128)
    estimate = lost.metrics["divergence"]
    assert estimate.n == lost.samples
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= alone.metrics["divergence"].value <= estimate.high
    assert lost.metrics["accuracy"].n == lost.samples

    won = worker.evaluate(best, quality="divergence", test=test, incumbent=_incumbent(alone.losses))
    assert won.beaten_by is None
    assert won.losses is not None
    assert strong is not None
    assert (won.losses == strong).all()  # its figures do not depend on whom it met
    again = worker.evaluate(worst, quality="divergence", test=test, incumbent=_incumbent(strong))
    assert again.metrics == lost.metrics  # and a lost race is repeatable


def test_a_race_on_the_metric(worker: Worker) -> None:
    test = SequentialTest(looks=(32, 64, 128), total=160, margin=0.0)
    worst, best = _worst_and_best(worker)
    strong = worker.evaluate(best, quality="accuracy", test=test)
    assert strong.losses is not None
    assert -float(strong.losses.mean()) == pytest.approx(strong.metrics["accuracy"].value)
    lost = worker.evaluate(worst, quality="accuracy", test=test, incumbent=_incumbent(strong.losses))
    assert lost.beaten_by == 7
    assert 0.0 <= lost.metrics["accuracy"].value < strong.metrics["accuracy"].value
    assert lost.metrics["accuracy"].low is not None


def test_without_racing_every_trial_sees_all_samples(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    search_unverified(tiny_task("search.race=false", "search.searcher=random"), out=tmp_path / "run", workers=0)
    trials = [t for t in open_run(tmp_path / "run").trials if t.kind != "original"]
    assert all(isinstance(t, Completed) and t.samples == 160 for t in trials)


def test_a_run_with_races(tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    task = tiny_task("search.searcher=random", "budget.trials=30", "quality.max_loss=1.0")
    front = search_unverified(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    dominated = [t for t in run.trials if isinstance(t, EarlyStopped)]
    assert dominated
    done = {t.number: t for t in run.trials if isinstance(t, Completed)}
    for trial in dominated:
        rival = done[trial.beaten_by]
        assert rival.metrics["bytes"].value <= trial.metrics["bytes"].value
        assert trial.samples < 160
        assert f"t{trial.number}" not in {p.id for p in front.points}
    status = run.status()
    assert status["trials"]["dominated"] == len(dominated)
    assert status["trials"]["completed"] + len(dominated) == len(run.trials)
    assert status["samples"] == sum(t.samples for t in dominated) + sum(t.samples for t in done.values())
    rows = (tmp_path / "run" / "trials.csv").read_text().splitlines()
    assert sum(",dominated," in row for row in rows) == len(dominated)
    records = read(tmp_path / "run" / "ledger.log")[0]
    assert all(r["samples"] > 0 for r in records if r["type"] == "trial" and r["kind"] != "original")


def test_a_race_goes_on_after_a_resume(
    tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]
) -> None:
    """The ledger cut after half of the trials, and gone on with: the same as in one go, for the losses are kept."""
    task = tiny_task("search.searcher=random", "budget.trials=20", "quality.max_loss=1.0")
    search_unverified(task, out=tmp_path / "whole" / "run", workers=0)
    whole = open_run(tmp_path / "whole" / "run").trials
    lines = (tmp_path / "whole" / "run" / "ledger.log").read_bytes().splitlines(keepends=True)
    at = [i for i, line in enumerate(lines) if b'"type":"trial"' in line.replace(b'": "', b'":"')]
    half = tmp_path / "half" / "run"
    half.mkdir(parents=True)
    (half / "task.json").write_bytes((tmp_path / "whole" / "run" / "task.json").read_bytes())
    (half / "ledger.log").write_bytes(b"".join(lines[: at[len(at) // 2]]))
    search_unverified(task, out=half, workers=0)
    told = [(t.number, t.candidate, type(t), t.metrics) for t in whole]  # type: ignore[union-attr]
    assert any(isinstance(t, EarlyStopped) for t in whole[len(at) // 2 :])
    assert [(t.number, t.candidate, type(t), t.metrics) for t in open_run(half).trials] == told  # type: ignore[union-attr]
