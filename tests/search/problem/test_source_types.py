"""The model that the user has: its number types are the baseline, and what is left alone keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from paredown.compressors import LayerSpec
from paredown.compressors.anatomy import source_bytes, source_dtypes
from paredown.compressors.storage import layer_bytes
from paredown.search.artifacts import Exporter
from paredown.search.problem import Problem, prepare
from paredown.search.task import Task

TASK = """
[model]
factory = "net.py:{make}"
{weights}
[data]
factory = "net.py:data"
[quality]
metric = "accuracy"
[hardware]
runtime = "torch"
[space]
weight_bits = [4, 32]
activation_bits = [32]
[budget]
trials = 1
"""
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(40, 16)
        self.norm = nn.LayerNorm(16)
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 5)
    def forward(self, ids):
        return self.head(torch.relu(self.hidden(self.norm(self.embed(ids).mean(1)))))

def fp32(): return Net()
def bf16(): return Net().to(torch.bfloat16)
def fp16(): return Net().to(torch.float16)

def data():
    g = torch.Generator().manual_seed(1)
    return {n: (torch.randint(0, 40, (16, 6), generator=g), torch.randint(0, 5, (16,), generator=g))
            for n in ("calibration", "search", "report")}
"""


def problem(folder: Path, make: str, weights: Path | None = None, model: nn.Module | None = None) -> Problem:
    (folder / "net.py").write_text(NET)
    line = f'weights = "{weights.name}"' if weights else ""
    (folder / "task.toml").write_text(TASK.format(make=make, weights=line))
    return prepare(Task.load(folder / "task.toml"), store=folder / "store", model=model)


def net(folder: Path, make: str) -> nn.Module:
    found: dict[str, object] = {}
    exec(NET, found)
    return found[make]()  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(("make", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_bytes_are_those_of_the_source(make: str, size: int, tmp_path: Path) -> None:
    found = problem(tmp_path, make)
    model, n = found.context.model, sum(p.numel() for p in found.context.model.parameters())
    assert source_bytes(model) == (size * n, 4 * n)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    for layer in found.anatomy.layers:
        assert abs(layer_bytes(layer, LayerSpec(), None) - size * layer.n_weights) < 64
    assert any("source is" in line for line in found.notes) == (size == 2)


@pytest.mark.parametrize("make", ["bf16", "fp16"])
def test_a_file_in_half_precision_is_stored_so_where_it_is_left_alone(make: str, tmp_path: Path) -> None:
    found = problem(tmp_path, make)
    exporter, original = Exporter(found), net(tmp_path, make)
    neutral = dict.fromkeys(found.anatomy.fqns, LayerSpec())
    whole = exporter.stored_bytes(neutral, tmp_path)
    assert whole < 1.3 * source_bytes(found.context.model)[0]
    w4 = {**neutral, "hidden": LayerSpec(weight_bits=4)}
    assert exporter.stored_bytes(w4, tmp_path) < whole
    state = found.context.model.state_dict()
    for name, tensor in original.state_dict().items():
        assert torch.equal(state[name], tensor.float()), "widening is exact"


def test_weights_of_a_file_in_half_precision_count_though_the_class_is_fp32(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    stored = net(tmp_path, "bf16").state_dict()
    save_file(stored, tmp_path / "w.safetensors")
    found = problem(tmp_path, "fp32", tmp_path / "w.safetensors")
    assert set(source_dtypes(found.context.model).values()) == {"bfloat16"}


def test_an_object_in_half_precision_is_left_as_it_is(tmp_path: Path) -> None:
    own = net(tmp_path, "bf16")
    found = problem(tmp_path, "bf16", model=own)
    assert all(p.dtype == torch.bfloat16 for p in own.parameters())
    assert set(source_dtypes(found.context.model).values()) == {"bfloat16"}


def test_folders_of_transformers_keep_the_type_and_tie_once(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "folder")
    (tmp_path / "data.py").write_text(
        "import torch\ndef data():\n    g = torch.Generator().manual_seed(0)\n"
        "    return {n: ({'input_ids': torch.randint(3, 256, (4, 8), generator=g)}, None)\n"
        "            for n in ('calibration', 'search', 'report')}\n"
    )
    (tmp_path / "task.toml").write_text(
        '[model]\nhuggingface = "folder"\n[data]\nfactory = "data.py:data"\n[quality]\nmetric = "perplexity"\n'
        '[hardware]\nruntime = "torch"\n[space]\nweight_bits = [4, 32]\nactivation_bits = [32]\n[budget]\ntrials = 1\n'
    )
    found = prepare(Task.load(tmp_path / "task.toml"), store=tmp_path / "store")
    assignment = {fqn: LayerSpec(weight_bits=4) for fqn in found.anatomy.fqns}
    folder = tmp_path / "ct"
    Exporter(found).export(assignment, "compressed-tensors", folder)
    file = folder / "huggingface" / "model.safetensors"
    assert file.stat().st_size < (tmp_path / "folder" / "model.safetensors").stat().st_size
    with safe_open(file, framework="pt") as opened:
        tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tied = [name for name in tensors if "embed_tokens" in name or "lm_head" in name]
    assert tied == ["model.embed_tokens.weight"]
    assert tensors[tied[0]].dtype == torch.bfloat16
    assert tensors["model.norm.weight"].dtype == torch.bfloat16
