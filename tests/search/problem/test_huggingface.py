"""A Hugging Face folder, from a config to verified artifacts: in a process of its own, for transformers warns."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM
import paredown

folder = Path(sys.argv[1])
torch.manual_seed(0)
small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=64, max_position_embeddings=64)
bert = BertConfig(**small, intermediate_size=64, num_labels=3, initializer_range=0.2)
BertForSequenceClassification(bert).save_pretrained(folder / "bert")
llama = LlamaConfig(**small, intermediate_size=64, num_key_value_heads=2, tie_word_embeddings=True)
LlamaForCausalLM(llama).save_pretrained(folder / "llama")
(folder / "data.py").write_text('''
import torch
def tokens():
    return torch.randint(0, 64, (120, 9), generator=torch.Generator().manual_seed(1))
def lm():
    return {"input_ids": tokens()}, tokens()
def classes():
    labels = torch.randint(0, 3, (120,), generator=torch.Generator().manual_seed(2))
    return {"input_ids": tokens(), "attention_mask": torch.ones_like(tokens())}, labels
''')
for name, data, metric in (("bert", "classes", "accuracy"), ("llama", "lm", "perplexity")):
    task = paredown.Task.from_dict({
        "model": {"huggingface": name},
        "data": {"factory": f"data.py:{data}", "calibration": 30, "search": 40, "report": 50},
        "quality": {"metric": metric, "max_loss": 1.0},
        "space": {"weight_bits": [4, 8], "activation_bits": [8, 32], "activation_scheme": ["symmetric"]},
        "hardware": {"runtime": "onnxruntime", "latency_seconds": 0.02},
        "mlflow": {"enabled": False},
    }, base_dir=folder)
    config = paredown.plan(task, strategy="uniform", bits=8).config
    layers = {fqn: spec for fqn, spec in config["layers"].items() if "embed" not in fqn and fqn != "lm_head"}
    for format in ("onnx", "compressed-tensors"):
        out = paredown.apply_config({**config, "layers": layers}, task, folder / f"{name}-{format}", format=format)
        verified = paredown.verify_artifact(out, task=task)
        print("CHECK", name, format, verified["ok"], sorted(verified["measured"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tiny_bert_and_llama_are_planned_exported_and_verified(repository: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers: pip install 'paredown[huggingface]'")
    path = os.pathsep.join([str(repository / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    checks = [line.split(maxsplit=4)[1:] for line in done.stdout.splitlines() if line.startswith("CHECK")]
    assert [check[:3] for check in checks] == [
        [name, format, "True"] for name in ("bert", "llama") for format in ("onnx", "compressed-tensors")
    ]
    measured = {(name, format): found for name, format, _, found in checks}
    assert "'latency_ms'" in measured["bert", "onnx"]
    assert "'latency_ms'" not in measured["bert", "compressed-tensors"], (
        "it is not timed on a device that is not its own"
    )
