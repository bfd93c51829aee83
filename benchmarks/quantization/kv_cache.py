"""Perplexity and bytes of a decoder whose keys and values are kept in fewer bits.

OMP_NUM_THREADS=1 python benchmarks/quantization/kv_cache.py --out benchmarks/results/kv-cache.json

The small Llama of 260 k parameters on 128 windows of 512 tokens that nothing else has seen, in chunks of 64, each
beside the same chunks with the cache in FP32, window by window. Deterministic, and no timing. A minute.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from quantbench.machine import machine
from quantbench.subjects import SUBJECTS, TinyLlama
from torch import Tensor, nn

from paredown.evaluators import KvCacheSpec, evaluate_split, get_metric, kv_cache_bytes, paired_test, with_kv_cache

SETTINGS = {
    "FP32": KvCacheSpec(bits=32),
    **{
        f"{bits} bits, keys by {keys}, groups of {group}": KvCacheSpec(bits=bits, keys=keys, group=group)
        for bits in (8, 4)
        for keys in ("channel", "token")
        for group in (32, 64)
    },
}
CHUNK = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    subject = SUBJECTS["stories260k"]()
    assert isinstance(subject.model, TinyLlama)
    model, split, metric = (
        as_transformers(subject.model),
        subject.report.take(arguments.windows),
        get_metric("perplexity"),
    )
    with torch.no_grad():
        apart = float((model(split.inputs[:4]).logits - subject.model(split.inputs[:4])).abs().max())
    rows: dict[str, Any] = {}
    plain = None
    for name, spec in SETTINGS.items():
        scores = evaluate_split(with_kv_cache(model, spec, chunk=CHUNK), split, metric, batch_size=16).metric
        plain = scores if plain is None else plain
        paired = paired_test(scores, plain, metric)
        rows[name] = {
            "perplexity": metric.value(scores), "gain": paired.difference, "low": paired.low, "high": paired.high,
            "kv_cache_bytes": kv_cache_bytes(model, spec, 512),
            "kv_cache_bytes_fp16": kv_cache_bytes(model, spec, 512, itemsize=2),
        }  # fmt: skip
        print(name, rows[name], file=sys.stderr, flush=True)
    result = {
        "command": shlex.join(["python", "benchmarks/quantization/kv_cache.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine(1),
        "model": "stories260k", "windows": len(split), "tokens": 512, "chunk": CHUNK, "recent": KvCacheSpec().recent,
        "largest_difference_of_logits_from_the_original": apart, "settings": rows,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def as_transformers(model: TinyLlama) -> nn.Module:
    """The same model as transformers has it: there the two numbers that are rotated together are half a head apart."""
    from transformers import LlamaConfig, LlamaForCausalLM

    first = model.layers[0]
    heads, kv_heads, size = first.attention.heads, first.attention.kv_heads, first.attention.size
    config = LlamaConfig(
        hidden_size=heads * size, intermediate_size=first.feed_forward.w1.out_features, vocab_size=512,
        num_hidden_layers=len(model.layers), num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    other = LlamaForCausalLM(config).eval()

    def turned(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, size // 2, 2)).transpose(1, 2).flatten(0, 2)

    state = {"model.embed_tokens.weight": model.tok_embeddings.weight, "model.norm.weight": model.norm.weight}
    for i, layer in enumerate(model.layers):
        at, of = f"model.layers.{i}.", layer.attention
        state |= {
            at + "self_attn.q_proj.weight": turned(of.wq.weight),
            at + "self_attn.k_proj.weight": turned(of.wk.weight),
        }
        state |= {at + "self_attn.v_proj.weight": of.wv.weight, at + "self_attn.o_proj.weight": of.wo.weight}
        state |= {
            at + "mlp.gate_proj.weight": layer.feed_forward.w1.weight,
            at + "mlp.up_proj.weight": layer.feed_forward.w3.weight,
        }
        state |= {at + "mlp.down_proj.weight": layer.feed_forward.w2.weight}
        state |= {at + "input_layernorm.weight": layer.attention_norm.weight}
        state |= {at + "post_attention_layernorm.weight": layer.ffn_norm.weight}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    other.load_state_dict(state)
    return other


if __name__ == "__main__":
    main()
