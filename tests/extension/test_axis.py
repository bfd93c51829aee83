"""An axis from outside the package, in one file: a key of [space] that a weight method of the same file reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.compressors import LayerInfo, LayerSpec, SpecField, register_field
from paredown.errors import SpecError, TaskError
from paredown.hardware_profiles import list_profiles, load_profile
from paredown.search import Axis, Task, open_run, register_axis, search, task_schema
from paredown.search.task import Plugins
from paredown.testing import isolated_registries

PLUGIN = '''
from dataclasses import replace

from paredown.compressors import SpecField, register_weight_method
from paredown.compressors.quantization import fit_nearest
from paredown.errors import SpecError
from paredown.search import Axis, register_axis


def check(name, value):
    if not isinstance(value, float) or not 0.0 < value <= 1.0:
        raise SpecError(f"{name} must be in (0, 1], got {value!r}")


def clipped(problem):
    """Round to nearest, after the largest weights were clipped to a share of the greatest."""
    share = problem.options.get("clip", 1.0)
    limit = share * problem.target.abs().amax()
    return fit_nearest(replace(problem, matrix=problem.matrix.clamp(-limit, limit)))


register_weight_method("clipped", clipped, formats=("int",))
register_axis(
    Axis(
        field=SpecField(
            name="clip", neutral=1.0, check=check, within="weight_bits", short="cl", schema={"type": "number"},
            misfit=lambda value, kind, shape: "clipping is for linear layers" if kind != "linear" else None,
        ),
        default=(1.0,),
        about="share of the largest weight at which weights are clipped",
    )
)
'''


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "clip.py").write_text(PLUGIN)
    (outside / "tiny.py").write_text((repository / "tests" / "search" / "tiny" / "tiny.py").read_text())
    return outside


def _data(**space: Any) -> dict[str, Any]:
    return {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [4, 32], "activation_bits": [32], "weight_method": ["clipped"], **space},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "search": {"table_samples": 32},
        "budget": {"trials": 3},
        "mlflow": {"enabled": False},
        "plugins": ["clip.py"],
    }


def test_it_is_a_key_of_a_task_a_level_a_config_and_reaches_the_method(
    folder: Path, tmp_path: Path, verified_elsewhere: Callable[[Path], dict[str, Any]]
) -> None:
    task = Task.from_dict(_data(clip=[1.0, 0.5]), base_dir=folder)  # the unknown key makes it load the plugin
    assert task.space.clip == (1.0, 0.5)
    assert task.to_dict()["space"]["clip"] == [1.0, 0.5]
    known = task_schema()["$defs"]["SpaceSection"]["properties"]["clip"]
    assert known["description"] == "share of the largest weight at which weights are clipped"
    front = search(task, out=tmp_path / "run", workers=1)
    run = open_run(tmp_path / "run")
    labels = [level.label() for group in run.space.groups for level in group.levels]
    assert "w4:clipped+clip=0.5" in labels
    assert "w4:clipped" in labels
    narrow = [point for point in front.points if '"clip": 0.5' in json.dumps(point.config)]
    uniform = [run.space.assignment(trial.candidate) for trial in run.trials if trial.kind == "uniform"]
    assert any(spec.value("clip") == 0.5 for of_layers in uniform for spec in of_layers.values())
    for point in narrow:
        assert verified_elsewhere(tmp_path / "run" / "verified" / point.id)["ok"]


def test_the_method_is_told_and_layers_that_it_does_not_fit_stay_neutral(folder: Path) -> None:
    import torch

    from paredown.compressors import Anatomy, applicable, compress
    from paredown.evaluators import lowered_as
    from paredown.search.space import build_space

    over = {"overrides": {"fc": {"clip": [0.25]}}}
    task = Task.from_dict(_data(clip=[0.5], **over), base_dir=folder)
    layers = tuple(LayerInfo(fqn=fqn, kind="linear", weight_shape=(4, 8)) for fqn in ("first", "fc"))
    conv = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(4, 8, 3, 3))
    space = build_space(task, Anatomy(layers=(*layers, conv)))
    found = {group.name: [level.to_dict().get("clip") for level in group.levels] for group in space.groups}
    assert found == {"first": [None, 0.5], "fc": [None, 0.25], "conv": [None, None]}
    spec = LayerSpec.from_dict({"weight_bits": 8, "weight_method": "clipped", "clip": 0.25})
    weight = torch.linspace(-1.0, 1.0, 32).reshape(4, 8)
    assert float(compress(weight, spec, layers[0]).effective.abs().max()) == pytest.approx(0.25, abs=0.01)
    assert applicable(spec, conv) == "clipping is for linear layers"
    profile = load_profile(list_profiles()[0])
    assert lowered_as(layers[0], spec, profile) == lowered_as(layers[0], spec.without("clip"), profile)


def test_it_is_undone_and_tasks_that_do_not_use_it_keep_their_digest(folder: Path) -> None:
    plain = Task.from_dict(_data(), base_dir=folder)
    with isolated_registries():
        Plugins.of(plain).load()
        again = Task.from_dict(_data(), base_dir=folder)
        assert again.space.clip == (1.0,)
        assert (again.to_dict(), again.digest) == (plain.to_dict(), plain.digest)
    without = {**_data(clip=[0.5]), "plugins": []}
    with pytest.raises(TaskError, match=r"space\.clip is not a known key"):
        Task.from_dict(without, base_dir=folder)
    with pytest.raises(SpecError, match="unknown key 'clip'"):
        LayerSpec.from_dict({"clip": 0.5})
    assert "clip" not in task_schema()["$defs"]["SpaceSection"]["properties"]


def test_names_that_are_taken_and_choices_that_no_method_would_see_are_refused() -> None:
    def check(name: str, value: Any) -> None: ...

    def axis(**field: Any) -> Axis:
        given = {"name": "mine", "neutral": 0, "check": check, "within": "weight_bits", "short": "mi", **field}
        return Axis(field=SpecField(**given), default=(0,), about="")

    register_axis(axis())
    with pytest.raises(TaskError, match="an axis 'mine' of \\[space\\] already"):
        register_axis(axis())
    with pytest.raises(SpecError, match="a choice 'weight_bits' \\(short 'w'\\) already"):
        register_axis(axis(name="other", short="w"))
    with pytest.raises(SpecError, match="must be within 'weight_bits' or 'sparsity'"):
        register_field(axis(name="other", within="rank").field)
    with pytest.raises(SpecError, match="needs a short key"):
        register_field(axis(name="other", short="").field)
