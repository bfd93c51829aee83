"""A network whose latency is planted: sums over layers and neighbours, and noise. No clock is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paredown.evaluators.prediction import Edge, Form, LayerClass, Layout, Timed, Wiring

INT8, RANK = Form(integer=True, rounded=True), Form(kept_rank=4)
FORMS = (Form(), INT8, RANK)


def chain(n: int = 18, n_classes: int = 3) -> Layout:
    """`n` layers one after another, of `n_classes` shapes in turn."""
    layers = tuple(
        LayerClass(fqn=f"l{i}", name=f"shape{i % n_classes}", share=1.0 / n, rows=16, columns=16) for i in range(n)
    )
    edges = tuple(Edge(writer=f"l{i}", reader=f"l{i + 1}", through="Relu") for i in range(n - 1))
    return Layout(layers=layers, wiring=Wiring(edges=edges))


@dataclass
class PlantedMachine:
    """ratio = 1 + (sum of each layer's own saving + a price for each integer layer without a quantized reader) / n."""

    layout: Layout
    noise: float = 0.0
    seed: int = 0
    n_timed: int = 0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        drawn = np.random.default_rng(7)
        self.gain = {name: (-drawn.uniform(0.3, 0.7), -drawn.uniform(0.0, 0.3)) for name in self.classes}
        self.own = {layer.fqn: drawn.normal(0.0, 0.02) for layer in self.layout.layers}

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(layer.name for layer in self.layout.layers))

    def truth(self, forms: Mapping[str, Form]) -> float:
        n, total = len(self.layout.layers), 0.0
        for layer in self.layout.layers:
            form = forms.get(layer.fqn, Form())
            if form.integer:
                total += self.gain[layer.name][0] + self.own[layer.fqn]
            elif form.kept_rank:
                total += self.gain[layer.name][1]
        for edge in self.layout.wiring.edges:
            if forms.get(edge.writer, Form()).integer and not forms.get(edge.reader, Form()).rounded:
                total += 0.5
        return 1.0 + total / n

    def __call__(self, forms: Mapping[str, Form]) -> Timed:
        self.n_timed += 1
        ratio = self.truth(forms) * float(np.exp(self.rng.normal(0.0, self.noise)))
        return Timed(ratio=ratio, error=self.noise * ratio, ms=(ratio,), original_ms=(1.0,))
