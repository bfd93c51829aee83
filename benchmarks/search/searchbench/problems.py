"""What is searched, and the fixed box in which its fronts are measured.

Every front is judged by two objectives, minimised: the divergence from the original's outputs (mean KL, nats) on the
search split, and the stored bytes. The hypervolume is taken in (log divergence, bytes), each scaled so that the box is
the unit square: from `floor` to `ceiling` nats, and from the bytes of the cheapest to those of the dearest candidate.
What is better than the floor counts as the floor; what is worse than the ceiling counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paredown.search import Task

HERE = Path(__file__).resolve().parent
RESNET20 = {"factory": "../../../examples/cifar10/resnet.py:trained_resnet20"}
BITS = {"weight_bits": [2, 3, 4, 5, 6, 8]}
JOINT = {"weight_bits": [2, 3, 4, 6, 8], "sparsity": [0.0, 0.5, 0.75], "rank": [1.0, 0.5]}
LOW_BITS = {"weight_bits": [2, 3, 4]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """model, data, space  sections of the task
    samples         of the search split: one full evaluation passes so many
    floor, ceiling  divergences between which the front is measured, in nats
    is_main         one of those that the goals of cost and of quality are about
    is_strong       one where the layers' errors interact strongly
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

    def task(
        self, searcher: str, params: Mapping[str, Any], seed: int, samples: int | None = None, *, race: bool = True
    ) -> Task:
        """No limit on the quality and no mirror: the whole front is what is judged."""
        return Task.from_dict(
            {
                "model": dict(self.model),
                "data": {**self.data, "batch_size": self.batch_size},
                "space": {"activation_bits": [32], **self.space},
                "quality": {"max_loss": 1.0},
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
            model={"factory": "sources.py:kwt1"},
            data={"factory": "sources.py:spoken_frames", "overlap": "drop"},
            space=BITS,
            samples=128,
            floor=1e-4,
            ceiling=3.0,
            is_main=False,
        ),
        SyntheticSpec(name="synthetic-strong", arguments={"n_groups": 22, "n_levels": 7, "interaction": 3.0}),
        SyntheticSpec(
            name="synthetic-known", arguments={"n_groups": 7, "n_levels": 5, "interaction": 3.0}, is_small=True
        ),
    )
}  # fmt: skip
