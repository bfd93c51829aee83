"""Hugging Face folders that are incomplete, damaged or of another class, read by transformers itself, offline."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, shutil, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import transformers as T
from safetensors.torch import load_file, save_file
from paredown.errors import TaskError
from paredown.search import Task
from paredown.search.task import load_task_model

root = Path(sys.argv[1])
SMALL = dict(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=64)
HEADS = dict(num_key_value_heads=2)
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

def save(name, model, **options):
    model.save_pretrained(root / name, **options)

def tensors(change):
    def edit(folder):
        found = load_file(folder / WHOLE)
        change(found)
        save_file({k: v.contiguous() for k, v in found.items()}, folder / WHOLE, metadata={"format": "pt"})
    return edit

def config(**keys):
    def edit(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return edit

def index(change):
    def edit(folder):
        content = json.loads((folder / INDEX).read_text())
        change(content["weight_map"], sorted(set(content["weight_map"].values())), folder)
        (folder / INDEX).write_text(json.dumps(content))
    return edit

def cut(pattern):
    def edit(folder):
        path = sorted(folder.glob(pattern))[-1]
        path.write_bytes(path.read_bytes()[:-9])
    return edit

torch.manual_seed(0)
save("llama", T.LlamaForCausalLM(T.LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=False)))
save("tied", T.LlamaForCausalLM(T.LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=True)))
shutil.copytree(root / "llama", root / "sharded")
(root / "sharded" / WHOLE).unlink()
save("sharded", T.LlamaForCausalLM.from_pretrained(root / "llama"), max_shard_size="12KB")
save("experts", T.MixtralForCausalLM(T.MixtralConfig(**SMALL, **HEADS, num_local_experts=4)))
save("bert", T.BertForSequenceClassification(T.BertConfig(**SMALL, num_labels=3)))
save("bart", T.BartForConditionalGeneration(T.BartConfig(
    vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64)))
save("t5", T.T5ForConditionalGeneration(T.T5Config(
    vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)))
save("resnet", T.ResNetForImageClassification(T.ResNetConfig(
    embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)))
EXPERT = "model.layers.0.block_sparse_moe.experts.1.w1.weight"

CASES = {  # name: (folder, edit, keys of [model])
    "llama": ("llama", None, {}),
    "tied": ("tied", None, {}),
    "sharded": ("sharded", None, {}),
    "experts": ("experts", None, {}),
    "bert": ("bert", None, {}),
    "bart": ("bart", None, {}),
    "t5": ("t5", None, {}),
    "resnet": ("resnet", None, {}),
    "bart without the declared": ("bart", tensors(lambda t: t.pop("final_logits_bias", None)), {}),
    "resnet without counters": ("resnet", tensors(
        lambda t: [t.pop(k) for k in list(t) if k.endswith("num_batches_tracked")]), {}),
    "no head": ("llama", tensors(lambda t: t.pop("lm_head.weight")), {}),
    "no classifier": ("bert", tensors(lambda t: [t.pop("classifier.weight"), t.pop("classifier.bias")]), {}),
    "no layer": ("llama", tensors(lambda t: [t.pop(k) for k in list(t) if ".layers.1." in k]), {}),
    "no tied at all": ("tied", tensors(lambda t: t.pop("model.embed_tokens.weight")), {}),
    "one name of the tied": ("tied", tensors(
        lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")})), {}),
    "extra layer": ("llama", config(num_hidden_layers=1), {}),
    "another class": ("bert", config(architectures=["BertModel"]), {}),
    "another class, said": ("bert", config(architectures=["BertModel"]), {"unused_weights": ["classifier.*"]}),
    "unknown class": ("bert", config(architectures=["OursForClasses"]), {}),
    "other shape": ("bert", tensors(lambda t: t.update({"classifier.weight": torch.zeros(5, 32)})), {}),
    "other labels": ("bert", None, {"args": {"num_labels": 7, "ignore_mismatched_sizes": True}}),
    "expert gone": ("experts", tensors(lambda t: t.pop(EXPERT)), {}),
    "expert of another shape": ("experts", tensors(lambda t: t.update({EXPERT: torch.zeros(3, 3)})), {}),
    "cut off": ("llama", cut("*.safetensors"), {}),
    "shard cut off": ("sharded", cut("*.safetensors"), {}),
    "shard gone": ("sharded", index(lambda m, s, f: (f / s[1]).unlink()), {}),
    "shard lacks": ("sharded", index(lambda m, s, f: m.update({"model.norm.weight": s[0]})), {}),
    "two shards": ("sharded", index(lambda m, s, f: [save_file(
        load_file(f / shard) | {"model.norm.weight": torch.zeros(32)}, f / shard, metadata={"format": "pt"})
        for shard in s[:2]]), {}),
    "out of the folder": ("sharded", index(lambda m, s, f: m.update({"model.norm.weight": "../llama/" + WHOLE})), {}),
    "integers": ("bert", tensors(lambda t: t.update({"classifier.weight": torch.ones(3, 32, dtype=torch.int8)})), {}),
    "integers in a shard": ("sharded", index(lambda m, s, f: [save_file(
        {k: v.to(torch.int8) for k, v in load_file(f / m["model.norm.weight"]).items()}, f / m["model.norm.weight"],
        metadata={"format": "pt"})]), {}),
    "no index": ("sharded", lambda f: (f / INDEX).unlink(), {}),
    "another variant": ("llama", lambda f: (f / WHOLE).rename(f / "model.fp16.safetensors"), {}),
    "the variant": ("llama", lambda f: (f / WHOLE).rename(f / "model.fp16.safetensors"), {"args": {"variant": "fp16"}}),
    "a pickle": ("llama", lambda f: (f / WHOLE).rename(f / "pytorch_model.bin"), {}),
    "nothing": ("llama", lambda f: (f / WHOLE).unlink(), {}),
    "a file": ("llama", None, {"huggingface": "llama/" + WHOLE}),
}
for number, (name, (source, edit, keys)) in enumerate(CASES.items()):
    folder = root / f"case {number}"
    shutil.copytree(root / source, folder)
    if edit is not None:
        edit(folder)
    task = Task.from_dict({"model": {"huggingface": folder.name} | keys, "data": {"factory": "a:b"}}, root)
    try:
        models = [load_task_model(task).state_dict() for _ in range(2)]
        same = all(torch.equal(models[0][key], models[1][key]) for key in models[0])
        if name == "sharded":
            whole = T.LlamaForCausalLM.from_pretrained(root / "llama").state_dict()
            same = same and all(torch.equal(models[0][key], whole[key]) for key in whole)
        found = "loaded" if same else "loaded, and not twice the same"
    except TaskError as error:
        found = str(error)
    print("CASE", json.dumps([name, found]))
"""

