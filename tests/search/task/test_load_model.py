"""Models and metrics that a task names: what is loaded, and what is refused in which words."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paredown.compressors import trace_anatomy
from paredown.errors import MissingExtra, TaskError
from paredown.evaluators import get_metric
from paredown.search import Task
from paredown.search.task import load_task_metric, load_task_model, user_modules

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, fail=False):
        super().__init__()
        if fail:
            raise ValueError("bad width")
        self.body = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).relu())

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x))

def net(**args):
    return Net(**args)

def nothing():
    Net()

def the_class():
    return Net

def half():
    return Net().half()

def meta():
    return nn.Linear(2, 2, device="meta")

a_number = 3

def score(outputs, targets):
    return (outputs.argmax(1) == targets).float()
"""

Make = Callable[..., Task]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "nets.py").write_text(NETS)

    def build(quality: dict[str, Any] | None = None, **model: Any) -> Task:
        if not {"export", "huggingface"} & set(model):
            model = {"factory": "nets.py:net"} | model
        return Task.from_dict({"model": model, "data": {"factory": "a:b"}, "quality": quality or {}}, tmp_path)

    return build


def refused(task: Task, *parts: str, load: Callable[[Task], object] = load_task_model) -> str:
    with pytest.raises(TaskError) as caught:
        load(task)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    return message


