"""Features of a model's forms, in which its latency is a sum: layers, their neighbourhoods, and both by class.

Layers of one kind and shape are a *class*: what one of them gains, the others gain about as much. So each effect is
there twice, for the class and for the layer's own deviation from it, and the fit finds how much of either there is. A
network of twelve equal blocks is then known from few models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..._arrays import FloatArray
from ._forms import Form
from ._wiring import Wiring

if TYPE_CHECKING:
    from ...compressors import Anatomy

Forms: TypeAlias = tuple[Form, ...]
"""Form of each layer, in the order of `Layout.layers`."""

BLOCKS = ("lone", "kind", "work", "class", "layer", "edge", "edge_own", "tensor")
"""Groups of features that share one prior scale.

They are: gains of layers alone; forms over all layers; arithmetic; forms by class; forms by layer; quantizers saved
between neighbours, by class and by pair; and quantizers shared by a tensor's readers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerClass:
    """Properties that layers of equal cost share.

    share  about this layer's part of the original's latency
    lone   form's label -> what such a layer takes more in it than in FP32 when it runs alone, as a share of the
           original's latency; a form that was not measured so is not there
    """

    fqn: str
    name: str
    share: float
    rows: int
    columns: int
    lone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layers of a model, in the order in which they run, and their connections."""

    layers: tuple[LayerClass, ...]
    wiring: Wiring

    @classmethod
    def of(cls, anatomy: Anatomy, fqns: Sequence[str], wiring: Wiring) -> Layout:
        """Layout of a model. share: half by multiply-accumulates, half the same for all (any kernel has a cost)."""
        total = sum(anatomy[fqn].macs for fqn in fqns) or 1
        layers = []
        for fqn in fqns:
            layer = anatomy[fqn]
            name = f"{layer.kind} {layer.weight_shape} g{layer.groups} x{layer.n_calls} {layer.input_shape}"
            rows, columns = layer.matrix_shape
            share = 0.5 * layer.macs / total + 0.5 / len(fqns)
            layers.append(LayerClass(fqn=fqn, name=name, share=share, rows=rows, columns=columns))
        return cls(layers=tuple(layers), wiring=wiring)

    @property
    def fqns(self) -> tuple[str, ...]:
        return tuple(layer.fqn for layer in self.layers)

    def forms(self, by_fqn: Mapping[str, Form]) -> Forms:
        return tuple(by_fqn.get(layer.fqn, Form()) for layer in self.layers)


Features: TypeAlias = dict[tuple[str, ...], float]


def features_of(layout: Layout, forms: Forms) -> Features:
    """Features as (block, name…) -> value; all zero for the original, whose forms are plain."""
    found: Features = {}

    def add(value: float, *key: str) -> None:
        found[key] = found.get(key, 0.0) + value

    at = {layer.fqn: n for n, layer in enumerate(layout.layers)}
    for layer, form in zip(layout.layers, forms, strict=True):
        if form.is_plain:
            continue
        label = form.label()
        family = f"{'r' if form.kept_rank else ''}{'a8' if form.rounded else ''}{'int' if form.integer else ''}"
        if label in layer.lone:
            add(layer.lone[label], "lone", "sum")
        add(layer.share, "kind", family)
        add(layer.share, "class", layer.name, label)
        add(layer.share, "layer", layer.fqn, label)
        if form.kept_rank:
            whole = layer.rows * layer.columns
            add(layer.share * (form.kept_rank * (layer.rows + layer.columns) / whole - 1.0), "work", "rank")
    unit = 1.0 / len(layout.layers)
    for edge in layout.wiring.edges:
        writer, reader = at[edge.writer], at[edge.reader]
        if forms[writer].integer and forms[reader].rounded:
            add(unit, "edge", layout.layers[writer].name, layout.layers[reader].name, edge.through)
            add(unit, "edge_own", edge.writer, edge.reader)
    for tensor in layout.wiring.tensors:
        rounded = sum(forms[at[fqn]].rounded for fqn in tensor)
        if rounded:
            name = layout.layers[at[tensor[0]]].name
            add(unit, "tensor", "any", name, str(len(tensor)))
            if rounded == len(tensor):
                add(unit, "tensor", "all", name, str(len(tensor)))
    return found


class Encoder:
    """Encoder of features as one matrix for each block; its columns are found once."""

    def __init__(self, layout: Layout, known: Iterable[Forms]) -> None:
        self.layout = layout
        self._columns: dict[str, dict[tuple[str, ...], int]] = {block: {} for block in BLOCKS}
        for forms in known:
            for block, *name in features_of(layout, forms):
                columns = self._columns[block]
                columns.setdefault(tuple(name), len(columns))

    def encode(self, many: Sequence[Forms]) -> tuple[dict[str, FloatArray], FloatArray]:
        """Encode forms as ({block: (n, columns)}, (n,) share of layers whose form was never seen)."""
        blocks = {block: np.zeros((len(many), len(columns))) for block, columns in self._columns.items()}
        unknown = np.zeros(len(many))
        for row, forms in enumerate(many):
            for (block, *name), value in features_of(self.layout, forms).items():
                column = self._columns[block].get(tuple(name))
                if column is not None:
                    blocks[block][row, column] = value
                elif block == "class":
                    unknown[row] += value
        return blocks, unknown
