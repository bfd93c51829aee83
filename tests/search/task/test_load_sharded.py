"""Sharded safetensors as the weights of a plain module: read by their index, and refused in which words."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from paredown.errors import TaskError
from paredown.search import Task
from paredown.search.task import load_task_model

NET = """
import torch
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
"""
INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = net.state_dict()
    write(
        tmp_path,
        {A: {k: v for k, v in state.items() if k[0] == "0"}, B: {k: v for k, v in state.items() if k[0] != "0"}},
    )
    return tmp_path


def write(folder: Path, shards: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, tensors in shards.items():
        (folder / name).parent.mkdir(exist_ok=True)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
    index(folder, {key: name for name, tensors in shards.items() for key in tensors})


def index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def listed(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def task(folder: Path, weights: str = INDEX, **model: Any) -> Task:
    model = {"factory": "net.py:net", "weights": weights} | model
    return Task.from_dict({"model": model, "data": {"factory": "a:b"}}, folder)


def refused(asked: Task, *parts: str) -> str:
    with pytest.raises(TaskError) as caught:
        load_task_model(asked)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert message.startswith("model.weights")
    assert "\n" not in message
    return message


class TestRead:
    def test_the_shards_give_what_one_file_gives(self, folder: Path) -> None:
        save_file(load_file(folder / A) | load_file(folder / B), folder / "whole.safetensors")
        sharded, whole = (load_task_model(task(folder, name)).state_dict() for name in (INDEX, "whole.safetensors"))
        assert sharded.keys() == whole.keys()
        assert all(torch.equal(sharded[key], whole[key]) for key in whole)
        assert torch.equal(sharded["0.weight"], load_file(folder / A)["0.weight"])

    def test_the_model_keeps_its_values_when_the_shards_go(self, folder: Path) -> None:
        model = load_task_model(task(folder))
        expected = load_file(folder / A)["0.weight"].clone()
        (folder / A).unlink()
        assert torch.equal(model.get_parameter("0.weight"), expected)

    def test_a_shard_in_a_folder_below_and_one_behind_a_link(self, folder: Path, tmp_path_factory: Any) -> None:
        blob = tmp_path_factory.mktemp("blobs") / "blob"
        state = load_file(folder / A) | load_file(folder / B)
        write(folder, {"low/part.safetensors": {k: v for k, v in state.items() if k[0] == "0"},
                       "x.safetensors": {k: v for k, v in state.items() if k[0] != "0"}})  # fmt: skip
        (folder / "x.safetensors").rename(blob)
        (folder / "x.safetensors").symlink_to(blob)
        assert torch.equal(load_task_model(task(folder)).get_parameter("2.bias"), state["2.bias"])

    def test_one_name_of_a_tied_tensor_is_enough(self, folder: Path) -> None:
        write(folder, {A: {"head.weight": torch.full((5, 3), 2.0)}})
        model = load_task_model(task(folder, factory="net.py:Tied"))
        assert torch.equal(model.get_parameter("embed.weight"), torch.full((5, 3), 2.0))

    def test_tied_tensors_that_differ_in_two_shards(self, folder: Path) -> None:
        write(folder, {A: {"head.weight": torch.ones(5, 3)}, B: {"embed.weight": torch.zeros(5, 3)}})
        refused(task(folder, factory="net.py:Tied"), "embed.weight and head.weight are one tensor", INDEX)


class TestShards:
    def test_one_is_missing(self, folder: Path) -> None:
        (folder / B).unlink()
        refused(task(folder), INDEX, B, "there is no such file", "copy all shards")

    def test_one_is_cut_off(self, folder: Path) -> None:
        (folder / B).write_bytes((folder / B).read_bytes()[:-5])
        refused(task(folder), f"{B} is not a whole safetensors file", "fetch it again")

    def test_one_is_empty(self, folder: Path) -> None:
        (folder / B).write_bytes(b"")
        refused(task(folder), f"{B} is not a whole safetensors file")

    def test_one_is_a_pickle_by_content(self, folder: Path) -> None:
        (folder / B).write_bytes(pickle.dumps({"a": 1}))
        refused(task(folder), f"{B} is a pickle")

    def test_all_are_pickles_by_name(self, folder: Path) -> None:
        (folder / "p.bin.index.json").write_text(json.dumps({"weight_map": {"0.weight": "p-1.bin"}}))
        refused(task(folder, "p.bin.index.json"), "lists pickles (p-1.bin)", "expected safetensors")


class TestIndex:
    def test_a_key_that_its_shard_lacks(self, folder: Path) -> None:
        index(folder, listed(folder) | {"0.bias": B})
        refused(task(folder), f"0.bias (expected in {B})", INDEX)

    def test_a_key_in_two_shards(self, folder: Path) -> None:
        save_file(load_file(folder / B) | {"0.bias": torch.zeros(4)}, folder / B)
        refused(task(folder), f"0.bias is in two shards of {INDEX}, {A} and {B}")

    def test_a_key_listed_twice(self, folder: Path) -> None:
        text = json.dumps(listed(folder))[:-1] + f', "0.bias": "{B}"}}'
        (folder / INDEX).write_text(f'{{"weight_map": {text}}}')
        refused(task(folder), "places 0.bias in two shards", A, B)

    def test_a_key_that_it_does_not_list(self, folder: Path) -> None:
        index(folder, {key: shard for key, shard in listed(folder).items() if key != "0.bias"})
        refused(task(folder), f"does not list 0.bias (in {A})")

    @pytest.mark.parametrize(
        "name",
        [
            "../out.safetensors",
            "low/../../out.safetensors",
            "/out.safetensors",
            "C:\\out.safetensors",
            "..\\o.safetensors",
        ],
    )
    def test_a_path_that_leads_out_of_the_folder(self, folder: Path, name: str) -> None:
        save_file({"0.bias": torch.zeros(4)}, folder.parent / "out.safetensors")
        index(folder, listed(folder) | {"0.bias": name})
        refused(task(folder), repr(name), "leads out of its folder")

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": []}']
    )
    def test_what_is_no_index(self, folder: Path, text: str) -> None:
        (folder / INDEX).write_text(text)
        refused(task(folder), INDEX)

    def test_a_file_of_another_kind(self, folder: Path) -> None:
        index(folder, listed(folder) | {"0.bias": "notes.txt"})
        refused(task(folder), "'notes.txt'", "no safetensors file")


class TestFit:
    def change(self, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Task:
        tensors = load_file(folder / B)
        change(tensors)
        write(folder, {A: load_file(folder / A), B: tensors})
        return task(folder)

    def test_keys_that_differ(self, folder: Path) -> None:
        changed = self.change(folder, lambda t: t.update({"2.bais": t.pop("2.bias")}))
        refused(changed, f"{INDEX} does not fit the model", "missing 2.bias", "unexpected 2.bais")

    def test_shapes_that_differ_are_named_with_their_shard(self, folder: Path) -> None:
        message = refused(task(folder, args={"width": 6}), f"0.weight is (4, 3) in {A} and (6, 3) in the model")
        assert "[model.args]" in message

    def test_types_that_differ_are_named_with_their_shard(self, folder: Path) -> None:
        refused(self.change(folder, lambda t: t.update({"2.bias": torch.ones(2, dtype=torch.int8)})), "torch.int8", B)

    def test_what_may_go_unused(self, folder: Path) -> None:
        self.change(folder, lambda t: t.update({"old.head.weight": torch.ones(2)}))
        refused(task(folder), "unexpected old.head.weight", "model.unused_weights")
        refused(task(folder, unused_weights=["other.*"]), "unexpected old.head.weight")
        load_task_model(task(folder, unused_weights=["old.*"]))

    def test_what_the_model_has_is_used_whatever_the_globs_say(self, folder: Path) -> None:
        model = load_task_model(task(folder, unused_weights=["*"]))
        assert torch.equal(model.get_parameter("0.weight"), load_file(folder / A)["0.weight"])


class TestWhatWasMeant:
    def test_the_folder(self, folder: Path) -> None:
        message = refused(task(folder, "."), "got the folder", f"the folder has {INDEX}")
        assert A not in message

    def test_the_whole_file_that_is_not_there(self, folder: Path) -> None:
        message = refused(task(folder, "model.safetensors"), "there is no file", f"the folder has {INDEX}")
        assert A not in message

    def test_one_shard(self, folder: Path) -> None:
        refused(task(folder, A), f"{A} does not fit the model: missing 1.weight", f"one shard; name the index, {INDEX}")


def test_unused_weights_need_weights_and_leave_other_digests_alone(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="unused_weights beside neither weights nor huggingface"):
        Task.from_dict({"model": {"factory": "a:b", "unused_weights": ["x"]}, "data": {"factory": "a:b"}}, tmp_path)
    plain = task(tmp_path)
    assert "unused_weights" not in plain.to_dict()["model"]
    ours = task(tmp_path, unused_weights=["x.*"])
    assert Task.from_dict(ours.to_dict(), tmp_path) == ours
    assert ours.digest != plain.digest
