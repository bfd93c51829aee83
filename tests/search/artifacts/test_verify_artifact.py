"""An artifact far from home: loaded, checked without its original, compared, and never allowed to run code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import paredown
from paredown.digits import TASK_PATH
from paredown.errors import ConfigError, InputError, IntegrityError, ParedownError
from paredown.evaluators import Measurement
from paredown.search import Task, apply_config, diff, verify_artifact
from paredown.search._verify_artifact import EMBEDDED, MeasuredAgain, check_artifact
from paredown.search.artifacts import ExportedModel, Exporter, Parity, file_bytes, read_artifact, write_artifact
from paredown.search.artifacts._digests import digests_of
from paredown.search.problem import prepare
from paredown.search.space import assignment_of
from paredown.testing import isolated_registries

TINY = Path(__file__).parents[1] / "tiny" / "tiny.py"
LAYERS = {
    "first": {"weight_bits": 4, "activation_bits": 8},
    "second": {"weight_bits": 3, "sparsity": 0.8},
    "last": {"weight_bits": 8},
}


def tiny() -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "tiny"}
    exec(compile(TINY.read_text(), str(TINY), "exec"), namespace)
    model: nn.Module = namespace["model"]()
    return model


def changed() -> nn.Module:
    """The architecture with other weights."""
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def task_in(folder: Path) -> Task:
    return Task.from_dict(
        {
            "model": {"factory": "tiny.py:model", "weights": "weights.safetensors"},
            "data": {"factory": "tiny.py:data"},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "space": {"weight_bits": [3, 4, 8], "activation_bits": [8, 32]},
            "mlflow": {"enabled": False},
        },
        base_dir=folder,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task, its code and its weights, and artifacts that were made there: plain, coded, another."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(TINY, home / "tiny.py")
    torch.manual_seed(5)
    weights = {name: torch.randn_like(value) * 0.4 for name, value in tiny().state_dict().items()}
    save_file(weights, home / "weights.safetensors")
    task = task_in(home)
    config = {"schema_version": 2, "layers": LAYERS}
    other = {"schema_version": 2, "layers": {**LAYERS, "last": {"weight_bits": 6}}}
    apply_config(config, task, home / "plain")
    apply_config(config, task, home / "coded", entropy=True)
    exporter = Exporter(prepare(task, store=home / "store"))
    assignment = assignment_of(other, exporter.problem.anatomy)
    main = exporter.export(assignment, "paredown", home / "other")
    exported = ExportedModel(
        folder=home / "other", main=main, assignment=assignment, format="paredown", runtime="torch"
    )
    claims = {"bytes": Measurement(value=float(main.stat().st_size), unit="B")}
    write_artifact(exported, exporter, claims=claims, point="config", facts={})
    return home


@pytest.fixture
def untrue(home: Path) -> Iterator[Callable[[str], Task]]:
    """`untrue("outputs + 1.0")`: the task on a runtime whose sessions give that instead of their outputs."""

    def make(expression: str) -> Task:
        (home / "untrue.py").write_text(_UNTRUE.replace("EXPRESSION", expression))
        return task_in(home).with_overrides(
            ['plugins=["untrue.py"]', "hardware.runtime=untrue", 'hardware.profile="x86-64-torch"']
        )

    with isolated_registries():
        yield make


_UNTRUE = """
from paredown.evaluators.runtimes import TorchRuntime, register_runtime

class Session:
    def __init__(self, session):
        self.session = session

    def run(self, inputs):
        outputs = self.session.run(inputs)
        return EXPRESSION

class Untrue(TorchRuntime):
    name = format = "untrue"

    def load(self, path, **options):
        return Session(super().load(path, **options))

register_runtime(Untrue())
"""


def away(home: Path, tmp_path: Path) -> Path:
    """The artifact where the original's weights are not."""
    shutil.copytree(home / "plain", tmp_path / "artifact")
    shutil.copy(home / "tiny.py", tmp_path / "tiny.py")
    return tmp_path / "artifact"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows its digests; one of an older schema has none."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    if data["schema_version"] in (1, 2, 3):
        data.pop("digests", None)
        data.pop("runtime_options", None)
    elif isinstance(data["claims"], dict):
        data["digests"] = digests_of(data)
    path.write_text(json.dumps(data))


