"""Outputs of a model: one tensor, or several by name, in whatever structure the model returns them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import InputError

_CONSTANTS = (bool, int, float, str)

AUXILIARY = frozenset(
    {
        "loss", "cache", "cache_params", "past_key_values", "mems", "hidden_states", "attentions", "cross_attentions",
        "encoder_hidden_states", "encoder_attentions", "encoder_last_hidden_state", "decoder_hidden_states",
        "decoder_attentions",
        "router_logits", "encoder_router_logits", "decoder_router_logits", "router_probs", "aux_loss", "rope_deltas",
        "encoder_aux_loss", "decoder_aux_loss", "encoder_z_loss", "decoder_z_loss", "extract_features", "loc", "scale",
        "static_features", "projection_state", "text_model_output", "vision_model_output", "audio_model_output",
    }
)  # fmt: skip
"""Fields of a transformers `ModelOutput` that are no answer: caches, losses and inner values."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    name: str


@dataclass(frozen=True, slots=True)
class _Constant:
    value: object


@dataclass(frozen=True, slots=True)
class _Node:
    """Container of outputs. `maker` is its type; `keys` are those of a mapping or the fields of a record."""

    kind: Literal["sequence", "mapping", "named tuple", "record"]
    maker: type[Any]
    keys: tuple[Any, ...]
    parts: tuple[_Template, ...]


_Template = _Leaf | _Constant | _Node


@dataclass(frozen=True, slots=True, eq=False)
class NamedOutputs:
    """Several output tensors of a model, by name and in the model's order.

    An entry of a mapping and a field of a record or named tuple has its own name, an element of a tuple is
    `output_0`, `output_1` and so on, and an inner one follows a dot: `features.0`. Slicing takes samples, along axis 0
    of every tensor.

    tensors   name -> tensor
    template  the structure in which the model returned them
    """

    tensors: Mapping[str, Tensor]
    template: _Template

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(self.tensors)

    @property
    def is_named(self) -> bool:
        """True where the model itself names its outputs, as mappings, named tuples and dataclasses do."""
        return isinstance(self.template, _Node) and self.template.kind != "sequence"

    def __len__(self) -> int:
        """Number of samples."""
        return int(next(iter(self.tensors.values())).shape[0])

    def __getitem__(self, rows: slice) -> NamedOutputs:
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> NamedOutputs:
        """Change each tensor; names and structure stay."""
        return NamedOutputs({name: change(tensor) for name, tensor in self.tensors.items()}, self.template)

    def only(self, names: Sequence[str]) -> NamedOutputs:
        """Keep these outputs. The others are None in the structure."""
        return NamedOutputs({name: self.tensors[name] for name in names}, self.template)

    def like(self, other: NamedOutputs) -> NamedOutputs:
        """Give these outputs the names and the structure of `other`: by name, else by order.

        What `other` lacks is left out where the names fit. Raises `InputError` where neither names nor numbers fit.
        """
        if all(name in self.tensors for name in other.tensors):
            return NamedOutputs({name: self.tensors[name] for name in other.tensors}, other.template)
        if len(self.tensors) != len(other.tensors):
            raise InputError(
                f"expected {len(other.tensors)} outputs ({', '.join(other.names)}), got {len(self.tensors)} "
                f"({', '.join(self.names)})"
            )
        return NamedOutputs(dict(zip(other.tensors, self.tensors.values(), strict=True)), other.template)

    def structure(self) -> Any:
        """Return the outputs as the model does: the same containers, with None for what is left out."""
        return _built(self.template, self.tensors)


Outputs = Tensor | NamedOutputs
"""Outputs of a model: its one tensor, or several by name."""


def outputs_of(returned: object) -> Outputs:
    """Name the tensors in whatever a model's forward returned.

    Tuples, lists, mappings, named tuples, dataclasses, other objects whose attributes are tensors, and transformers'
    `ModelOutput` may hold each other; a
    `ModelOutput` counts without `AUXILIARY`. One tensor in all is returned as such. Other values (numbers, strings, a
    cache) are no outputs. Raises `InputError` where there is no tensor.
    """
    if isinstance(returned, Tensor):
        return returned
    tensors: dict[str, Tensor] = {}
    template = _named(returned, "", tensors)
    if not tensors:
        raise InputError(
            f"a model must return a tensor, or a tuple, list, dict or dataclass with tensors in it; it returned "
            f"{type(returned).__name__} without any. Wrap it in a module that returns the tensors"
        )
    return next(iter(tensors.values())) if len(tensors) == 1 else NamedOutputs(tensors, template)


