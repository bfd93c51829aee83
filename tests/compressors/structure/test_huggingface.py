"""Hugging Face models: heads, neurons and width are found and removed, and the smaller model loads again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paredown.compressors import forward
from paredown.compressors.structure import (
    find,
    find_blocks,
    keep_best,
    masked,
    n_kept,
    reloadable,
    removal_of,
    remove,
    routing_frequency,
    score,
    score_blocks,
    weakest_blocks,
)
from paredown.errors import ConfigError, SpecError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TOKENS = {"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])}


def bert() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24
    )
    return made(transformers.BertForSequenceClassification, config), TOKENS


def llama() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=24,
    )  # fmt: skip
    return made(transformers.LlamaForCausalLM, config), TOKENS | {"use_cache": False}


def mixtral() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.MixtralConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, num_local_experts=6, num_experts_per_tok=2,
    )  # fmt: skip
    return made(transformers.MixtralForCausalLM, config), TOKENS | {"use_cache": False}


def t5() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
    inputs = TOKENS | {"decoder_input_ids": TOKENS["input_ids"][:, :4], "use_cache": False}
    return made(transformers.T5ForConditionalGeneration, config), inputs


def vit() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24
    )
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return made(transformers.ViTForImageClassification, config), {"pixel_values": pixels}


def made(kind: Any, config: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = kind(config).eval()
    return model


@pytest.mark.parametrize(
    ("make", "heads", "neurons"),
    [(bert, 2, 3), (llama, 3, 3), (t5, 3, 4), (vit, 2, 2)],
    ids=["bert", "llama", "t5", "vit"],
)
def test_heads_neurons_and_width_are_found_and_agree(make: Any, heads: int, neurons: int) -> None:
    model, inputs = make()
    structure = find(model, inputs)
    assert [len(structure.of_kind(kind)) for kind in ("heads", "neurons", "hidden")] == [heads, neurons, 1]
    removal = removal_of(model, structure.sets, {s.name: range(0, s.n_units, 2) for s in structure.sets})
    with torch.no_grad():
        with masked(model, removal):
            want = forward(model, inputs)
        got = forward(remove(model, removal), inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "shares", "n_dropped"),
    [(bert, {"neurons": 0.5}, 0), (llama, {"neurons": 0.5, "heads": 0.5, "hidden": 0.75}, 1), (t5, {"heads": 0.5}, 0),
     (vit, {"neurons": 0.5}, 1)],
    ids=["bert", "llama", "t5", "vit"],
)  # fmt: skip
def test_the_smaller_model_loads_again(make: Any, shares: dict[str, float], n_dropped: int, tmp_path: Path) -> None:
    model, inputs = make()
    sets = find(model, inputs, leave=["*pooler*"]).sets
    kept = {s.name: keep_best(s, score(model, s, "group"), n_kept(s, shares[s.kind])) for s in sets if s.kind in shares}
    skipped = {}
    if n_dropped:
        blocks, _ = find_blocks(model, inputs)
        skipped = weakest_blocks(blocks, score_blocks(model, inputs, blocks), n_dropped)
    small = remove(model, removal_of(model, sets, kept, skipped))
    reloadable(small, sets, kept, inputs).save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(forward(again, inputs), forward(small, inputs))
    n_small, n_whole = (sum(p.numel() for p in m.parameters()) for m in (again, model))
    assert n_small < 0.95 * n_whole


def test_what_no_config_can_say_is_refused() -> None:
    model, inputs = bert()
    sets = find(model, inputs).sets
    heads = next(s for s in sets if s.kind == "heads")
    uneven = {heads.name: [0, 1]}
    with pytest.raises(ConfigError, match=r"the layers keep 2 and 4|no config of BertConfig says"):
        reloadable(remove(model, removal_of(model, sets, uneven)), sets, uneven, inputs)
    both = {s.name: [0, 1] for s in sets if s.kind == "heads"}  # BERT works out a head's width from their number
    with pytest.raises(
        ConfigError, match=r"no config of BertConfig describes the kept parts: .*query\.weight is \(8, 16\)"
    ):
        reloadable(remove(model, removal_of(model, sets, both)), sets, both, inputs)


def test_a_config_that_means_something_else_is_refused() -> None:
    """T5 scales its outputs by the width: a narrower T5 is another function."""
    model, inputs = t5()
    sets = find(model, inputs).sets
    kept = {s.name: range(8) for s in sets if s.kind == "hidden"}
    with pytest.raises(ConfigError, match="gives other outputs"):
        reloadable(remove(model, removal_of(model, sets, kept)), sets, kept, inputs)


def test_a_model_without_a_config() -> None:
    with pytest.raises(ConfigError, match="Linear has no Hugging Face config"):
        reloadable(nn.Linear(2, 2), [], {}, torch.ones(1, 2))


def test_experts_in_one_tensor_are_removed_and_the_smaller_mixture_loads_again(tmp_path: Path) -> None:
    model, inputs = mixtral()
    structure = find(model, inputs, kinds=["experts"])
    assert [(s.name, s.n_units, s.floor) for s in structure.sets] == [
        ("experts:model.layers.0.mlp", 6, 2), ("experts:model.layers.1.mlp", 6, 2),
    ]  # fmt: skip
    asked = routing_frequency(model, [inputs], structure.sets)
    assert all(float(share.sum()) == pytest.approx(1.0) for share in asked.values())
    kept = {s.name: keep_best(s, asked[s.name], 3) for s in structure.sets}
    removal = removal_of(model, structure.sets, kept)
    with masked(model, removal):
        want = forward(model, inputs)
    assert not torch.allclose(want, forward(model, inputs), atol=1e-4)
    small = remove(model, removal)
    torch.testing.assert_close(forward(small, inputs), want, atol=1e-5, rtol=1e-5)
    assert small.get_submodule("model.layers.0.mlp.experts").gate_up_proj.shape[0] == 3
    again = reloadable(small, structure.sets, kept, inputs)
    again.save_pretrained(tmp_path)
    loaded = transformers.MixtralForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.num_local_experts == 3
    torch.testing.assert_close(forward(loaded, inputs), want, atol=1e-5, rtol=1e-5)
    uneven = kept | {"experts:model.layers.1.mlp": keep_best(structure.sets[1], asked[structure.sets[1].name], 4)}
    with pytest.raises(ConfigError, match="keep the same number everywhere"):
        reloadable(remove(model, removal_of(model, structure.sets, uneven)), structure.sets, uneven, inputs)


def test_a_mixture_keeps_as_many_experts_as_it_asks(tmp_path: Path) -> None:
    model, inputs = mixtral()
    first = find(model, inputs, kinds=["experts"]).sets[0]
    assert n_kept(first, 0.34) == 2
    with pytest.raises(SpecError, match=r"leaves 1; at least 2 must stay, so keep 0\.34 or more"):
        n_kept(first, 0.2)