def test_what_is_loaded_is_a_plain_module(home: Path) -> None:
    plain, coded = (paredown.load(home / name, changed) for name in ("plain", "coded"))
    assert not plain.training
    x = torch.randn(5, 16)
    with torch.no_grad():
        assert torch.equal(plain(x), coded(x))
    state = plain.state_dict()
    assert set(state) == set(tiny().state_dict())
    assert int((state["second.weight"] == 0).sum()) >= round(0.8 * 24 * 24)
    assert [len(m._forward_pre_hooks) for m in (plain.first, plain.second, plain.last)] == [1, 0, 0]
    alone = paredown.load(home / "plain" / "model.safetensors", changed)
    assert torch.equal(alone.state_dict()["first.weight"], state["first.weight"])


def test_the_manifest_says_where_it_comes_from(home: Path) -> None:
    plain, coded = (read_artifact(home / name) for name in ("plain", "coded"))
    assert set(plain.data) == {"calibration", "search", "report"}
    assert sum(facts["n"] for facts in plain.data.values()) == 400
    assert all(len(facts["sha256"]) == 64 for facts in plain.data.values())
    assert plain.storage == {"entropy": False}
    assert coded.storage == {"entropy": True}
    assert plain.agreement.startswith("outputs within 0.0e+00")
    for artifact in (plain, coded):
        assert artifact.claims["bytes"].value == artifact.main_path.stat().st_size
        assert artifact.claims["file_bytes"].value == file_bytes(artifact.folder) == artifact.main_path.stat().st_size


def test_verified_at_home_and_away(home: Path, tmp_path: Path) -> None:
    found = verify_artifact(home / "coded", task=task_in(home))
    assert found["ok"]
    assert {"accuracy", "divergence", "speedup"} <= set(found["measured"])
    found = verify_artifact(away(home, tmp_path), task=task_in(tmp_path))
    assert found["ok"]
    assert found["measured"]["accuracy"]["value"] == found["claims"]["accuracy"]["value"]
    assert "latency_ms" in found["measured"]
    assert "divergence" not in found["measured"]
    assert "weights.safetensors" in found["checks"][-1]["detail"]


def test_the_architecture_is_enough_and_needed_where_weights_are_stored(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)
    section = {"data": {"factory": "tiny.py:data"}, "hardware": {"runtime": "torch", "latency_seconds": 0.02}}
    found = verify_artifact(
        artifact, task=Task.from_dict({"model": {"factory": "tiny.py:model"}, **section}, base_dir=tmp_path)
    )
    assert found["ok"]
    assert found["checks"][-1]["detail"] == "not compared with: the task names the architecture, and no weights"
    with pytest.raises(
        InputError, match=r"the task has no \[model\] to load them into; name the architecture's factory"
    ):
        verify_artifact(artifact, task=Task.from_dict(section, base_dir=tmp_path))


def test_a_quality_that_nobody_claimed_is_not_confirmed(home: Path, tmp_path: Path) -> None:
    found = verify_artifact(home / "plain", task=task_in(home).with_overrides(["quality.metric=cosine"]))
    assert [check["name"] for check in found["checks"] if not check["ok"]] == ["cosine"]
    assert not found["ok"]


