"""Structural compression: channels, heads, neurons, width, recurrent units, blocks and experts removed whole.

It knows `calibration` and `anatomy`; `README.md` here is its card. Begin with `_sets.py` (a coupled set), `_find.py`
(all sets of a model) and `_removal.py` (the positions that are cut). Another kind of unit is one finder like
`_recurrent.py`, called in `_find.py`; its masked and removed models must agree (`_trial.py`).
"""

from ._blocks import BLOCK_SCORES, Block, find_blocks, score_blocks, weakest_blocks
from ._cards import CARDS
from ._choose import check_count, keep_above, keep_best, keep_uniform, n_kept
from ._evidence import UnitEvidence, collect
from ._expert_sets import find_expert_sets, routing_frequency
from ._experts import ExpertEvidence, Experts, busiest, expert_evidence, find_experts, merge_experts
from ._find import Structure, find
from ._huggingface import reloadable
from ._importance import DATA_SCORES, SCORES, WEIGHT_SCORES, score
from ._known import gradients_left, moments_left
from ._mask import mask_of, masked
from ._narrow_attention import NarrowAttention
from ._removal import Removal, removal_of, together
from ._remove import cut, cut_tensors, gone_modules, remove, remove_
from ._sets import KINDS, Attribute, CoupledSet, Member
from ._shrunk import shrunk
from ._trial import Trier, confirm

__all__ = [
    "BLOCK_SCORES",
    "CARDS",
    "DATA_SCORES",
    "KINDS",
    "SCORES",
    "WEIGHT_SCORES",
    "Attribute",
    "Block",
    "CoupledSet",
    "ExpertEvidence",
    "Experts",
    "Member",
    "NarrowAttention",
    "Removal",
    "Structure",
    "Trier",
    "UnitEvidence",
    "busiest",
    "check_count",
    "collect",
    "confirm",
    "cut",
    "cut_tensors",
    "expert_evidence",
    "find",
    "find_blocks",
    "find_expert_sets",
    "find_experts",
    "gone_modules",
    "gradients_left",
    "keep_above",
    "keep_best",
    "keep_uniform",
    "mask_of",
    "masked",
    "merge_experts",
    "moments_left",
    "n_kept",
    "reloadable",
    "removal_of",
    "remove",
    "remove_",
    "routing_frequency",
    "score",
    "score_blocks",
    "shrunk",
    "together",
    "weakest_blocks",
]
