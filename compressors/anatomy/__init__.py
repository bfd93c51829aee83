"""Structure of a model: its layers, the consumers of each tensor, fused weights, equalizable pairs.

It knows `values` and the activation quantizers of `quantization`. Begin with `_anatomy.py` (`Anatomy`, a plain value)
and `_trace.py` (`trace_anatomy`, which makes one). Another kind of layer belongs in `_layers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._anatomy import FUSED_KINDS, KINDS, MOST_CALLS, Anatomy, LayerInfo
    from ._attention import ScoresQuantizer, hook_scores, is_plain, plain_attention
    from ._computed import Computed, computed_weights, copied, fold_weights, plain_model
    from ._equalizable import ChannelConsumer, EqualizablePair, find_equalizable_pairs, rescale_channels
    from ._forward import (
        Inputs,
        called,
        check_runs,
        classes_last,
        forward,
        in_double,
        module_at,
        preserved,
        temporary_hooks,
    )
    from ._fused import layer_inputs
    from ._fused_inputs import attention_projection_inputs, recurrent_inputs
    from ._influence import without_effect
    from ._layers import compressible, holder_of, kind_at, kind_of, owner, runs_in, same_tensor, weight_at
    from ._mask import continued, output_positions, positions
    from ._output_masks import OutputMasks, output_masks, packed_mask, real_logits, real_values
    from ._outputs import (
        NamedOutputs,
        Outputs,
        compared_tensors,
        flat_outputs,
        joined,
        mapped,
        named_tensors,
        outputs_of,
        own_scales,
        packed,
        primary,
        primary_name,
        same_outputs,
    )
    from ._per_call import calls_made, continue_from, hook_each_call, skip_calls
    from ._real_rows import (
        has_other_positions,
        masked_batch,
        real_entries,
        real_rows,
        real_scores,
        real_windows,
    )
    from ._source_types import (
        changed_bytes,
        is_widened,
        main_source_dtype,
        remember_sources,
        rounded_to_source,
        source_bytes,
        source_dtypes,
        stored_dtype,
        widen,
    )
    from ._trace import trace_anatomy

_HOMES = {
    "._anatomy": ("Anatomy", "FUSED_KINDS", "KINDS", "LayerInfo", "MOST_CALLS"),
    "._attention": ("ScoresQuantizer", "hook_scores", "is_plain", "plain_attention"),
    "._computed": ("Computed", "computed_weights", "copied", "fold_weights", "plain_model"),
    "._equalizable": ("ChannelConsumer", "EqualizablePair", "find_equalizable_pairs", "rescale_channels"),
    "._forward": (
        "Inputs",
        "called",
        "check_runs",
        "classes_last",
        "forward",
        "in_double",
        "module_at",
        "preserved",
        "temporary_hooks",
    ),
    "._fused": ("layer_inputs",),
    "._fused_inputs": ("attention_projection_inputs", "recurrent_inputs"),
    "._influence": ("without_effect",),
    "._layers": ("compressible", "holder_of", "kind_at", "kind_of", "owner", "runs_in", "same_tensor", "weight_at"),
    "._mask": ("continued", "output_positions", "positions"),
    "._output_masks": ("OutputMasks", "output_masks", "packed_mask", "real_logits", "real_values"),
    "._outputs": (
        "NamedOutputs",
        "Outputs",
        "compared_tensors",
        "flat_outputs",
        "joined",
        "mapped",
        "named_tensors",
        "outputs_of",
        "own_scales",
        "packed",
        "primary",
        "primary_name",
        "same_outputs",
    ),
    "._per_call": ("calls_made", "continue_from", "hook_each_call", "skip_calls"),
    "._real_rows": ("has_other_positions", "masked_batch", "real_entries", "real_rows", "real_scores", "real_windows"),
    "._source_types": (
        "changed_bytes",
        "is_widened",
        "main_source_dtype",
        "remember_sources",
        "rounded_to_source",
        "source_bytes",
        "source_dtypes",
        "stored_dtype",
        "widen",
    ),
    "._trace": ("trace_anatomy",),
}

__all__ = [
    "FUSED_KINDS",
    "KINDS",
    "MOST_CALLS",
    "Anatomy",
    "ChannelConsumer",
    "Computed",
    "EqualizablePair",
    "Inputs",
    "LayerInfo",
    "NamedOutputs",
    "OutputMasks",
    "Outputs",
    "ScoresQuantizer",
    "attention_projection_inputs",
    "called",
    "calls_made",
    "changed_bytes",
    "check_runs",
    "classes_last",
    "compared_tensors",
    "compressible",
    "computed_weights",
    "continue_from",
    "continued",
    "copied",
    "find_equalizable_pairs",
    "flat_outputs",
    "fold_weights",
    "forward",
    "has_other_positions",
    "holder_of",
    "hook_each_call",
    "hook_scores",
    "in_double",
    "is_plain",
    "is_widened",
    "joined",
    "kind_at",
    "kind_of",
    "layer_inputs",
    "main_source_dtype",
    "mapped",
    "masked_batch",
    "module_at",
    "named_tensors",
    "output_masks",
    "output_positions",
    "outputs_of",
    "own_scales",
    "owner",
    "packed",
    "packed_mask",
    "plain_attention",
    "plain_model",
    "positions",
    "preserved",
    "primary",
    "primary_name",
    "real_entries",
    "real_logits",
    "real_rows",
    "real_scores",
    "real_values",
    "real_windows",
    "recurrent_inputs",
    "remember_sources",
    "rescale_channels",
    "rounded_to_source",
    "runs_in",
    "same_outputs",
    "same_tensor",
    "skip_calls",
    "source_bytes",
    "source_dtypes",
    "stored_dtype",
    "temporary_hooks",
    "trace_anatomy",
    "weight_at",
    "widen",
    "without_effect",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
