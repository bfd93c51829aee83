"""Liveness by hand, on models, and against what PyTorch really allocates."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paredown.compressors import Anatomy, LayerSpec, trace_anatomy
from paredown.errors import InputError
from paredown.evaluators import ActivationGraph, memory_bytes, peak_activations, trace_activations
from paredown.evaluators.memory import Buffer, Step, running_weight_bytes
from paredown.hardware_profiles import load_profile


def chain(*sizes: int, **flags: Any) -> ActivationGraph:
    """One step after another, each reading what the last one wrote."""
    steps = [Step(name=f"s{i}", reads=(i,), writes=(i + 1,), layer=f"l{i}", **flags) for i in range(len(sizes) - 1)]
    buffers = tuple(Buffer(name=f"b{i}", elements=size) for i, size in enumerate(sizes))
    return ActivationGraph(buffers=buffers, steps=tuple(steps), inputs=(0,), outputs=(len(sizes) - 1,))


def test_in_a_chain_two_neighbours_are_alive_at_once() -> None:
    peak = peak_activations(chain(10, 100, 50, 5))
    assert (peak.bytes, peak.step, peak.alive) == (600, "s1", {"b1": 400, "b2": 200})
    assert peak_activations(chain(10, 100, 50, 5), batch=3).bytes == 1800


def test_a_shortcut_stays_alive_until_it_is_added() -> None:
    graph = ActivationGraph(
        buffers=tuple(Buffer(name=name, elements=n) for name, n in (("x", 8), ("a", 100), ("b", 20), ("sum", 100))),
        steps=(
            Step(name="conv1", reads=(0,), writes=(1,)),
            Step(name="conv2", reads=(1,), writes=(2,)),
            Step(name="add", reads=(2, 1), writes=(3,), elementwise=True),
        ),
        inputs=(0,), outputs=(3,),
    )  # fmt: skip
    assert peak_activations(graph).bytes == 480  # the sum is written over a
    assert peak_activations(graph, in_place=False).bytes == 880


def test_an_operand_that_is_read_again_is_not_written_over() -> None:
    graph = ActivationGraph(
        buffers=tuple(Buffer(name=name, elements=10) for name in "xyz"),
        steps=(
            Step(name="relu", reads=(0,), writes=(1,), elementwise=True),
            Step(name="add", reads=(0, 1), writes=(2,), elementwise=True),
        ),
        inputs=(0,), outputs=(2,),
    )  # fmt: skip
    assert peak_activations(graph).bytes == 80


def test_a_tensor_is_as_wide_as_its_most_demanding_reader() -> None:
    graph = chain(100, 100, 100)
    bits = {"l0": 8, "l1": 32}
    assert peak_activations(graph, bits.__getitem__).alive == {"b1": 400, "b2": 400}
    assert peak_activations(graph, lambda fqn: 8).alive == {"b1": 100, "b2": 400}  # the output is FP32
    follows = ActivationGraph(
        buffers=tuple(Buffer(name=f"b{i}", elements=100) for i in range(3)),
        steps=(
            Step(name="relu", reads=(0,), writes=(1,), follows=True),
            Step(name="conv", reads=(1,), writes=(2,), layer="l"),
        ),
        inputs=(0,), outputs=(2,),
    )  # fmt: skip
    assert peak_activations(follows, lambda fqn: 8).alive == {"b1": 100, "b2": 400}


def test_indices_keep_their_width() -> None:
    graph = ActivationGraph(
        buffers=(Buffer(name="ids", elements=10, bits=64), Buffer(name="rows", elements=40)),
        steps=(Step(name="embedding", reads=(0,), writes=(1,), layer="table"),),
        inputs=(0,), outputs=(1,),
    )  # fmt: skip
    assert peak_activations(graph, lambda fqn: 8).alive == {"ids": 80, "rows": 160}


@given(sizes=st.lists(st.integers(1, 1000), min_size=2, max_size=12), bits=st.sampled_from([8, 16]))
def test_narrower_is_never_more_and_never_less_than_the_largest(sizes: list[int], bits: int) -> None:
    graph = chain(*sizes)
    wide, narrow = peak_activations(graph).bytes, peak_activations(graph, lambda fqn: bits).bytes
    assert narrow <= wide
    assert 4 * max(a + b for a, b in pairwise(sizes)) == wide
    assert 4 * sizes[-1] <= narrow


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm(self.first(x)))
        y = torch.relu(self.inner(y) + y)
        return self.head(y.flatten(1))


def traced(model: nn.Module, x: Tensor) -> tuple[Anatomy, ActivationGraph]:
    anatomy = trace_anatomy(model, x[:1])
    return anatomy, trace_activations(model, x, anatomy)


def test_a_model_is_traced_for_one_sample_with_views_and_layers_known() -> None:
    model = Residual().eval()
    _, graph = traced(model, torch.randn(5, 3, 4, 4))
    assert [step.layer for step in graph.steps if step.layer] == ["first", "inner", "head"]
    assert [buffer.elements for buffer in graph.buffers] == [48, 128, 128, 128, 128, 128, 10]  # flatten is a view
    peak = peak_activations(graph)
    assert (peak.bytes, set(peak.alive)) == (1024, {"batch_norm", "conv2d_1"})
    assert peak_activations(graph, lambda fqn: 8).bytes == 256
    assert ActivationGraph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph
    assert not model.training


def test_what_was_stored_wrongly_is_refused() -> None:
    with pytest.raises(InputError, match="a stored activation graph cannot be read"):
        ActivationGraph.from_dict({"buffers": [{"nome": "x"}]})


class _Watch(TorchDispatchMode):
    """The bytes of storages that are alive, by what PyTorch itself allocates and frees."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self.parameters = parameters
        self.alive: dict[int, int] = {}
        self.peak = 0

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.alive and storage.data_ptr() not in self.parameters:  # a transposed weight is a view
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.see(out)
        return out


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 128), nn.Linear(128, 4)),
        nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1), nn.Flatten(), nn.Linear(1024, 3)),
    ],
    ids=["linear", "conv"],
)
def test_the_peak_is_what_eager_pytorch_allocates(model: nn.Sequential) -> None:
    model = model.eval().requires_grad_(False)
    x = torch.randn(1, *((64,) if isinstance(model[0], nn.Linear) else (3, 16, 16)))
    _, graph = traced(model, x)
    watch = _Watch({parameter.untyped_storage().data_ptr() for parameter in model.parameters()})
    watch.see(x)
    held = [x]  # the only reference: in a runtime's arena the input is free too, once it was read
    del x
    with torch.no_grad(), watch:
        for module in model:
            held[0] = module(held[0])
    assert peak_activations(graph, in_place=False).bytes == watch.peak


def test_memory_is_weights_as_they_run_and_the_peak() -> None:
    model = Residual().eval()
    anatomy, graph = traced(model, torch.randn(2, 3, 4, 4))
    server, chip = load_profile("x86-64-onnxruntime"), load_profile("arm-cortex-m7-cmsis-nn")
    three = dict.fromkeys(anatomy.fqns, LayerSpec(weight_bits=3, activation_bits=8))
    three["inner"] = replace(three["inner"], activation_scope="tensor")
    weights = 216 + 576 + 1280
    assert sum(running_weight_bytes(anatomy, three, server).values()) == weights  # three bits run as eight
    others = (16 + 10) * 4  # norm and bias
    assert memory_bytes(anatomy, three, server, graph) == weights + others + 256
    assert memory_bytes(anatomy, None, server, graph) == 4 * weights + others + 1024
    assert memory_bytes(anatomy, three, chip, graph) == 256  # the weights lie in flash


def test_tied_weights_count_once() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    anatomy = trace_anatomy(nn.Sequential(first, second), torch.zeros(1, 8))
    assert sum(running_weight_bytes(anatomy, None, load_profile("x86-64-torch")).values()) == 256
