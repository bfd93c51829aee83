"""The floor that file sizes are held against: by hand, and never above what a file takes."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from storagebench.floor import entropy_bits, flags_bits, position_bits
from storagebench.layers import Layer
from storagebench.measure import measure

from paredown.compressors import LayerSpec

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "storage" / "sizes.json"


def test_entropies_by_hand() -> None:
    assert entropy_bits(np.array([1, 1, 2, 3])) == pytest.approx(4 * 1.5)
    assert flags_bits(2, 4) == 4.0
    assert flags_bits(0, 9) == flags_bits(9, 9) == 0.0
    two_of_four = np.tile([True, False, False, True], (8, 8))
    assert position_bits(two_of_four)["groups of 4"] == pytest.approx(8 * 8 * log2(6))
    assert position_bits(np.eye(16, dtype=bool))["diagonals"] == pytest.approx(flags_bits(1, 31))
    block = np.zeros((16, 16), dtype=bool)
    block[4:8, 8:12] = True
    assert position_bits(block)["blocks of 4 x 4"] <= flags_bits(1, 16)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_a_layer_is_never_below_its_floor(bits: int, sparsity: float) -> None:
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(1))
    layer = Layer(name="normal", structure="none", weight=weight, spec=LayerSpec(weight_bits=bits, sparsity=sparsity))
    found = measure(layer)
    assert json.loads(json.dumps(found)) == found
    assert found["bytes"]["entropy"] <= found["bytes"]["plain"]
    assert 0 <= found["over_floor"]["entropy"] <= found["over_floor"]["plain"]
    assert found["bytes"]["plain"] - found["side_bytes"] >= found["floor_bytes"]


def test_the_committed_figures_keep_the_goals() -> None:
    result = json.loads(RESULTS.read_text())
    assert len(result["layers"]) == 10
    for layer in result["layers"]:
        assert layer["over_floor"]["entropy"] <= 0.10, layer["layer"]
        assert layer["over_floor"]["plain"] <= 0.25, layer["layer"]
