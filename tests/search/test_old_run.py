"""A run of the version before, whose ledger carries no version: everything that reads a run gives what it gave then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import IntegrityError
from paredown.search import Run, export_point, open_run, resolve, resume
from paredown.search.artifacts import read_artifact
from paredown.search.run import SCHEMA_VERSION, Ledger, RunFacts, read

OLD = Path(__file__).parent / "data" / "old-run"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A copy of the old run in another place, and the task's own file beside it."""
    shutil.copytree(OLD / "run", tmp_path / "run")
    task = tmp_path / "run" / "task.json"
    data = json.loads(task.read_text())
    task.write_text(json.dumps({**data, "base_dir": str(OLD / "task")}))
    return open_run(tmp_path / "run")


def expected(name: str, run: Run) -> Any:
    """What the version before answered, with the place where the run lies now."""
    data = json.loads((OLD / "expected" / f"{name}.json").read_text())
    return _renamed(data, str(run.path))


def _renamed(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, path) for each in value]
    return value.replace("RUN", path) if isinstance(value, str) else value


def test_its_front_and_its_status_are_what_they_were(run: Run) -> None:
    found, before = json.loads(json.dumps(run.front().to_dict())), expected("front", run)
    judged = ("note", "rival", "recommended")  # this version judges by more baselines
    for front in (found, before):
        front["points"] = [{k: v for k, v in p.items() if k not in judged} for p in front["points"]]
        del front["picks"]
    assert found == {**before, "lost_baselines": [], "no_star": "", "aa_floor": found["aa_floor"]}  # new keys
    status, old = json.loads(json.dumps(run.status())), expected("status", run)
    assert {**status, "picks": old["picks"]} == old


def test_its_points_are_judged_by_the_tests_that_it_made_and_resume_makes_the_others(run: Run) -> None:
    """It tested each point against the best baseline that costs no more; this version asks for the next dearer ones."""
    front = run.front()
    assert {p.id for p in front.points if p.recommended} == {"t24"}
    assert front["t24"].note == ("better than uniform w4 (t8; bytes -16.1 %) by 5.50 points of accuracy [2.00, 9.50]")
    assert front["t26"].note.startswith(
        "lead over uniform w4 (t8; bytes -6.9 %) not confirmed: 0.00 points of accuracy"
    )
    assert front["t19"].note.startswith("not compared with uniform w8 (t5) yet: `paredown resume ")
    assert set(front.picks.values()) == {"t24"}
    resume(run.path, workers=0)
    after = open_run(run.path).front()
    assert "not compared" not in after["t19"].note
    assert {p.id for p in after.points if p.recommended} == {"t24", "t19"}


def test_its_points_are_explained_as_they_were(run: Run) -> None:
    for which, point in json.loads((OLD / "expected" / "points.json").read_text()).items():
        rows = expected(f"explain-{which}", run)["layers"]
        assert json.loads(json.dumps(run.explain(point))) == rows


def test_it_is_resolved_as_it_was(run: Run) -> None:
    found = json.loads(json.dumps(resolve(run.path, limits="bytes<=30%").to_dict()))
    before = expected("resolve", run)
    for answer in (found, before):
        for point in answer["points"]:
            del point["seconds"]
    assert found == {key: value for key, value in before.items() if key != "run"} | (
        {"run": found["run"]} if "run" in found else {}
    )


def test_a_point_of_it_is_exported_to_the_very_same_file(run: Run, tmp_path: Path) -> None:
    point = json.loads((OLD / "expected" / "points.json").read_text())["verified"]
    folder = export_point(run.path, point, "paredown", tmp_path / "out")
    before = read_artifact(run.path / "verified" / point)
    assert read_artifact(folder).main_path.read_bytes() == before.main_path.read_bytes()
    assert read_artifact(folder).config == before.config


def test_its_facts_become_a_record_of_this_version(run: Run) -> None:
    old = [record for record in read(run.path / "ledger.log")[0] if record["type"] == "facts"][-1]
    assert "schema_version" not in old
    record = run.facts().to_record()
    assert record.pop("schema_version") == SCHEMA_VERSION
    # this version names two of a layer's keys otherwise, and says what the metric is a mean of, what counts, and what
    # is repaired
    differing = ("anatomy", "outputs", "quality_is", "repair", "spent_s")
    same = {key: value for key, value in old.items() if key not in differing}
    assert {key: value for key, value in json.loads(json.dumps(record)).items() if key not in differing} == same


def test_a_key_that_this_version_does_not_know_is_named_and_one_of_the_version_before_is_not(run: Run) -> None:
    record = run.facts().to_record()
    assert RunFacts.from_record(record) == run.facts()
    with pytest.raises(ValueError, match="unknown key 'moods' in the facts of a run; known are"):
        RunFacts.from_record({**record, "moods": []})
    lacking = {key: value for key, value in record.items() if key != "profiles"}
    with pytest.raises(ValueError, match="the facts of a run lack the key 'profiles'"):
        RunFacts.from_record(lacking)
    del lacking["schema_version"]
    assert RunFacts.from_record({**lacking, "moods": []}) == run.facts()


def test_a_ledger_of_a_newer_version_is_refused_with_what_to_do(run: Run) -> None:
    with Ledger(run.path / "ledger.log") as ledger:
        ledger.append({"type": "started", "schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(IntegrityError, match=r"was written by a newer paredown: its format has version 5.*update"):
        open_run(run.path)