class TestFactory:
    def test_it_gets_its_arguments_and_comes_in_eval_mode(self, make: Make) -> None:
        model = load_task_model(make(args={"width": 7}))
        assert model.body.weight.shape == (7, 3)
        assert not model.training

    def test_a_module_by_its_dotted_name(self, tmp_path: Path) -> None:
        task = Task.from_dict(
            {
                "model": {"factory": "torch.nn:Linear", "args": {"in_features": 2, "out_features": 3}},
                "data": {"factory": "a:b"},
            },
            tmp_path,
        )
        assert isinstance(load_task_model(task), nn.Linear)

    def test_another_process_loads_the_same(self, make: Make, tmp_path: Path) -> None:
        task = make(args={"width": 5})
        code = """if True:
            import json, sys
            from paredown.search.task._load_model import load_task_model
            from paredown.search.task._task import Task
            model = load_task_model(Task.from_dict(*json.loads(sys.argv[1])))
            print(model, model.body.weight.tolist())
        """
        run = subprocess.run(
            [sys.executable, "-c", code, json.dumps([task.to_dict(), str(task.base_dir)])],
            capture_output=True,
            text=True,
            cwd=tmp_path.parent,
            env={"PYTHONPATH": str(Path(__file__).parents[3] / "src"), "OMP_NUM_THREADS": "1", "PATH": ""},
            check=True,
        )
        model = load_task_model(task)
        assert run.stdout.strip() == f"{model} {model.body.weight.tolist()}"

    def test_initial_weights_are_drawn_alike_and_nobody_else_notices(self, make: Make) -> None:
        before = torch.random.get_rng_state()
        one = load_task_model(make())
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(3)
        assert torch.equal(load_task_model(make()).body.weight, one.body.weight)

    def test_half_precision_is_widened(self, make: Make) -> None:
        assert {p.dtype for p in load_task_model(make(factory="nets.py:half")).parameters()} == {torch.float32}

    @pytest.mark.parametrize(
        ("model", "parts"),
        [
            ({"factory": "nots.py:net"}, ["model.factory = 'nots.py:net'", "there is no file", "nots.py"]),
            ({"factory": "nets.py:nett"}, ["nets.py has no 'nett'", "mean 'net'?"]),
            ({"factory": "no_such_package.x:f"}, ["there is no module 'no_such_package'", "install it"]),
            ({"factory": "torch.nn:Lineer"}, ["torch.nn has no 'Lineer'", "mean 'Linear'?"]),
            ({"factory": "nets.py:a_number"}, ["must name a function or a class, got a int"]),
            ({"args": {"fail": True}}, ["'nets.py:net' raised ValueError: bad width (nets.py line 9)", "[model.args]"]),
            (
                {"factory": "nets.py:Net", "args": {"widht": 3}},
                ["cannot be called with [model.args]", "'widht'", "width=4"],
            ),
            ({"factory": "nets.py:nothing"}, ["must return a torch.nn.Module, got None", "return model"]),
            ({"factory": "nets.py:the_class"}, ["must return a torch.nn.Module", "return an instance"]),
            ({"factory": "nets.py:meta"}, ["weight is on the meta device"]),
        ],
    )
    def test_what_cannot_be_used(self, make: Make, model: dict[str, Any], parts: list[str]) -> None:
        refused(make(**model), *parts)

    def test_a_file_that_does_not_run(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("x = 1\nimport no_such_thing_at_all\n")
        refused(make(factory="broken.py:f"), "running", "ModuleNotFoundError", "(broken.py line 2)")
        (tmp_path / "syntax.py").write_text("x = 1\ndef f(:\n")
        refused(make(factory="syntax.py:f"), "syntax.py", "SyntaxError", "(line 2)")

    def test_no_model_at_all(self, tmp_path: Path) -> None:
        refused(Task.from_dict({"data": {"factory": "a:b"}}, tmp_path), "the task has no [model]")

    def test_a_changed_file_is_run_again(self, make: Make, tmp_path: Path) -> None:
        task = make(factory="small.py:f")
        for width in (2, 5):
            (tmp_path / "small.py").write_text(f"from torch import nn\ndef f():\n    return nn.Linear(1, {width})\n")
            assert load_task_model(task).out_features == width

    def test_its_modules_can_be_sent_by_value_with_the_neighbours_they_import(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "neighbour_of_user.py").write_text("from torch import nn\nclass Block(nn.Linear): ...\n")
        (tmp_path / "user.py").write_text("from neighbour_of_user import Block\ndef f():\n    return Block(1, 1)\n")
        task = make(factory="user.py:f")
        model = load_task_model(task)
        modules = user_modules(task)
        assert sys.modules[type(model).__module__] in modules
        assert {Path(str(m.__file__)).name for m in modules} >= {"user.py", "neighbour_of_user.py"}


class TestWeights:
    def weights(
        self, make: Make, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], **model: Any
    ) -> Task:
        tensors = {key: tensor.clone() for key, tensor in load_task_model(make(**model)).state_dict().items()}
        change(tensors)
        save_file(tensors, tmp_path / "w.safetensors")
        return make(weights="w.safetensors", **model)

    def test_they_are_loaded_by_key(self, make: Make, tmp_path: Path) -> None:
        task = self.weights(make, tmp_path, lambda t: t["head.weight"].fill_(0.5))
        assert torch.equal(load_task_model(task).head.weight, torch.full((2, 4), 0.5))

    def test_what_says_nothing_new_may_be_missing(self, make: Make, tmp_path: Path) -> None:
        counted = self.weights(make, tmp_path, lambda t: t.pop("norm.num_batches_tracked"))
        load_task_model(counted)

        def drop_tied(tensors: dict[str, torch.Tensor]) -> None:
            tensors["embed.weight"].fill_(2.0)
            del tensors["head.weight"]

        model = load_task_model(self.weights(make, tmp_path, drop_tied, factory="nets.py:Tied"))
        assert model.head.weight is model.embed.weight
        assert torch.equal(model.head.weight, torch.full((5, 3), 2.0))

    def test_tied_tensors_that_differ_in_the_file(self, make: Make, tmp_path: Path) -> None:
        task = self.weights(make, tmp_path, lambda t: t["head.weight"].add_(1), factory="nets.py:Tied")
        refused(task, "embed.weight and head.weight are one tensor in the model and differ")

    def test_keys_that_do_not_fit_are_named(self, make: Make, tmp_path: Path) -> None:
        def rename(tensors: dict[str, torch.Tensor]) -> None:
            tensors["haed.bias"] = tensors.pop("head.bias")

        refused(self.weights(make, tmp_path, rename), "w.safetensors", "missing head.bias", "unexpected haed.bias")

    def test_only_the_first_few_are_named(self, make: Make, tmp_path: Path) -> None:
        refused(
            self.weights(make, tmp_path, lambda t: t.clear()),
            "missing body.weight, body.bias, norm.weight",
            "and 4 more",
        )

    def test_a_prefix_is_recognised(self, make: Make, tmp_path: Path) -> None:
        def wrap(tensors: dict[str, torch.Tensor]) -> None:
            for key in list(tensors):
                tensors[f"module.{key}"] = tensors.pop(key)

        refused(self.weights(make, tmp_path, wrap), "take the prefix 'module.' off the keys")

    def test_shapes_that_do_not_fit_are_named(self, make: Make, tmp_path: Path) -> None:
        self.weights(make, tmp_path, lambda t: None)
        task = make(weights="w.safetensors", args={"width": 6})
        refused(task, "body.weight is (4, 3) in the file and (6, 3) in the model", "[model.args]")

    def test_no_such_file(self, make: Make, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
        refused(make(weights="w.safetensors"), "there is no file", "the folder has other.safetensors")
        refused(make(weights="."), "got the folder")

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_a_checkpoint_is_refused_whatever_its_name(self, make: Make, tmp_path: Path, name: str) -> None:
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
        refused(make(weights=name), f"{name} is a pickle", "expected safetensors", "weights_only=True")

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_a_pickle_is_refused_and_not_run(self, make: Make, tmp_path: Path, protocol: int) -> None:
        (tmp_path / "w.bin").write_bytes(pickle.dumps(_Bomb(tmp_path / "ran"), protocol=protocol))
        refused(make(weights="w.bin"), "w.bin is a pickle")
        assert not (tmp_path / "ran").exists()

    def test_an_old_pickle_without_magic_is_refused_and_not_run(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(pickle.dumps(_Bomb(tmp_path / "ran"), protocol=0))
        refused(make(weights="w.bin"), "w.bin is not a whole safetensors file", "usually pickles")
        assert not (tmp_path / "ran").exists()

    def test_a_file_that_is_cut_off(self, make: Make, tmp_path: Path) -> None:
        task = self.weights(make, tmp_path, lambda t: None)
        path = tmp_path / "w.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        refused(task, "w.safetensors is not a whole safetensors file")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Exported(nn.Module):
    """Every kind of layer, one of them used twice, and a tensor shared by two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, dilation=1, groups=4)
        self.flat = nn.Conv1d(4, 6, 3, padding="same")
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.embed = nn.Embedding(5, 6, padding_idx=0)
        self.head = nn.Linear(6, 5, bias=False)
        self.head.weight = self.embed.weight
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.deep(self.norm(self.stem(x)).relu())
        x = self.flat(x.flatten(2)).mean(2)
        x = self.inner(self.inner(x))
        return self.head(self.drop(x + self.embed(x.argmax(1) % 5)))


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


def export(path: Path, model: nn.Module, *, batch: int = 2, dynamic: bool = True) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(model, (torch.randn(batch, 2, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, path)


class TestExport:
    def test_it_runs_as_before_and_its_layers_can_be_compressed(self, make: Make, tmp_path: Path) -> None:
        torch.manual_seed(0)
        original = Exported().eval()
        export(tmp_path / "m.pt2", original)
        model = load_task_model(make(export="m.pt2"))
        for batch in (1, 3):
            x = torch.randn(batch, 2, 8, 8)
            torch.testing.assert_close(model(x), original(x), rtol=0, atol=0)
        ours, theirs = (trace_anatomy(m, torch.randn(1, 2, 8, 8)) for m in (model, original))
        assert ours == theirs
        assert {group for group in ours.groups if len(group) > 1} == {("embed", "head")}

    def test_a_weight_that_its_parent_uses_leaves_the_parent_whole(self, make: Make, tmp_path: Path) -> None:
        """`nn.MultiheadAttention` calls the linear operator with `out_proj.weight`, and has a weight of its own."""
        torch.manual_seed(0)
        original = Attends().eval()
        x = torch.randn(2, 5, 8)
        program = torch.export.export(original, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(program, tmp_path / "m.pt2")
        model = load_task_model(make(export="m.pt2"))
        torch.testing.assert_close(model(x), original(x), rtol=0, atol=0)
        assert {name for name, _ in model.named_parameters()} == {name for name, _ in original.named_parameters()}
        assert set(trace_anatomy(model, x).fqns) >= {"attention.out_proj", "head"}

    def test_its_mode_can_change_and_it_can_be_copied_and_sent(self, make: Make, tmp_path: Path) -> None:
        from ray import cloudpickle

        export(tmp_path / "m.pt2", Exported().eval())
        model = load_task_model(make(export="m.pt2")).train().eval()
        x = torch.randn(2, 2, 8, 8)
        for other in (copy.deepcopy(model), cloudpickle.loads(cloudpickle.dumps(model))):
            assert torch.equal(other(x), model(x))

    def test_a_fixed_batch_is_refused(self, make: Make, tmp_path: Path) -> None:
        export(tmp_path / "m.pt2", Exported().eval(), dynamic=False)
        refused(make(export="m.pt2"), "takes batches of exactly 2 (input x)", "Dim.DYNAMIC")

    def test_train_mode_is_refused(self, make: Make, tmp_path: Path) -> None:
        export(tmp_path / "m.pt2", Exported().train())
        refused(make(export="m.pt2"), "m.pt2 was exported in train mode", "model.eval()")

    def test_other_files_are_refused(self, make: Make, tmp_path: Path) -> None:
        refused(make(export="m.pt2"), "there is no file")
        (tmp_path / "m.pt2").write_bytes(b"hello")
        refused(make(export="m.pt2"), "m.pt2 is not a torch.export file")
        torch.save({"a": torch.zeros(1)}, tmp_path / "m.pt2")
        refused(make(export="m.pt2"), "m.pt2 is a pickled checkpoint (torch.save)")

    def test_a_pickle_inside_is_refused_and_not_run(self, make: Make, tmp_path: Path) -> None:
        export(tmp_path / "good.pt2", Exported().eval())
        with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "m.pt2", "w") as bad:
            for name in good.namelist():
                bomb = pickle.dumps(_Bomb(tmp_path / "ran")) if "sample_inputs" in name else None
                bad.writestr(name, bomb or good.read(name))
        refused(make(export="m.pt2"), "is a pickle of more than tensors")
        assert not (tmp_path / "ran").exists()


class TestHuggingFace:
    def test_the_extra_is_named_where_it_is_missing(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtra, match=r"pip install 'paredown\[huggingface\]'") as caught:
            load_task_model(make(huggingface="some/model"))
        assert caught.value.exit_code == 2

    def test_its_own_class_is_found_by_its_config(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = pretend_transformers(monkeypatch)
        (make().base_dir / "bert").mkdir()
        assert isinstance(load_task_model(make(huggingface="bert", args={"revision": "x"})), nn.Linear)
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        assert asked == [(str(make().base_dir / "bert"), {"use_safetensors": True, "revision": "x", **told})]

    @pytest.mark.parametrize(
        ("loading", "parts"),
        [
            ({"missing_keys": ["head.b", "head.a"]}, ["do not fit Linear: missing head.a, head.b;", "at random"]),
            ({"unexpected_keys": ["old.a"]}, ["unexpected old.a;", "model.unused_weights"]),
            ({"mismatched_keys": [("a", (2, 3), [4, 3])]}, ["mismatched a is (2, 3) in the folder and (4, 3)"]),
            ({"missing_keys": list("abcdefg")}, ["missing a, b, c, d and 3 more"]),
            ({"error_msgs": ["no\nway"]}, ["no way"]),
        ],
    )
    def test_what_transformers_reports_is_refused_by_name(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, loading: dict[str, Any], parts: list[str]
    ) -> None:
        pretend_transformers(monkeypatch, **loading)
        refused(make(huggingface="org/m"), "model.huggingface = 'org/m'", *parts)

    def test_a_counter_and_what_the_task_names_are_not_missed(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend_transformers(monkeypatch, missing_keys=["norm.num_batches_tracked"], unexpected_keys=["old.a", "x"])
        refused(make(huggingface="org/m", unused_weights=["old.*"]), "unexpected x;")
        load_task_model(make(huggingface="org/m", unused_weights=["old.*", "x"]))

    @pytest.mark.parametrize(
        ("model", "parts"),
        [
            ({"huggingface": "nets.py"}, ["must be a folder with config.json, got the file"]),
            ({"huggingface": "./gone"}, ["model.huggingface: there is no folder", "gone"]),
            ({"huggingface": "org/missing"}, ["'org/missing' cannot be loaded: OSError: no such model"]),
            ({"huggingface": "org/m", "args": {"trust_remote_code": True}}, ["trust_remote_code", "write a factory"]),
        ],
    )
    def test_what_cannot_be_used(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], parts: list[str]
    ) -> None:
        pretend_transformers(monkeypatch)
        refused(make(**model), *parts)


def pretend_transformers(monkeypatch: pytest.MonkeyPatch, **loading: Any) -> list[tuple[str, dict[str, Any]]]:
    """A stand-in with the two calls that are made of it; the list fills with what was asked for."""
    nothing = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    asked: list[tuple[str, dict[str, Any]]] = []

    def from_config(source: str) -> types.SimpleNamespace:
        if source.endswith("missing"):
            raise OSError("no such\nmodel")
        return types.SimpleNamespace(architectures=["TinyModel"])

    def from_pretrained(source: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
        asked.append((source, options))
        return nn.Linear(2, 2), nothing | loading

    module = types.ModuleType("transformers")
    vars(module).update(
        AutoConfig=types.SimpleNamespace(from_pretrained=from_config),
        TinyModel=types.SimpleNamespace(from_pretrained=from_pretrained),
        AutoModel=None,
    )
    monkeypatch.setitem(sys.modules, "transformers", module)
    return asked


class TestMetric:
    def test_a_registered_one(self, make: Make) -> None:
        assert load_task_metric(make({"metric": "accuracy", "maximise": True})) is get_metric("accuracy")

    def test_the_users_own(self, make: Make) -> None:
        metric = load_task_metric(make({"metric": "nets.py:score", "maximise": True}))
        assert (metric.name, metric.maximise) == ("score", True)
        outputs, targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
        assert metric.scores(outputs, targets).tolist() == [1.0, 0.0]

    @pytest.mark.parametrize(
        ("quality", "parts"),
        [
            ({"metric": "acuracy"}, ["quality.metric = 'acuracy'", "mean 'accuracy'?"]),
            ({"metric": "accuracy", "maximise": False}, ["quality.maximise = false", "accuracy is maximised"]),
            ({"metric": "nets.py:scor", "maximise": True}, ["quality.metric", "has no 'scor'", "mean 'score'?"]),
            ({"metric": "nets.py:a_number", "maximise": True}, ["quality.metric", "must name a function", "got a int"]),
            ({"metric": "gone.py:score", "maximise": True}, ["quality.metric", "there is no file"]),
        ],
    )
    def test_what_cannot_be_used(self, make: Make, quality: dict[str, Any], parts: list[str]) -> None:
        refused(make(quality), *parts, load=load_task_metric)