def test_a_runtime_that_is_not_installed(home: Path, tmp_path: Path, repository: Path) -> None:
    """In a process whose imports find no onnxruntime, as in the fresh one that measures."""
    artifact = away(home, tmp_path)
    edit(artifact, lambda d: d.update(format="onnx", runtime="onnxruntime"))
    hidden = (
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'onnxruntime' else find(name, *rest)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hidden)
    (tmp_path / "task.toml").write_text('[data]\nfactory = "tiny.py:data"\n')
    done = subprocess.run(
        [sys.executable, "-m", "paredown", "verify", str(artifact), "--task", str(tmp_path / "task.toml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(repository / "src")])},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "the package 'onnxruntime' is not installed; get it with: pip install 'paredown[onnx]'" in done.stderr


def test_claims_about_other_data_are_not_confirmed(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)

    def data_check() -> dict[str, Any]:
        found = check_artifact(artifact, task=task_in(home), measure=lambda *_: MeasuredAgain())
        return next(check for check in found["checks"] if check["name"] == "data")

    assert data_check()["ok"]
    edit(artifact, lambda d: d["data"]["report"].update(sha256="0" * 64))
    assert not data_check()["ok"]
    assert "another than that of the claims" in data_check()["detail"]


def test_another_model_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to another model: the model has no first"):
        paredown.load(home / "plain", lambda: nn.Sequential(nn.Linear(16, 10)))
    with pytest.raises(InputError, match=r"model_factory must return a torch\.nn\.Module, got dict"):
        paredown.load(home / "plain", dict)  # type: ignore[arg-type]
    artifact = away(home, tmp_path)
    code = (tmp_path / "tiny.py").read_text()
    (tmp_path / "tiny.py").write_text(code.replace("nn.Linear(24, 24)", "nn.Linear(24, 24, bias=False)"))
    with pytest.raises(ConfigError, match=r"cannot be run: .* belongs to another model"):
        verify_artifact(artifact, task=task_in(tmp_path))
    (tmp_path / "tiny.py").write_text(code)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")  # a model of the same shape
    with pytest.raises(InputError, match="was made from another model than the task's"):
        verify_artifact(artifact, task=task_in(tmp_path))


def test_a_format_of_another_runtime_says_who_runs_it(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)
    edit(artifact, lambda d: d.update(format="onnx", runtime="onnxruntime"))
    with pytest.raises(InputError, match=r"no module of PyTorch; the runtime 'onnxruntime' runs it"):
        paredown.load(artifact, changed)


def test_code_that_an_artifact_names_is_data(home: Path, tmp_path: Path) -> None:
    """Reading, loading and comparing run nothing; checking runs what comes with paredown, or what a task names."""

    def of_ours(data: dict[str, Any]) -> None:
        data["task"]["model"].update(factory="paredown.digits.model:digits_net", weights="digits.safetensors")
        data["task"]["data"].update(factory="paredown.digits.data:digits_splits")

    artifact = away(home, tmp_path)
    (artifact / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    for change, complaint in (
        (
            lambda d: d["task"]["model"].update(factory=f"{artifact}/evil.py:model"),
            r"model\.factory = '.*evil\.py:model'",
        ),
        (
            lambda d: d["task"]["model"].update(factory=None, weights=None, export="evil.pt2"),
            "model.export = 'evil.pt2'",
        ),
        (
            lambda d: d["task"]["data"].update(factory="os:system"),
            r"data\.factory = 'os:system', which it does not hold",
        ),
        (
            lambda d: d["task"]["model"].update(
                factory="paredown.search.run._ledger:write_atomic",
                args={"path": str(tmp_path / "ran"), "text": "of a stranger's choice"},
            ),
            r"model\.factory = 'paredown\.search\.run\._ledger:write_atomic'",
        ),
        (
            lambda d: d["task"]["data"].update(factory="paredown.digits.data:np.save"),
            r"data\.factory = 'paredown\.digits\.data:np\.save'",
        ),
        (
            lambda d: d["task"]["quality"].update(metric="evil.py:top3", maximise=True),
            r"quality\.metric = 'evil\.py:top3'",
        ),
        (lambda d: d["task"].update(plugins=["artifact/evil.py"]), r"plugins = 'artifact/evil\.py'"),
        (lambda d: d["task"].update(plugins=["paredown.py"]), r"plugins = 'paredown\.py'"),
        (lambda d: d["task"].update(plugins=["paredown_evil"]), "plugins = 'paredown_evil'"),
        (lambda d: d["task"]["hardware"].update(profile="evil.json"), r"hardware\.profile = 'evil\.json'"),
    ):
        shutil.copy(home / "plain" / "manifest.json", artifact / "manifest.json")
        edit(artifact, of_ours)
        edit(artifact, change)
        read_artifact(artifact)
        paredown.load(artifact, changed)
        diff(artifact, artifact)
        with pytest.raises(InputError, match=complaint):
            verify_artifact(artifact)
    assert not (tmp_path / "ran").exists()


def test_what_runs_on_an_artifacts_own_word_is_the_embedded_default() -> None:
    task = Task.load(TASK_PATH)
    assert task.model is not None
    assert {task.model.factory, task.data.factory} == set(EMBEDDED)


def test_schema_1_is_read(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)

    def back(data: dict[str, Any]) -> None:
        data.update(schema_version=1, base_dir="/where/it/was/made")
        for key in ("data", "agreement", "storage"):
            del data[key]

    edit(artifact, back)
    read = read_artifact(artifact)
    assert (read.data, read.agreement, read.storage) == ({}, "", {"entropy": False})
    paredown.load(artifact, changed)


def test_schema_2_is_read_and_its_folder_of_another_machine_is_not(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)
    edit(artifact, lambda d: d.update(schema_version=2, base_dir=str(home)))  # it is here, by chance
    paredown.load(artifact, changed)
    with pytest.raises(InputError, match=r"model\.factory = 'tiny\.py:model', which it does not hold"):
        verify_artifact(artifact)
    found = verify_artifact(artifact, task=task_in(tmp_path))
    assert found["ok"]
    (check,) = [check for check in found["checks"] if check["name"] == "claims"]
    assert check["detail"].startswith("not protected: an older paredown wrote this manifest without digests")
    edit(artifact, lambda d: d.update(schema_version=3))
    with pytest.raises(InputError, match="unknown key 'base_dir'"):
        read_artifact(artifact)


def test_it_is_the_same_wherever_it_is_made(home: Path, tmp_path: Path) -> None:
    """Every file, to the byte, and all of the manifest but what was timed. `tiny.py` is named by its whole path in one
    of the two tasks."""
    folders = (tmp_path / "here", tmp_path / "some" / "where" / "else")
    manifests = []
    for folder in folders:
        shutil.copytree(home, folder, ignore=shutil.ignore_patterns("plain", "coded", "other", "last", "store", ".*"))
        task = task_in(folder)
        if folder is folders[0]:
            task = task.with_overrides([f'data.factory="{folder}/tiny.py:data"'])
        for format in ("paredown", "pt2"):
            apply_config({"schema_version": 2, "layers": LAYERS}, task, folder / format, format=format)
            data = json.loads((folder / format / "manifest.json").read_text())
            del data["machine"], data["digests"]
            data["claims"] = {name: m for name, m in data["claims"].items() if m["split"] == "report"}
            manifests.append(data)
    here, there = manifests[:2], manifests[2:]
    assert here == there
    assert {"accuracy", "runtime_apart"} <= set(here[0]["claims"])
    assert here[0]["files"].keys() == {"LOAD.md", "config.json", "model.safetensors"}
    assert not [m for m in manifests if str(tmp_path) in json.dumps(m)]


def test_the_folder_of_a_run_is_a_task(home: Path, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"task": task_in(home).to_dict(), "base_dir": str(home)}))
    assert verify_artifact(home / "plain", task=tmp_path)["ok"]
    with pytest.raises(InputError, match="no run at"):
        verify_artifact(home / "plain", task=home / "plain")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d.update(schema_version=6), InputError, "An artifact of a later version needs a later paredown"),
        (lambda d: d.update(schema_version=True), InputError, "schema version True"),
        (lambda d: d.update(files=[]), IntegrityError, "files must be a dict"),
        (lambda d: d["files"].update({"config.json": 3}), IntegrityError, "must say bytes and sha256"),
        (lambda d: d.update(main=7), IntegrityError, "main must be a str"),
        (lambda d: d["claims"].update(accuracy=0.9), IntegrityError, "no measurement"),
        (lambda d: d["files"].update({"a\0b": {"bytes": 1, "sha256": ""}}), IntegrityError, "is no name of a file"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    home: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], error: type[Exception], says: str
) -> None:
    artifact = away(home, tmp_path)
    edit(artifact, change)
    with pytest.raises(error, match=says):
        paredown.load(artifact, changed)