def flat_outputs(tensors: Sequence[Tensor], names: Sequence[str] | None = None) -> Outputs:
    """Make outputs of tensors in order, as a runtime gives them; several without names are a tuple."""
    if len(tensors) == 1:
        return tensors[0]
    return outputs_of(tuple(tensors) if names is None else dict(zip(names, tensors, strict=True)))


def named_tensors(outputs: Outputs) -> dict[str, Tensor]:
    """Name -> tensor of all outputs; a model's one output has the name ""."""
    return {"": outputs} if isinstance(outputs, Tensor) else dict(outputs.tensors)


def compared_tensors(outputs: Outputs, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Name -> tensor of the outputs that are compared with another model's: `names`, by default all floating-point
    ones. A model's one output is compared whatever its type.
    """
    tensors = named_tensors(outputs)
    if names is not None and isinstance(outputs, NamedOutputs):
        return {name: tensors[name] for name in names}
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    return floating or tensors


def primary(outputs: Outputs, name: str | None = None) -> Tensor:
    """Output that a metric of one tensor reads: that of the name, else "logits", else the first of floating point."""
    if isinstance(outputs, Tensor):
        return outputs
    return outputs.tensors[name or primary_name(outputs)]


def primary_name(outputs: NamedOutputs) -> str:
    """Name of the output that `primary` returns by default."""
    return "logits" if "logits" in outputs.tensors else next(iter(compared_tensors(outputs)))


def mapped(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """Change every tensor of the outputs."""
    return change(outputs) if isinstance(outputs, Tensor) else outputs.map(change)


def joined(batches: Sequence[Outputs]) -> Outputs:
    """Join the outputs of batches along the samples.

    Outputs that a batch lacks are left out, and of several those whose other axes are not alike in all batches. Raises
    `InputError` where that is the model's one output.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        parts = [primary(batch) for batch in batches]
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = ", ".join(str(shape) for shape in dict.fromkeys(tuple(part.shape) for part in parts))
            raise InputError(
                f"the model's output has another shape in other batches ({shapes}), so that its samples cannot be "
                "compared; let its forward return (N, …) in which only N depends on the batch"
            )
        return torch.cat(parts)
    several = [batch for batch in batches if isinstance(batch, NamedOutputs)]
    names = [
        name
        for name, tensor in first.tensors.items()
        if all(name in batch.tensors and batch.tensors[name].shape[1:] == tensor.shape[1:] for batch in several)
    ]
    return NamedOutputs({name: torch.cat([b.tensors[name] for b in several]) for name in names}, first.template)


def same_outputs(one: Outputs, other: Outputs) -> bool:
    """Tell whether two models' outputs are the same bit for bit; NaN equals NaN."""
    mine, theirs = named_tensors(one), named_tensors(other)
    return mine.keys() == theirs.keys() and all(_same(part, theirs[name]) for name, part in mine.items())


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def own_scales(outputs: Outputs) -> dict[str, float]:
    """Name -> one over the standard deviation of each floating-point output; 1 where that is zero."""
    parts = compared_tensors(outputs)
    return {name: 1.0 / (float(part.detach().double().std(correction=0)) or 1.0) for name, part in parts.items()}


def packed(outputs: Outputs, scales: Mapping[str, float], masks: Mapping[str, Tensor] | None = None) -> Tensor:
    """Write the compared outputs as one tensor (N, D) float32 whose squared error weighs each of them.

    scales  name -> factor, of the outputs that are compared
    masks   of outputs of which some positions are hidden (`output_masks`): these are zero, and D counts what is real

    The mean over D of squared differences is the mean over the outputs of each one's mean squared difference times the
    square of its factor.
    """
    parts = compared_tensors(outputs, list(scales))
    rows = {name: part.float().flatten(1) if part.dim() > 1 else part.float()[:, None] for name, part in parts.items()}
    if masks and any(name in masks for name in rows):
        return _packed_real(
            rows, {name: masks[name].expand(parts[name].shape) for name in rows if name in masks}, scales
        )
    width = sum(part.shape[1] for part in rows.values())
    factors = {name: scales[name] * (width / (len(rows) * part.shape[1])) ** 0.5 for name, part in rows.items()}
    return torch.cat([part * factors[name] for name, part in rows.items()], dim=1)


def _packed_real(rows: Mapping[str, Tensor], real: Mapping[str, Tensor], scales: Mapping[str, float]) -> Tensor:
    """Pack rows (N, …) of which some numbers are hidden; each sample has a number of real ones of its own."""
    flat = {name: mask.reshape(len(mask), -1) for name, mask in real.items()}
    counts = {
        name: flat[name].sum(dim=1).clamp(min=1) if name in flat else torch.full((len(part),), part.shape[1])
        for name, part in rows.items()
    }
    width = torch.stack([count.cpu() for count in counts.values()]).sum(dim=0)
    found = []
    for name, part in rows.items():
        factor = scales[name] * (width / (len(rows) * counts[name].cpu())).sqrt().to(part)
        kept = part if name not in flat else part.masked_fill(~flat[name].to(part.device), 0.0)
        found.append(kept * factor[:, None])
    return torch.cat(found, dim=1)


def _named(value: object, name: str, tensors: dict[str, Tensor]) -> _Template:
    """Collect the tensors of a value under their names, and describe its structure."""
    if isinstance(value, Tensor):
        tensors[name or "output"] = value
        return _Leaf(name or "output")
    found = _container(value)
    if found is None:
        return _Constant(value if isinstance(value, _CONSTANTS) else None)
    kind, pairs = found
    inner = "output_" if not name and kind == "sequence" else f"{name}." if name else ""
    parts = tuple(_named(part, f"{inner}{key}", tensors) for key, part in pairs)
    return _Node(kind, type(value), tuple(key for key, _ in pairs), parts)


def _container(
    value: object,
) -> tuple[Literal["sequence", "mapping", "named tuple", "record"], list[tuple[Any, object]]] | None:
    """Kind and content of a container; None for anything else."""
    if any(base.__name__ == "ModelOutput" for base in type(value).__mro__) and isinstance(value, Mapping):
        kept = [(key, part) for key, part in value.items() if key not in AUXILIARY]
        if any(key == "logits" for key, _ in kept):  # a head's hidden state lies beside what it made of it
            kept = [(key, part) for key, part in kept if key != "last_hidden_state"]
        return "record", kept
    if not isinstance(value, (Mapping, nn.Module)) and isinstance(getattr(value, "logits", None), Tensor):
        return "record", [("logits", value.logits), *_attributes(value, "logits")]  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return "mapping", list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "named tuple", list(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return "sequence", list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "record", [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if any(isinstance(part, Tensor) for _, part in _attributes(value)) and not isinstance(value, nn.Module):
        return "record", _attributes(value)
    return None


def _attributes(value: object, *but: str) -> list[tuple[str, object]]:
    return [(name, part) for name, part in getattr(value, "__dict__", {}).items() if name not in but]


def _built(template: _Template, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(template, _Leaf):
        return tensors.get(template.name)
    if isinstance(template, _Constant):
        return template.value
    parts: Iterator[Any] = (_built(part, tensors) for part in template.parts)
    maker = template.maker
    if template.kind == "sequence":
        return tuple(parts) if issubclass(maker, tuple) else list(parts)
    if template.kind == "named tuple":
        return maker(*parts)
    pairs = dict(zip(template.keys, parts, strict=True))
    if template.kind == "mapping":
        return pairs
    if issubclass(maker, Mapping):
        return maker(**pairs)
    record = object.__new__(maker)  # a constructor may ask for more than the fields, or compute with them
    for name, value in pairs.items():
        object.__setattr__(record, name, value)
    return record
