"""torchao's config: its own serialization reads it, and what it has no config for is refused layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from paredown.compressors import LayerSpec
from paredown.evaluators.runtimes import ExportError, export_model
from paredown.evaluators.runtimes.exports import EXPORTS, NOTES_FILE
from paredown.testing import AWKWARD

SPECS = {
    "0": LayerSpec(weight_bits=4, group_size=8),
    "2": LayerSpec(weight_bits=3, weight_format="int_asym", weight_method="minmax"),
    "4": LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="dynamic"),
    "6": LayerSpec(),
}


def model() -> nn.Module:
    linear = lambda: nn.Linear(16, 16)
    return nn.Sequential(linear(), nn.ReLU(), linear(), nn.ReLU(), linear(), nn.ReLU(), linear()).eval()


def test_each_layer_gets_the_config_that_says_the_same(tmp_path: Path) -> None:
    path = export_model("torchao-config", model(), SPECS, {}, None, (), tmp_path)
    layers = json.loads(path.read_text())["_data"]["fqn_to_config"]
    assert layers["6"] is None
    assert layers["0"]["_type"] == layers["2"]["_type"] == "IntxWeightOnlyConfig"
    assert layers["0"]["_data"]["granularity"] == {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 8}}
    assert layers["2"]["_data"]["mapping_type"]["_data"] == "ASYMMETRIC"
    assert layers["4"]["_type"] == "Int8DynamicActivationIntxWeightConfig"
    assert layers["4"]["_data"]["weight_dtype"] == {"_type": "torch.dtype", "_data": "int8"}
    notes = json.loads((tmp_path / NOTES_FILE).read_text())
    assert notes["fallbacks"] == {"2": "minmax chose the weights; torchao will round to the nearest"}
    assert EXPORTS["torchao-config"].checked_by is None, "there is nothing here to run"


def test_what_it_has_no_config_for_is_named_layer_by_layer(tmp_path: Path) -> None:
    bad = {
        "0": LayerSpec(weight_bits=3, weight_format="palette"),
        "2": LayerSpec(weight_bits=8, activation_bits=8),
        "4": LayerSpec(weight_bits=4, group_size=9),
        "6": LayerSpec(rank=0.5),
    }
    with pytest.raises(ExportError) as caught:
        export_model("torchao-config", model(), bad, {}, None, (), tmp_path / "out")
    for words in (
        "0 (w3-palette): no config has the weight format 'palette'",
        "2 (w8 a8): calibrated ranges",
        "4 (w4/9): its groups divide the row, and 9 does not divide 16",
        "6 (r50): no config factorizes",
        "[space] leave",
    ):
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match=r"0 \(w4\): its configs are for nn.Linear, and this is Conv2d"):
        export_model("torchao-config", AWKWARD["grouped"]()[0], {"0": LayerSpec(weight_bits=4)}, {}, None, (), tmp_path)


def test_torchao_reads_it_writes_it_alike_and_quantizes_by_it(elsewhere: Callable[..., Any], tmp_path: Path) -> None:
    path = export_model("torchao-config", model(), SPECS, {}, None, (), tmp_path)
    code = """
import json, sys, torch
from torch import nn
from torchao.core.config import config_from_dict, config_to_dict
from torchao.quantization import quantize_
data = json.load(open(sys.argv[1]))
config = config_from_dict(data)
assert config_to_dict(config) == data, config_to_dict(config)
linear = lambda: nn.Linear(16, 16)
model = nn.Sequential(linear(), nn.ReLU(), linear(), nn.ReLU(), linear(), nn.ReLU(), linear()).eval()
quantize_(model, config, filter_fn=None)
print([type(model[i].weight).__name__ for i in (0, 2, 4, 6)], tuple(model(torch.randn(2, 16)).shape))
"""
    found = elsewhere(("torchao",), code, path)
    assert (
        "['IntxUnpackedToInt8Tensor', 'IntxUnpackedToInt8Tensor', 'IntxUnpackedToInt8Tensor', 'Parameter'] (2, 16)"
        in (found)
    )