def test_a_manifest_nested_without_end(home: Path, tmp_path: Path) -> None:
    artifact = away(home, tmp_path)
    (artifact / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(IntegrityError, match="is not JSON"):
        paredown.load(artifact, changed)


class TestDiff:
    def test_of_two_artifacts(self, home: Path) -> None:
        found = diff(home / "plain", home / "other")
        assert json.loads(json.dumps(found)) == found
        assert not found["same"]
        rows = {row["layer"]: row for row in found["layers"]}
        assert [name for name, row in rows.items() if not row["same"]] == ["last"]
        assert (rows["last"]["a"]["label"], rows["last"]["b"]["label"]) == ("w8", "w6")
        assert rows["last"]["a"]["bytes"] - rows["last"]["b"]["bytes"] == 240 * 8 // 8 - 240 * 6 // 8
        assert 0 < rows["last"]["weight_error"] < 1e-2
        assert rows["first"]["weight_error"] == 0.0
        assert rows["second"]["a"]["stored"] != ["dense"]
        assert found["claims"]["bytes"]["a"] > found["claims"]["bytes"]["b"]

    def test_entropy_coding_changes_no_layer(self, home: Path) -> None:
        found = diff(home / "plain", home / "coded")
        assert found["same"]
        assert {row["weight_error"] for row in found["layers"]} == {0.0}

    def test_of_configs(self, home: Path, tmp_path: Path) -> None:
        path = tmp_path / "by-hand.json"
        path.write_text(json.dumps({"schema_version": 2, "layers": {"first": {"weight_bits": 4}}}))
        found = diff(path, home / "plain" / "config.json")
        assert [(row["layer"], row["a"]["label"], row["b"]["label"]) for row in found["layers"]] == [
            ("first", "w4", "w4 a8"), ("second", "fp32", "w3 s80"), ("last", "fp32", "w8")
        ]  # fmt: skip
        assert {row["weight_error"] for row in found["layers"]} == {None}
        beside = diff(path, home / "plain")
        assert beside["b"]["kind"] == "artifact"
        assert "both are of our own format" in beside["notes"][0]

    def test_what_is_neither(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is nothing at"):
            diff(tmp_path / "nowhere", tmp_path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"has neither manifest\.json nor config\.json"):
            diff(tmp_path / "empty", tmp_path)
        (tmp_path / "task.json").write_text('{"model": {}}')
        with pytest.raises(ConfigError, match="is it a config"):
            diff(tmp_path / "task.json", tmp_path / "task.json")

    def test_on_the_command_line(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from paredown.cli import main

        assert main(["diff", str(home / "plain"), str(home / "other")]) == 0
        captured = capsys.readouterr()
        assert "last" in captured.out
        assert "first" not in captured.out
        assert "1 of 3 layers differ" in captured.err
        assert main(["diff", str(home / "plain"), str(home / "coded"), "--all", "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["same"]
        assert "no layer differs" in captured.err


class TestParity:
    def test_by_hand(self) -> None:
        expected = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, 2.0]])
        found = torch.tensor([[1.0, 0.0], [0.0, 4.0], [1.2, 1.0]])
        parity = Parity.between(found, expected)
        assert (parity.max_difference, parity.same_answer, parity.margin) == pytest.approx((0.3, 2 / 3, 0.5))
        is_within, text = parity.verdict(integer=True)
        assert not is_within
        assert text.startswith(
            "outputs within 3.0e-01 of PyTorch's, the same answer on 66.67 % of 3 (missed: 99.9 % is"
        )
        assert text.endswith("led by 5.0e-01 at most")
        assert not parity.verdict(integer=False)[0]
        metrics = parity.metrics("report")
        assert metrics["runtime_apart"].value == pytest.approx(0.3)
        assert metrics["runtime_same_answer"].value == pytest.approx(2 / 3)
        assert metrics["runtime_same_answer"].low == pytest.approx(0.2077, abs=1e-4)  # Wilson, 2 of 3

    def test_outputs_without_answers_are_compared_by_their_size(self) -> None:
        parity = Parity.between(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
        assert (parity.max_difference, parity.same_answer, parity.n_other) == (0.5, None, 0)
        assert not parity.verdict(integer=True)[0]
        assert set(parity.metrics("report")) == {"runtime_apart"}

    @pytest.mark.parametrize("shape", [(6, 3, 5, 4), (6, 3, 5), (6, 3, 3)])
    @pytest.mark.parametrize("axis", [1, -1])
    def test_answers_are_counted_on_the_class_axis(self, shape: tuple[int, ...], axis: int) -> None:
        expected = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found = expected + 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        parity = Parity.between(found, expected, axis)
        same = (found.argmax(axis) == expected.argmax(axis)).double()
        assert (parity.same_answer, parity.n) == (pytest.approx(float(same.mean())), same.numel())
        assert parity.max_difference == pytest.approx(float((found - expected).abs().max() / expected.abs().max()))

    def test_without_a_class_axis_there_are_no_answers(self) -> None:
        maps = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
        parity = Parity.between(maps, maps, None)
        assert (parity.max_difference, parity.same_answer) == (0.0, None)

    def test_what_keeps_the_bound(self) -> None:
        expected = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0))
        near = Parity.between(expected + 1e-6, expected)
        assert near.verdict(integer=False)[0]
        rounded = Parity.between((expected * 500).round() / 500, expected)
        assert rounded.verdict(integer=True)[0]
        assert not rounded.verdict(integer=False)[0]

    def test_an_export_that_computes_something_else_is_not_written(
        self, home: Path, tmp_path: Path, untrue: Callable[[str], Task]
    ) -> None:
        config = {"schema_version": 2, "layers": {"last": {"weight_bits": 8}}}
        with pytest.raises(ParedownError, match="the export does not compute what PyTorch computes: outputs within"):
            apply_config(config, untrue("outputs + 1.0"), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_artifact_that_computes_something_else_does_not_hold_what_it_claims(self, home: Path) -> None:
        """Its config says other weights than those of its file; quality need not show it."""
        task = task_in(home)
        config = {"schema_version": 2, "layers": {"last": {"weight_bits": 8}}}
        apply_config(config, task, home / "last")
        (check,) = [c for c in verify_artifact(home / "last", task=task)["checks"] if c["name"] == "agreement"]
        assert check["ok"]
        edit(home / "last", lambda d: d["config"]["layers"]["last"].update(weight_bits=3))
        found = verify_artifact(home / "last", task=task)
        assert [c["name"] for c in found["checks"] if not c["ok"]] == ["agreement"]
        assert not found["ok"]

    def test_what_misses_its_bound_says_why(self, tmp_path: Path, untrue: Callable[[str], Task]) -> None:
        """Integers are an excuse, and the text gives it: PyTorch's own rounding, and the kernels that ran."""
        apply_config({"schema_version": 2, "layers": LAYERS}, untrue("outputs.flip(-1)"), tmp_path / "out")
        text = read_artifact(tmp_path / "out").agreement
        assert "(missed: 99.9 % is expected of integers); where it differs the expected answer led by" in text
        assert "Why: PyTorch's own outputs are within" in text  # this runtime names no kernels


def test_the_bytes_of_a_model_without_some_neurons_include_its_structure_file(home: Path, tmp_path: Path) -> None:
    task = task_in(home).with_overrides(["space.neurons=[1.0, 0.5]"])
    out = apply_config({"schema_version": 2, "layers": {"neurons:first": {"keep": 0.5}}}, task, tmp_path / "out")
    claimed = read_artifact(out).claims["bytes"].value
    assert claimed == sum((out / name).stat().st_size for name in ("model.safetensors", "structure.json"))
    checks = {check["name"]: check for check in verify_artifact(out, task=task)["checks"]}
    assert checks["bytes"]["ok"]


def test_file_bytes_counts_nested_folders_but_not_what_paredown_adds(tmp_path: Path) -> None:
    (tmp_path / "inner" / "empty").mkdir(parents=True)
    (tmp_path / "model.bin").write_bytes(bytes(100))
    (tmp_path / "inner" / "config.json").write_bytes(bytes(20))  # a model file of this name
    assert file_bytes(tmp_path) == 120
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_bytes(bytes(7))
    assert file_bytes(tmp_path) == 120


def test_entropy_coding_is_for_our_own_format(home: Path, tmp_path: Path) -> None:
    task = task_in(home)
    with pytest.raises(InputError, match="'pt2' is its runtime's own"):
        apply_config({"schema_version": 2, "layers": {}}, task, tmp_path / "out", format="pt2", entropy=True)
    assert not (tmp_path / "out").exists()
