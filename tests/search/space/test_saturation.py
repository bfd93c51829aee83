"""On a processor without VNNI nothing is searched that its integer kernels overflow with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.compressors import Anatomy, LayerInfo
from paredown.hardware_profiles import list_profiles, load_profile
from paredown.search import Task, open_run, search
from paredown.search.space import build_space
from paredown.search.task import _machine as _environment
from paredown.search.task import default_profile, settle_profile

MakeTask = Callable[..., Task]

OLD = {"architecture": "x86_64", "instruction_sets": ["avx2"]}
NEW = {"architecture": "x86_64", "instruction_sets": ["avx2", "avx512f", "avx512_vnni"]}
FC = LayerInfo(fqn="fc", kind="linear", weight_shape=(16, 64))
ANATOMY = Anatomy(layers=(FC,), groups=(("fc",),), unused=())


@pytest.fixture
def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _environment._cpuinfo()
    monkeypatch.setattr(_environment, "_cpuinfo", lambda: facts | {"flags": "sse4_2 avx2 fma"})
    monkeypatch.setattr(_environment.platform, "machine", lambda: "x86_64")


def task(**space: Any) -> Task:
    return Task.from_dict({"data": {"factory": "a:b"}, "space": space})


def offered(profile: str, **space: Any) -> list[str]:
    (group,) = build_space(task(**space), ANATOMY, profiles=[load_profile(profile)]).groups
    return [level.label() for level in group.levels]


def test_which_profiles_saturate() -> None:
    found = [name for name in list_profiles() if load_profile(name).saturates]
    assert found == ["x86-64-avx2-onnxruntime", "x86-64-avx2-openvino"]


def test_seven_bits_cannot_overflow() -> None:
    """The largest code of an unsigned byte by the largest of a signed one, twice."""
    assert 2 * 255 * 2**6 < 2**15 <= 2 * 255 * 2**7


def test_the_profile_of_a_task_that_names_none() -> None:
    assert default_profile("onnxruntime", NEW) == "x86-64-onnxruntime"
    assert default_profile("onnxruntime", OLD) == "x86-64-avx2-onnxruntime"
    assert default_profile("openvino", {**OLD, "instruction_sets": ["avx2", "avx_vnni"]}) == "x86-64-openvino"
    # there is none for PyTorch, nothing is known, and another architecture has no VNNI to lack
    assert default_profile("torch", OLD) == "x86-64-torch"
    assert default_profile("openvino", {**OLD, "instruction_sets": []}) == "x86-64-openvino"
    assert default_profile("openvino", {"architecture": "aarch64", "instruction_sets": ["asimd"]}) == "x86-64-openvino"


@pytest.mark.usefixtures("without_vnni")
def test_a_profile_that_is_named_stays() -> None:
    assert settle_profile(task()).hardware.profile == "x86-64-avx2-onnxruntime"
    named = task().with_overrides(["hardware.profile=x86-64-onnxruntime"])
    assert settle_profile(named) == named


def test_integers_get_seven_bits_and_the_rest_keeps_eight() -> None:
    both: dict[str, Any] = {"weight_bits": [4, 7, 8], "activation_bits": [8, 32]}
    assert offered("x86-64-onnxruntime", **both) == ["w8", "w8 a8", "w7", "w7 a8", "w4", "w4 a8"]
    assert offered("x86-64-avx2-onnxruntime", **both) == ["w8", "w7", "w7 a8", "w4", "w4 a8"]
    # groups run in floating point: nothing to overflow
    grouped = offered("x86-64-avx2-onnxruntime", weight_bits=[8], activation_bits=[8], group_size=[16])
    assert grouped == offered("x86-64-onnxruntime", weight_bits=[8], activation_bits=[8], group_size=[16])


@pytest.mark.usefixtures("without_vnni")
def test_a_search_without_vnni(tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    asked = tiny_task(
        "hardware.runtime=onnxruntime", "space.weight_bits=[4, 8]", "space.activation_bits=[8]", "budget.trials=2"
    )
    front = search(asked, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    assert any("weights have 7 bits for 8" in note for note in run.state.notes), run.state.notes
    assert run.task.hardware.profile == "x86-64-avx2-onnxruntime"
    assert "w7 a8" in {point.label for point in front.points if point.kind == "uniform"}
    widths = {spec.weight_bits for group in run.space.groups for spec in group.levels}
    assert 8 not in widths
    monkeypatch.undo()  # a newer machine goes on with what was begun here, and so does the same task there
    search(asked, out=tmp_path / "run", workers=0)
    assert open_run(tmp_path / "run").task.hardware.profile == "x86-64-avx2-onnxruntime"
