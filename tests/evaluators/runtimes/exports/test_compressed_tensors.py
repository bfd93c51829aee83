"""The Hugging Face folder: read by hand, by the compressed-tensors library, and by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from torch import nn

from paredown.compressors import LayerSpec, calibrate, compress, trace_anatomy
from paredown.errors import ConfigError, InputError, IntegrityError
from paredown.evaluators.runtimes import ExportError, export_model, get_runtime
from paredown.evaluators.runtimes.exports import NOTES_FILE
from paredown.testing import AWKWARD

MIXED = {
    "query": LayerSpec(weight_bits=4, group_size=8),
    "key": LayerSpec(weight_bits=3),
    "value": LayerSpec(weight_bits=8),
    "out": LayerSpec(weight_bits=5, weight_format="int_asym", group_size=8),
    "up": LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="symmetric"),
    "down": LayerSpec(weight_bits=8, activation_bits=8),
    "classify": LayerSpec(weight_bits=4, activation_bits=8, activation_scheme="dynamic"),
}


def read_by_hand(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """fqn -> weight of every quantized layer, from the files alone: a reader that shares no code with the writer."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    data = load_file(folder / "model.safetensors")
    found = {}
    for group in config["config_groups"].values():
        bits = group["weights"]["num_bits"]

        def codes(words: np.ndarray[Any, Any], n: int, bits: int = bits) -> np.ndarray[Any, Any]:
            out = np.zeros((len(words), n), np.int64)
            for i, row in enumerate(words.astype(np.uint32)):
                whole = sum(int(word) << 32 * at for at, word in enumerate(row))
                out[i] = [(whole >> bits * j) % 2**bits - 2 ** (bits - 1) for j in range(n)]
            return out

        for fqn in group["targets"]:
            scale = data[f"{fqn}.weight_scale"]
            if group["format"] == "pack-quantized":
                rows, columns = data[f"{fqn}.weight_shape"]
                weight = codes(data[f"{fqn}.weight_packed"], columns)
            else:
                weight = data[f"{fqn}.weight"].astype(np.int64)
                rows, columns = weight.shape
            if not group["weights"]["symmetric"]:
                zero = data[f"{fqn}.weight_zero_point"]
                zero = codes(zero.T, rows).T if group["format"] == "pack-quantized" else zero
                weight = weight - np.repeat(zero, columns // scale.shape[1], axis=1)
            found[fqn] = weight * np.repeat(scale, columns // scale.shape[1], axis=1)
    return found


def test_each_form_is_read_by_hand_and_by_ours(compressed: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = AWKWARD["transformer"]()
    args, expected = compressed(model, inputs, MIXED)
    path = export_model("compressed-tensors", *args, tmp_path)
    weights = read_by_hand(path.parent)
    assert set(weights) == set(MIXED)
    for fqn, weight in weights.items():
        np.testing.assert_array_equal(weight.astype(np.float32), args[2][fqn].effective.numpy(), err_msg=fqn)
    output = get_runtime("torch").load(path, threads=1, model_factory=lambda: AWKWARD["transformer"]()[0]).run(inputs)
    assert torch.equal(output, expected)
    config = json.loads(path.read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    assert config["ignore"] == []
    assert not json.loads((tmp_path / NOTES_FILE).read_text())["fallbacks"]


def test_the_file_is_as_small_as_its_codes(compressed: Callable[..., Any], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 256, bias=False)).eval()
    args, _ = compressed(model, torch.randn(2, 256), LayerSpec(weight_bits=4))
    path = export_model("compressed-tensors", *args, tmp_path)
    assert (path.parent / "model.safetensors").stat().st_size < 256 * 256 // 2 + 4 * 256 + 600


def test_what_it_cannot_express_is_dense_and_exact(compressed: Callable[..., Any], tmp_path: Path) -> None:
    specs = {
        "0": LayerSpec(weight_bits=3, weight_format="palette"),
        "2": LayerSpec(rank=0.4),
        "4": LayerSpec(weight_bits=16, weight_format="bf16"),
    }
    args, expected = compressed(*AWKWARD["mlp"](), specs)
    path = export_model("compressed-tensors", *args, tmp_path)
    session = get_runtime("torch").load(path, threads=1, model_factory=lambda: AWKWARD["mlp"]()[0])
    assert torch.equal(session.run(args[-1]), expected)
    notes = json.loads((tmp_path / NOTES_FILE).read_text())
    assert notes["fallbacks"]["0"] == "it has no 'palette' weights: dense weight, same numbers"
    config = json.loads(path.read_text())["quantization_config"]
    assert (config["format"], config["ignore"]) == ("dense", ["0", "2", "4"])
    assert load_tensors(path.parent / "model.safetensors")["4.weight"].dtype == torch.bfloat16


def test_tied_weights_stay_one(compressed: Callable[..., Any], tmp_path: Path) -> None:
    make = AWKWARD["tied_weights"]
    args, expected = compressed(*make(), LayerSpec(weight_bits=4))
    path = export_model("compressed-tensors", *args, tmp_path)
    assert torch.equal(
        get_runtime("torch").load(path, threads=1, model_factory=lambda: make()[0]).run(args[-1]), expected
    )


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("convolutions", LayerSpec(weight_bits=8, activation_bits=8), r"^0 is w8 a8: .* this is Conv2d; leave its"),
        ("mlp", LayerSpec(activation_bits=8), r"^0 is a8: .*no integer activations without integer weights"),
    ],
)
def test_integer_activations_that_it_cannot_express_are_refused_by_name(
    name: str, spec: LayerSpec, message: str, compressed: Callable[..., Any], tmp_path: Path
) -> None:
    args, _ = compressed(*AWKWARD[name](), spec)
    with pytest.raises(ExportError, match=message):
        export_model("compressed-tensors", *args, tmp_path)


def test_a_file_that_contradicts_its_config_is_refused(compressed: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = AWKWARD["mlp"]()
    args, _ = compressed(model, inputs, LayerSpec(weight_bits=4))
    path = export_model("compressed-tensors", *args, tmp_path)
    load = lambda made=model: get_runtime("torch").load(path, threads=1, model_factory=lambda: made)
    with pytest.raises(InputError, match="belongs to another model"):
        load(AWKWARD["transformer"]()[0])
    weights = path.parent / "model.safetensors"
    tensors = load_tensors(weights)
    save_file({name: t for name, t in tensors.items() if name != "2.weight_scale"}, weights)
    with pytest.raises(IntegrityError, match="the weight of 2 contradicts the config"):
        load()
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(IntegrityError, match="cannot be read"):
        load()
    path.write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(InputError, match="quantized by 'gptq'"):
        load()
    path.write_text("{}")
    with pytest.raises(IntegrityError, match="no quantization_config"):
        load()


def test_the_library_decompresses_to_the_same_bits(
    compressed: Callable[..., Any], elsewhere: Callable[..., str], tmp_path: Path
) -> None:
    args, _ = compressed(*AWKWARD["transformer"](), MIXED)
    path = export_model("compressed-tensors", *args, tmp_path)
    save_file({fqn: variant.effective.clone() for fqn, variant in args[2].items()}, tmp_path / "expected.safetensors")
    code = """
import json, sys, torch
from safetensors.torch import load_file
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
config = QuantizationConfig.model_validate(json.load(open(sys.argv[1]))["quantization_config"])
data, expected = load_file(sys.argv[2]), load_file(sys.argv[3])
for scheme in config.config_groups.values():
    for fqn in scheme.targets:
        own = {n.removeprefix(fqn + "."): t for n, t in data.items() if n.startswith(fqn + ".")}
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        assert torch.equal(compressor.decompress(own, scheme)["weight"], expected.pop(fqn)), fqn
print(len(expected), "left")
"""
    packages = ("compressed_tensors", "transformers")
    found = elsewhere(packages, code, path, path.parent / "model.safetensors", tmp_path / "expected.safetensors")
    assert found.strip().endswith("0 left")


HUGGING_FACE = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM
from paredown.compressors import Anatomy, CompressedModel, LayerSpec, calibrate, compress, forward, module_at
from paredown.evaluators.runtimes import export_model
torch.manual_seed(0)
small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, max_position_embeddings=64)
if sys.argv[1] == "llama":
    config = LlamaConfig(**small, intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval()
else:
    model = BertForSequenceClassification(BertConfig(**small, intermediate_size=64)).eval()
inputs = {"input_ids": torch.randint(0, 64, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
anatomy = trace_anatomy(model, inputs)
calibration = calibrate(model, [inputs], anatomy)
specs = [
    LayerSpec(weight_bits=4, group_size=16), LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="symmetric"),
    LayerSpec(weight_bits=3), LayerSpec(weight_bits=8, activation_bits=8), LayerSpec(weight_bits=8),
    LayerSpec(weight_bits=4, activation_bits=8, activation_scheme="dynamic"), LayerSpec(),
]
layers = [layer for layer in anatomy.layers if layer.kind == "linear"]
assignment = {layer.fqn: specs[i % len(specs)] for i, layer in enumerate(layers)}
variants = {f: compress(module_at(model, f).weight.detach(), s, anatomy[f]) for f, s in assignment.items()}
with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
    expected = forward(model, inputs)
path = export_model("compressed-tensors", model, assignment, variants, calibration, inputs, Path(sys.argv[2]))
loaded = type(model).from_pretrained(path.parent).eval()
with torch.no_grad():
    print("apart", float((forward(loaded, inputs) - expected).abs().max()), float(expected.abs().max()))
"""


@pytest.mark.parametrize(("name", "bound"), [("llama", 1e-5), ("bert", 0.02)])
def test_transformers_loads_it_and_gives_the_same_outputs(
    name: str, bound: float, elsewhere: Callable[..., str], tmp_path: Path
) -> None:
    """All outputs of the untrained BERT are near zero, and a value between two codes may fall on the other side."""
    found = elsewhere(("transformers", "compressed_tensors"), HUGGING_FACE, name, tmp_path).split()
    apart, largest = (float(number) for number in found[found.index("apart") + 1 :][:2])
    assert largest > 0
    assert apart <= bound * largest


def test_rounding_of_whole_tensors_is_refused_by_name(tmp_path: Path) -> None:
    """It has one quantizer for each layer's input: what else `activation_scope` tensor rounds would be left out."""
    model, x = AWKWARD["mlp"]()
    anatomy = trace_anatomy(model, x)
    calibration = calibrate(model, [x], anatomy)
    spec = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor")
    variants = {"2": compress(model[2].weight.detach(), spec.weight_only, anatomy["2"])}
    ranges = {**calibration.ranges, "2:output": calibration.ranges["4"]}
    for place, what in ((("", "2"), "2"), (("around", ""), "around")):  # calibrations of models that have such places
        known = replace(calibration, ranges=ranges, places={"2": place})
        with pytest.raises(
            ExportError, match=rf"2 is w8 a8t: compressed-tensors rounds .* 'tensor' rounds {what} for all"
        ):
            export_model("compressed-tensors", model, {"2": spec}, variants, known, x, tmp_path / "a")
    with pytest.raises(ConfigError, match="2 is to be w8 a8t, whose activation_scope 'tensor' needs to know who else"):
        export_model("compressed-tensors", model, {"2": spec}, variants, calibration, x, tmp_path / "b")
    alone = replace(calibration, places={"2": ("", "")})
    export_model("compressed-tensors", model, {"2": spec}, variants, alone, x, tmp_path / "c")
