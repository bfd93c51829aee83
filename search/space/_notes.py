"""Notes for the user on the parts of a model that a search leaves alone without being asked to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._places import LARGE

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Calibration
    from ..values import SearchSpace
    from ._structured import Structured

_WORTH_SAYING = 0.05
"""Share of the parameters below which norms and the like are not mentioned."""
_SHOWN = 3


def describe_left_alone(model: nn.Module, anatomy: Anatomy) -> list[str]:
    """A line for layers that were never called, one for those without effect, and one for small parameters elsewhere.

    `describe_places` names the large ones.
    """
    lines = []
    shared = dict(anatomy.unused_ties)
    if never := [fqn for fqn in anatomy.unused if fqn not in anatomy.without_effect and fqn not in shared]:
        lines.append(
            "left alone, because they never run (or their parent uses their weights by itself): " + ", ".join(never)
        )
    if anatomy.without_effect:
        lines.append(
            "left alone, because they run but influence none of the compared outputs: "
            + ", ".join(anatomy.without_effect)
        )
    from ...compressors.anatomy import holder_of

    layers = [holder_of(model, fqn)[0] for fqn in (*anatomy.fqns, *anatomy.unused)]
    known = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    others: Counter[str] = Counter()
    for fqn, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in known and parameter.numel() <= LARGE * anatomy.n_params:
                others[f"{fqn} ({type(module).__name__})" if fqn else type(module).__name__] += parameter.numel()
                known.add(id(parameter))
    share = others.total() / max(1, anatomy.n_params)
    if share >= _WORTH_SAYING:
        most = ", ".join(name for name, _ in others.most_common(_SHOWN))
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        lines.append(
            f"{share:.0%} of the parameters, all small, stay as they are: they are in no layer that can be compressed: "
            f"{most}{more}"
        )
    return lines


def without_correction(model: nn.Module, anatomy: Anatomy, inputs: Sequence[Any]) -> list[str]:
    """A line for layers whose bias cannot be corrected."""
    from ...compressors import CompressedModel, Repairs

    names = Repairs(CompressedModel(model, anatomy), None, inputs).without_place
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    line = (
        f"[repair] bias has no place in {len(names)} of {len(anatomy.layers)} layers, which have neither a bias nor a "
    )
    line += f"batch norm behind them, or are transposed: {', '.join(names[:_SHOWN])}{more}"
    return [line]


def describe_products(anatomy: Anatomy, space: SearchSpace) -> list[str]:
    """A line that names where the scope "product" has an effect, if it was asked for; elsewhere it is "layer"."""
    having = [
        fqn for group in space.groups for fqn in group.layers if any(spec.rounds_products for spec in group.levels)
    ]
    if not having:
        return []
    places = list(dict.fromkeys(anatomy[fqn].product_in or "the model" for fqn in having))
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    line = (
        f"activation_scope 'product' is for {len(having)} layers, which feed the attention in "
        f"{', '.join(places[:_SHOWN])}{more}; the others have 'layer': products with a mask or in order of time, and "
        "those of nn.MultiheadAttention, stay in FP32"
    )
    return [line]


def describe_calls(anatomy: Anatomy, space: SearchSpace) -> list[str]:
    """A line for layers that run too often in a pass for a range of each call, if their inputs may be rounded."""
    from ...compressors.anatomy import MOST_CALLS

    rounded = {fqn for group in space.groups for fqn in group.layers if any(spec.needs_range for spec in group.levels)}
    often = [layer for layer in anatomy.layers if layer.fqn in rounded and layer.n_calls > 1 and not layer.n_ranges]
    if not often:
        return []
    names = ", ".join(f"{layer.fqn} ({layer.n_calls} times)" for layer in often[:_SHOWN])
    more = f" and {len(often) - _SHOWN} more" if len(often) > _SHOWN else ""
    line = (
        f"one range of activations serves all calls of {names}{more}: above {MOST_CALLS} calls in a pass none has a "
        "range of its own; activation_scheme 'dynamic' finds one for each token when it runs"
    )
    return [line]


def describe_unmasked(calibration: Calibration) -> list[str]:
    """A line for layers whose activations have other positions than the mask, where that hides something."""
    names = calibration.unmasked
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    line = (
        f"all activations count in the statistics of {', '.join(names[:_SHOWN])}{more}: they have other positions than "
        "the mask among the inputs; calibration samples without padding make that exact"
    )
    return [line]


def describe_kv_cache(model: nn.Module, bits: int, tokens: int = 1024) -> str:
    """Line on the bytes that `model.kv_cache_bits` saves, which are the same for every candidate."""
    from ...evaluators import KvCacheSpec, kv_cache_bytes

    ours, plain = (kv_cache_bytes(model, KvCacheSpec(bits=width), tokens) for width in (bits, 32))
    return (
        f"keys and values of {tokens} tokens take {ours} bytes in {bits} bits, and {plain} in FP32; every "
        "trial and the original run so"
    )


def describe_structure_left(structured: Structured | None, most: int = 8) -> list[str]:
    """A line for each coupled set or block that is left alone, at most `most` and one for the others."""
    if structured is None:
        return []
    named = [
        f"{name}: {why}" if " by " in name else f"{name} is left alone: {why}" for name, why in structured.left.items()
    ]
    more = [f"and {len(named) - most} more are left alone"] if len(named) > most else []
    return [*named[:most], *more]
