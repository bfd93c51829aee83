"""A tied tensor has one value and is stored once, whichever of its names runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from paredown.compressors import LayerSpec, calibrate, load_model, model_digest, trace_anatomy
from paredown.compressors.variants import compress
from paredown.errors import ConfigError
from paredown.evaluators.runtimes import ExportError
from paredown.evaluators.runtimes.exports import load_compressed_tensors
from paredown.search.artifacts import Exporter
from paredown.search.problem import Problem, prepare
from paredown.search.space import assignment_of
from paredown.search.task import Task

NET = """
import torch
from torch import nn

class Net(nn.Module):
    '''One embedding under three names; the first is never called, as in BART and T5.'''
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Embedding(40, 16)
        self.embed = nn.Embedding(40, 16)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 40, bias=False)
        self.embed.weight = self.head.weight = self.shared.weight
    def forward(self, ids):
        return self.head(torch.relu(self.hidden(self.embed(ids).mean(1))))

def fp32(): return Net()
def bf16(): return Net().to(torch.bfloat16)

def data():
    g = torch.Generator().manual_seed(1)
    return {n: (torch.randint(0, 40, (16, 6), generator=g), torch.randint(0, 40, (16,), generator=g))
            for n in ("calibration", "search", "report")}
"""
TASK = """
[model]
factory = "net.py:{make}"
[data]
factory = "net.py:data"
[quality]
metric = "accuracy"
[hardware]
runtime = "torch"
[space]
weight_bits = [3, 32]
activation_bits = [32]
{more}
"""
NAMES = ("shared", "embed", "head")


def problem(folder: Path, make: str = "fp32", more: str = "") -> Problem:
    (folder / "net.py").write_text(NET)
    (folder / "task.toml").write_text(TASK.format(make=make, more=more))
    return prepare(Task.load(folder / "task.toml"), store=folder / "store")


def net(make: str = "fp32") -> nn.Module:
    found: dict[str, object] = {}
    exec(NET, found)
    return found[make]()  # type: ignore[operator,no-any-return]


def config(**layers: dict[str, object]) -> dict[str, object]:
    return {"schema_version": 2, "layers": layers}


@pytest.mark.parametrize("name", NAMES)
def test_one_name_in_a_config_stands_for_all(name: str, tmp_path: Path) -> None:
    found = assignment_of(config(**{name: {"weight_bits": 3}}), problem(tmp_path).anatomy)
    assert found == {"embed": LayerSpec(weight_bits=3), "hidden": LayerSpec(), "head": LayerSpec(weight_bits=3)}


def test_the_activation_of_one_name_is_its_own(tmp_path: Path) -> None:
    found = assignment_of(config(head={"weight_bits": 8, "activation_bits": 8}), problem(tmp_path).anatomy)
    assert found["embed"] == LayerSpec(weight_bits=8)
    assert found["head"].activation_bits == 8


@pytest.mark.parametrize("other", ["shared", "embed"])
def test_two_treatments_of_one_tensor_are_refused(other: str, tmp_path: Path) -> None:
    two = config(**{"head": {"weight_bits": 3}, other: {"weight_bits": 4}})
    with pytest.raises(ConfigError, match="share one weight tensor, so their specs must treat it alike"):
        assignment_of(two, problem(tmp_path).anatomy)


def test_what_one_of_the_kinds_cannot_have_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer head cannot be .*: embed shares its weight tensor, and there .*rank"):
        assignment_of(config(head={"rank": 0.5}), problem(tmp_path).anatomy)


@pytest.mark.parametrize("make", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_format_has_one_value_under_every_name(name: str, make: str, tmp_path: Path) -> None:
    found = problem(tmp_path, make)
    original = net(make).state_dict()["shared.weight"].float()
    exporter, assignment = Exporter(found), assignment_of(config(**{name: {"weight_bits": 3}}), found.anatomy)
    folders = {format: exporter.export(assignment, format, tmp_path / format) for format in FORMATS}
    with safe_open(folders["compressed-tensors"].with_name("model.safetensors"), framework="pt") as opened:
        names = list(opened.keys())
    assert sorted(n for n in names if n.split(".")[0] in NAMES) == ["shared.weight"]
    paredown, ours = net("fp32"), net("fp32")
    load_model(folders["paredown"], paredown)
    load_compressed_tensors(folders["compressed-tensors"], ours)
    for model in (paredown, ours):
        state: dict[str, Tensor] = model.state_dict()
        assert not torch.equal(state["shared.weight"], original)
        assert all(torch.equal(state[f"{n}.weight"], state["shared.weight"]) for n in NAMES)
    exact = paredown.state_dict()["shared.weight"]
    stored = exact if make == "fp32" else exact.to(torch.bfloat16).float()
    assert torch.equal(ours.state_dict()["shared.weight"], stored)


FORMATS = ("paredown", "compressed-tensors")


def test_torchao_refuses_to_part_a_tensor(tmp_path: Path) -> None:
    found = problem(tmp_path)
    assignment = assignment_of(config(head={"weight_bits": 8}), found.anatomy)
    with pytest.raises(ExportError, match=r"embed .*nn.Linear, and this is Embedding.*head .*tied to shared\.weight"):
        Exporter(found).export(assignment, "torchao-config", tmp_path / "out")


@pytest.mark.parametrize(
    "spec", [{"weight_bits": 3, "weight_method": "gptq"}, {"sparsity": 0.5, "sparsity_method": "wanda"}]
)
def test_methods_that_see_inputs_give_one_value(spec: dict[str, object]) -> None:
    model, ids = net(), torch.randint(0, 40, (16, 6), generator=torch.Generator().manual_seed(1))
    anatomy, wanted = trace_anatomy(model, ids), LayerSpec.from_dict(spec)
    moments = calibrate(model, [ids], anatomy, moments=True).moments
    assert moments is not None
    made = [
        compress(model.get_parameter("shared.weight"), wanted, anatomy[fqn], moments=moments.get(fqn))
        for fqn in ("embed", "head")
    ]
    assert torch.equal(made[0].effective, made[1].effective)


def test_a_model_that_was_scaled_is_compared_with_its_source(tmp_path: Path) -> None:
    from paredown.compressors.anatomy import changed_bytes
    from paredown.search import plan

    straight = NET.replace("self.embed.weight = self.head.weight = self.shared.weight", "self.up = nn.Linear(16, 16)")
    straight = straight.replace("self.head(torch", "self.head(self.up(torch").replace("mean(1))))", "mean(1)))))")
    (tmp_path / "net.py").write_text(straight)
    sizes = []
    for make, more in (("bf16", ""), ("bf16", '[prepare]\nscaling = "equalize"'), ("fp32", "")):
        (tmp_path / "task.toml").write_text(TASK.format(make=make, more=more))
        sizes.append(plan(tmp_path / "task.toml", strategy="uniform", bits=3).original)
    for name in ("bytes", "fp32_bytes"):  # names of types in the file's header pack differently
        assert abs(sizes[0][name].value - sizes[1][name].value) < 64
    assert sizes[0]["bytes"].value < 0.7 * sizes[2]["bytes"].value
    assert abs(sizes[0]["fp32_bytes"].value - sizes[2]["bytes"].value) < 100
    assert "fp32_bytes" not in sizes[2]
    (tmp_path / "task.toml").write_text(TASK.format(make="bf16", more='[prepare]\nscaling = "equalize"'))
    scaled = prepare(Task.load(tmp_path / "task.toml"), store=tmp_path / "store").context.model
    assert changed_bytes(scaled) > 0, "the scaled weights are no BF16 numbers any more"


def test_mean_bits_of_what_is_left_alone_are_those_of_the_source(tmp_path: Path) -> None:
    from paredown.search import plan
    from paredown.search.plans import stored_bits

    layer = problem(tmp_path, "bf16").anatomy["hidden"]
    assert stored_bits(LayerSpec(), layer) == 16.0
    assert stored_bits(LayerSpec(weight_bits=3), layer) == 3.0
    found = plan(tmp_path / "task.toml", strategy="uniform", limits="mean_bits<=50%")
    assert found.limits["mean_bits"] == (None, 8.0)


def test_the_digest_is_that_of_the_widened_weights(tmp_path: Path) -> None:
    found = problem(tmp_path, "bf16")
    assert found.model_digest == model_digest(net("bf16").float())
