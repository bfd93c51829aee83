"""Query heads that share a key/value head: all but one can go where there is one; else as many of each group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import forward
from paredown.compressors.structure import collect, find, masked, reloadable, removal_of, remove, score

WAYS = ("enable_gqa", "expand", "repeat_interleave", "repeat", "broadcast")


class Attention(nn.Module):
    """Attention written by hand: `n_kv` key/value heads of width 4 for 6 query heads.

    is_fixed  the number of key/value heads is a constant of the code, so that none can go
    """

    def __init__(self, way: str, n_kv: int, *, is_fixed: bool = False) -> None:
        super().__init__()
        self.way, self.n_heads = way, 6
        self.fixed = (n_kv,) if is_fixed else ()
        if not is_fixed:
            self.n_kv = n_kv
        self.q, self.k, self.v = nn.Linear(12, 24), nn.Linear(12, 4 * n_kv), nn.Linear(12, 4 * n_kv)
        self.out = nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        n_kv = self.fixed[0] if self.fixed else self.n_kv
        repeat = self.n_heads // n_kv
        q = self.q(x).unflatten(2, (self.n_heads, 4)).transpose(1, 2)
        k, v = (layer(x).unflatten(2, (n_kv, 4)).transpose(1, 2) for layer in (self.k, self.v))
        if self.way == "expand":
            k, v = (t[:, :, None].expand(-1, -1, repeat, -1, -1).flatten(1, 2) for t in (k, v))
        elif self.way == "repeat_interleave":
            k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
        elif self.way == "repeat":  # the groups take turns
            k, v = (t.repeat(1, repeat, 1, 1) for t in (k, v))
        if self.way == "enable_gqa":
            mixed = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            mixed = (q @ k.transpose(-1, -2) / 2).softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


def by_hand(way: str, n_kv: int, *, is_fixed: bool = False) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 12), Attention(way, n_kv, is_fixed=is_fixed), nn.Linear(12, 3)).eval()
        return model, torch.randn(4, 7, 5)


@pytest.mark.parametrize("way", WAYS)
def test_any_query_heads_of_one_key_value_head_can_go(way: str) -> None:
    model, x = by_hand(way, 1)
    (heads,) = find(model, x, kinds=["heads"]).sets
    assert (heads.n_units, heads.unit_width) == (6, 4)
    for kept in ([0, 3, 4], [5]):
        removal = removal_of(model, [heads], {heads.name: kept})
        small = remove(model, removal)
        with torch.no_grad(), masked(model, removal):
            torch.testing.assert_close(forward(small, x), forward(model, x))
        layers: Any = small[1]
        assert [layer.out_features for layer in (layers.q, layers.k, layers.v)] == [4 * len(kept), 4, 4]
        assert layers.n_heads == len(kept)


@pytest.mark.parametrize("way", ["enable_gqa", "expand", "repeat_interleave", "repeat"])
def test_groups_go_whole_or_where_they_must_stay_lose_the_same_number_of_query_heads(way: str) -> None:
    model, x = by_hand(way, 2)
    (heads,) = find(model, x, kinds=["heads"]).sets
    assert (heads.n_units, heads.unit_width) == (2, 12)
    model, x = by_hand(way, 2, is_fixed=True)
    (heads,) = find(model, x, kinds=["heads"]).sets
    assert (heads.n_units, heads.unit_width) == (3, 8)
    removal = removal_of(model, [heads], {heads.name: [0, 2]})
    with torch.no_grad(), masked(model, removal):
        torch.testing.assert_close(forward(remove(model, removal), x), forward(model, x))


@pytest.mark.parametrize("way", ["expand", "repeat"])
def test_the_entropy_of_a_unit_is_that_of_its_own_heads(way: str) -> None:
    """Query heads 1 and 2 look at one place only; in each layout they belong to other units."""
    model, x = by_hand(way, 2, is_fixed=True)
    attention: Any = model[1]
    sharp = torch.zeros(24, dtype=torch.bool)
    sharp[[*range(4, 12)]] = True
    with torch.no_grad():
        attention.q.weight[sharp] *= 1e4
        attention.q.bias[sharp] *= 1e4
    (heads,) = find(model, x, kinds=["heads"]).sets
    found = score(model, heads, "entropy", evidence=collect(model, [x], [heads])[heads.name])
    assert found.argmin().item() == (0 if way == "expand" else 2)


def llama(n_kv: int) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=n_kv,
        intermediate_size=24,
    )  # fmt: skip
    return _made(transformers.LlamaForCausalLM, config)


def gemma(n_kv: int) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GemmaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=n_kv,
        intermediate_size=24, head_dim=16,
    )  # fmt: skip
    return _made(transformers.GemmaForCausalLM, config)


def falcon(alibi: bool) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.FalconConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=True, alibi=alibi
    )
    return _made(transformers.FalconForCausalLM, config)


def bigcode(_: int) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTBigCodeConfig(
        vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4, multi_query=True, bos_token_id=1, eos_token_id=2
    )
    return _made(transformers.GPTBigCodeForCausalLM, config)


def _made(kind: Any, config: Any) -> tuple[nn.Module, dict[str, Any]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = kind(config).eval()
    return model, {"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]]), "use_cache": False}


@pytest.mark.parametrize(("make", "n"), [(llama, 8), (gemma, 4), (bigcode, 4)], ids=["llama", "gemma", "bigcode"])
def test_multi_query_attention_of_transformers_loses_query_heads(make: Any, n: int, tmp_path: Path) -> None:
    model, inputs = make(1)
    sets = find(model, inputs, kinds=["heads"]).sets
    assert [coupled.n_units for coupled in sets] == [n, n]
    kept = {coupled.name: [0, n - 1] for coupled in sets}
    removal = removal_of(model, sets, kept)
    small = remove(model, removal)
    with torch.no_grad(), masked(model, removal):
        torch.testing.assert_close(forward(small, inputs), forward(model, inputs), atol=1e-5, rtol=1e-4)
    if make is bigcode:  # the width of a head is the model's width over their number: no config says fewer
        return
    reloadable(small, sets, kept, inputs).save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()  # type: ignore[attr-defined]
    assert (again.config.num_attention_heads, again.config.num_key_value_heads) == (2, 1)
    with torch.no_grad():
        torch.testing.assert_close(forward(again, inputs), forward(small, inputs))


def test_fused_falcon_loses_query_heads_and_its_slopes_are_named() -> None:
    model, inputs = falcon(False)
    sets = find(model, inputs, kinds=["heads"]).sets
    assert [coupled.n_units for coupled in sets] == [4, 4]
    found = find(*falcon(True), kinds=["heads"])  # a slope for each head, computed from the config
    assert not found.sets
    assert all("the model does not run without some of them" in why for why in found.left.values())