LOADED = [
    "llama", "tied", "sharded", "experts", "bert", "bart", "t5", "resnet", "bart without the declared",
    "resnet without counters", "one name of the tied", "another class, said",
    "the variant",
]  # fmt: skip
REFUSED = {
    "no head": ["missing lm_head.weight;", "do not fit LlamaForCausalLM", "at random"],
    "no classifier": ["missing classifier.bias, classifier.weight;"],
    "no layer": ["missing model.layers.1.", "and 5 more"],
    "no tied at all": ["missing", "model.embed_tokens.weight"],
    "extra layer": ["unexpected model.layers.1.", "model.unused_weights"],
    "another class": ["do not fit BertModel", "unexpected classifier.bias, classifier.weight", "model.unused_weights"],
    "unknown class": ["unexpected classifier.bias", "OursForClasses", "transformers lacks", "factory"],
    "other shape": ["mismatched classifier.weight is (5, 32) in the folder and (3, 32) in the model"],
    "other labels": ["mismatched classifier.bias is (3) in the folder and (7) in the model", "[model.args]"],
    "expert gone": ["the weights for model.layers.0.mlp.experts.gate_up_proj are incomplete"],
    "expert of another shape": ["the weights for model.layers.0.mlp.experts.gate_up_proj are incomplete"],
    "cut off": ["model.safetensors is not a whole safetensors file"],
    "shard cut off": ["-of-00010.safetensors is not a whole safetensors file"],
    "shard gone": ["model.safetensors.index.json names model-00002-of-", "no such file"],
    "shard lacks": ["model.norm.weight (expected in model-00001-of-"],
    "two shards": ["model.norm.weight is in two shards", "model-00001-of-"],
    "out of the folder": ["'../llama/model.safetensors'", "leads out of its folder"],
    "integers": ["integers in the folder for classifier.weight", "quantization_config"],
    "integers in a shard": ["integers in the folder for ", "model.norm.weight"],
    "no index": ["the folder has model-00001-of-00010.safetensors", "expected model.safetensors or"],
    "another variant": ["the folder has model.fp16.safetensors", "variant in [model.args]"],
    "a pickle": ["the folder has pytorch_model.bin", "can run code"],
    "nothing": ["no file named model.safetensors", "fetch all files again"],
    "a file": ["must be a folder with config.json, got the file"],
}


def test_a_folder_gives_every_weight_or_is_refused_by_name(repository: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers: pip install 'paredown[huggingface]'")
    path = os.pathsep.join([str(repository / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("CASE "))
    assert {name: text for name, text in found.items() if name not in REFUSED} == dict.fromkeys(LOADED, "loaded")
    for name, parts in REFUSED.items():
        assert all(part in found[name] for part in parts), (name, found[name])
        assert "\n" not in found[name]
        assert found[name].startswith("model.huggingface"), found[name]
    assert "LOAD REPORT" not in done.stderr, "the refusal says it, in fewer words"
