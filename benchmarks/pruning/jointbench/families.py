"""Models and spaces: every level of a family is in the joint space too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paredown.search import Task

HERE = Path(__file__).resolve().parent
BITS = {"weight_bits": [3, 4, 8, 32]}
SPARSITY = {"sparsity": [0.0, 0.5, 0.75]}
RANK = {"rank": [1.0, 0.5]}
CHANNELS = {"channels": [1.0, 0.85, 0.7, 0.5]}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "bits": BITS,
    "sparsity": SPARSITY,
    "rank": RANK,
    "channels": CHANNELS,
    "joint": {**BITS, **SPARSITY, **RANK, **CHANNELS},
}
ALLOCATIONS: Mapping[str, Mapping[str, Any]] = {
    "channels by MACs": {"channels": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5], "round_to": 1},
    "low rank": {"rank": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], "rank_method": ["asvd"]},
}
"""Searched by themselves, and compared with uniform and threshold settings at no more of the cost in `COSTS`."""
COSTS = {"channels by MACs": "macs"}
"""What a front is spread over beside the divergence, where that is not the bytes."""
MODELS: Mapping[str, Mapping[str, Any]] = {
    "resnet20": {
        "model": {"factory": "../../../examples/cifar10/resnet.py:trained_resnet20"},
        "data": {"factory": "../../search/searchbench/sources.py:cifar10", "batch_size": 64},
    },
    "resnet8": {
        "model": {"factory": "factories.py:resnet8_model"},
        "data": {"factory": "factories.py:resnet8_splits", "batch_size": 64},
    },
    "dscnn": {
        "model": {"factory": "../../search/searchbench/sources.py:dscnn"},
        "data": {"factory": "../../search/searchbench/sources.py:spoken_mfcc", "batch_size": 64},
    },
}


def task(model: str, space: Mapping[str, Any], *, cost: str, samples: int, seed: int) -> Task:
    """No limit on the quality: the whole front is what is judged. Batch norms follow in every trial, in every space."""
    return Task.from_dict(
        {
            **MODELS[model],
            "quality": {"max_loss": 1.0},
            "space": {"weight_bits": [32], "activation_bits": [32], **space},
            "hardware": {"runtime": "torch"},
            "objectives": {"names": ["accuracy", cost]},
            "repair": {"batch_norm": "trials", "samples": 64},
            "search": {"seed": seed, "samples": samples, "table_samples": 32},
            "budget": {"trials": 1_000_000, "trial_timeout_s": 600.0},
            "mlflow": {"enabled": False},
        },
        base_dir=HERE,
    )
