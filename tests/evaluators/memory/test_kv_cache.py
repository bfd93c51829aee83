"""A decoder's cache of keys and values in fewer bits, on a tiny random Llama."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paredown.compressors import forward
from paredown.errors import InputError
from paredown.evaluators import KvCacheSpec, kv_cache_bytes, with_kv_cache
from paredown.evaluators.memory import KvCache, KvCacheLayer, PackedGroups


def llama(**more: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns of itself
        config = transformers.LlamaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
            intermediate_size=64, max_position_embeddings=256, initializer_range=0.3, **more,
        )  # fmt: skip
        model: nn.Module = transformers.LlamaForCausalLM(config).eval()
    return model


TOKENS = torch.randint(0, 64, (3, 100), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, inputs: Any = TOKENS) -> torch.Tensor:
    with torch.no_grad():
        return forward(model, inputs)


@given(
    st.sampled_from([4, 8]), st.integers(1, 40), st.integers(1, 16), st.floats(-50, 50), st.floats(1e-3, 100),
    st.integers(0, 99),
)  # fmt: skip
def test_what_is_packed_is_within_half_a_step(
    bits: int, n: int, group: int, middle: float, width: float, seed: int
) -> None:
    x = middle + width * torch.randn(2, 3, n, generator=torch.Generator().manual_seed(seed))
    packed = PackedGroups.of(x, bits, group)
    found = packed.widened(group)
    assert found.shape == x.shape
    step = packed.step.float().repeat_interleave(min(group, n), dim=-1)[..., :n]
    # minimum and step are FP16, which moves both ends by their rounding
    slack = 2e-3 * (x.abs().max() + 2**bits * step) + 1e-6
    assert bool(((found - x).abs() <= 0.5 * step + slack).all())
    assert packed.codes.nbytes == 2 * 3 * (-(-n * bits // 8))


def test_a_group_by_hand() -> None:
    packed = PackedGroups.of(torch.tensor([[0.0, 15.0, 7.0, -4.0, 11.0]]), 4, 3)
    assert packed.widened(3).tolist() == [[0.0, 15.0, 7.0, -4.0, 11.0]]
    assert packed.codes.tolist() == [[0 | 15 << 4, 7 | 0 << 4, 15]]
    assert packed.low.tolist() == [[0.0, -4.0]]


def test_without_rounding_chunks_are_the_whole() -> None:
    model = llama()
    plain = logits(model)
    for chunk in (1, 7, 64, 100, 200):
        cached = with_kv_cache(copy.deepcopy(model), KvCacheSpec(bits=32), chunk=chunk)
        torch.testing.assert_close(logits(cached), plain, rtol=1e-4, atol=1e-4)


def test_fewer_bits_move_the_outputs_further_and_recent_tokens_not_at_all() -> None:
    model = llama()
    plain = logits(model)
    apart = {}
    for bits in (8, 4):
        cached = with_kv_cache(copy.deepcopy(model), KvCacheSpec(bits=bits, group=16, recent=16), chunk=8)
        found = logits(cached)
        torch.testing.assert_close(
            found[:, :32], plain[:, :32], rtol=1e-4, atol=1e-4
        )  # nothing has left the latest yet
        apart[bits] = float((found[:, 40:] - plain[:, 40:]).square().mean().sqrt())
    assert 1e-5 < apart[8] < apart[4] / 8
    assert apart[4] < 0.5 * float(plain.std())


def test_keys_by_channel_bear_an_outlying_channel() -> None:
    """KIVI's motivation: one channel of the keys that is large for all tokens."""
    keys, values = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 64, 8)
    keys[..., 3] += 40.0
    errors = {}
    for how in ("channel", "token"):
        layer = KvCacheLayer(KvCacheSpec(bits=4, group=32, recent=0, keys=how))
        layer.update(keys, values)
        again, _ = layer.update(keys[..., :1, :], values[..., :1, :])
        errors[how] = float((again[..., :64, :] - keys).square().mean())
    assert errors["channel"] < 0.1 * errors["token"]


@pytest.mark.parametrize(
    "spec",
    [
        KvCacheSpec(bits=b, group=g, recent=r, keys=k)
        for b in (4, 8, 32)
        for g, r in ((16, 16), (5, 0))
        for k in ("channel", "token")
    ],
)
@pytest.mark.parametrize("tokens", [1, 16, 33, 100])
def test_the_bytes_are_those_that_are_held(spec: KvCacheSpec, tokens: int) -> None:
    model = llama()
    kept = KvCache(spec, 2)
    with torch.no_grad():
        for part in TOKENS[:1, :tokens].split(spec.group, dim=1):
            model(input_ids=part, use_cache=True, **kept.as_argument(model))
    assert kept.n_bytes == kv_cache_bytes(model, spec, tokens)


def test_padding_and_models_that_cannot_have_one() -> None:
    cached = with_kv_cache(llama(), KvCacheSpec(bits=8, group=16, recent=0), chunk=16)
    mask = torch.ones_like(TOKENS)
    mask[0, 60:] = 0
    found = logits(cached, {"input_ids": TOKENS, "attention_mask": mask})
    torch.testing.assert_close(found[0, :60], logits(cached)[0, :60])
    with pytest.raises(InputError, match="padding at the end"):
        logits(cached, {"input_ids": TOKENS, "attention_mask": mask.flip(1)})
    with pytest.raises(InputError, match="Linear has no config"):
        with_kv_cache(nn.Linear(2, 2), KvCacheSpec())
    for wrong in ({"bits": 3}, {"group": 0}, {"keys": "head"}):
        with pytest.raises(InputError, match="KV cache"):
            KvCacheSpec(**wrong)  # type: ignore[arg-type]
