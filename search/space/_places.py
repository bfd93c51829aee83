"""The place of each large parameter of a model: compressed, or left alone for a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...compressors.values import weight_name

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy
    from ..values import SearchSpace

LARGE = 0.01
"""Share of all parameters above which a parameter is named."""
_IDLE = "the layer runs, but influences none of the compared outputs"
_NEVER = "the layer never runs, or its parent uses its weight by itself"
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPlace:
    """Fate of one parameter.

    share          of all parameters of the model
    is_compressed  whether it is the weight of a layer of the space
    reason         why it is left alone; "" where it is compressed
    """

    name: str
    n: int
    share: float
    is_compressed: bool
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `paredown plan --json`; docs/json.md lists its keys."""
        return {
            "name": self.name, "n": self.n, "share": self.share, "compressed": self.is_compressed,
            "reason": self.reason,
        }  # fmt: skip


def parameter_places(
    model: nn.Module, anatomy: Anatomy, space: SearchSpace, leave: Sequence[str] = ()
) -> list[ParameterPlace]:
    """Place of each parameter with more than 1 % of all, in the order of `named_parameters`; a tied one comes once.

    leave  globs of layers that the task leaves alone
    """
    from ...compressors.anatomy import same_tensor, weight_at

    reasons = _reasons_of_layers(anatomy, space, leave)
    of_layers: dict[tuple[object, ...], str] = {}
    for fqn, reason in reasons.items():
        key = same_tensor(weight_at(model, fqn))
        of_layers[key] = "" if "" in (reason, of_layers.get(key)) else reason
    of_parts = _reasons_of_parts(model)
    places, seen = [], set()
    for fqn, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            name, key = f"{fqn}.{leaf}" if fqn else leaf, same_tensor(parameter)
            share = parameter.numel() / max(1, anatomy.n_params)
            if share <= LARGE or key in seen:
                continue
            seen.add(key)
            reason = of_layers[key] if key in of_layers else of_parts.get(name) or _reason_of_type(module, leaf)
            places.append(
                ParameterPlace(name=name, n=parameter.numel(), share=share, is_compressed=not reason, reason=reason)
            )
    return places


def describe_places(places: Sequence[ParameterPlace]) -> list[str]:
    """A line for what is compressed, and one for each reason why something is not.

    `describe_left_alone` names the layers that are not used.
    """
    lines = []
    by_reason: dict[str, list[ParameterPlace]] = {}
    for place in places:
        if place.reason in (_IDLE, _NEVER):
            continue
        by_reason.setdefault(place.reason, []).append(place)
    for reason, of_it in by_reason.items():
        share = f"{sum(place.share for place in of_it):.0%} of the parameters"
        names = ", ".join(place.name for place in of_it[:_SHOWN])
        more = f" and {len(of_it) - _SHOWN} more" if len(of_it) > _SHOWN else ""
        verb = "left alone" if reason else "to be compressed"
        lines.append(f"{verb}: {names}{more} ({share})" + (f": {reason}" if reason else ""))
    return lines


def _reasons_of_layers(anatomy: Anatomy, space: SearchSpace, leave: Sequence[str]) -> dict[str, str]:
    """Layer -> reason why it is left alone; "" where it is in the space."""
    decided = {fqn for group in space.groups for fqn in group.layers}
    reasons = {}
    for fqn in anatomy.fqns:
        if fqn in decided:
            reasons[fqn] = ""
        elif any(fnmatchcase(name, glob) for name in (fqn, *anatomy[fqn].tied_to) for glob in leave):
            reasons[fqn] = "[space] leave names the layer, or one that shares its weight"
        else:
            reasons[fqn] = "no level of [space] fits the layer, or its weight is not finite"
    for fqn in anatomy.unused:
        reasons[fqn] = _IDLE if fqn in anatomy.without_effect else _NEVER
    return reasons


def _reasons_of_parts(model: nn.Module) -> Mapping[str, str]:
    """Parameter -> reason, for what a weight is computed from that is not constant."""
    from ...compressors.anatomy import computed_weights

    return {
        part: f"{computed.by} computes {weight_name(computed.name)} from it, and not the same each time"
        for computed in computed_weights(model)
        for part in computed.parts
    }


def _reason_of_type(module: nn.Module, leaf: str) -> str:
    """Reason why a parameter that belongs to no layer is left alone."""
    from torch import nn

    from ...compressors.anatomy import kind_of

    kind = type(module).__name__
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "the embedding rewrites its own weight (max_norm)"
    if kind_of(module) is not None or isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return "only weights are compressed, and this is no weight matrix"
    if leaf.startswith("weight") or type(module).__module__.startswith("torch.nn"):
        return f"layers of type {kind} are not supported"
    return f"a bare nn.Parameter, which {kind} uses by itself"
