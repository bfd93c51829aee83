"""The edited graph runs what the real export runs: the runtimes themselves say which kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import Anatomy, LayerSpec, applicable, calibrate, compress, module_at, trace_anatomy
from paredown.errors import InputError
from paredown.evaluators.prediction import Form, Layout, Template, form_of, forms_of, offers_of, with_lone_gains
from paredown.evaluators.runtimes import OnnxRuntimeSession, OpenVinoSession, get_runtime, lower
from paredown.testing import AWKWARD

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

SPECS = (
    LayerSpec(),
    LayerSpec(weight_bits=8, activation_bits=8),
    LayerSpec(weight_bits=3, activation_bits=8),
    LayerSpec(weight_bits=4),
    LayerSpec(sparsity=0.5),
    LayerSpec(rank=0.3),
    LayerSpec(rank=0.3, activation_bits=8),
    LayerSpec(activation_bits=8),
)


class Net(nn.Module):
    """A residual block with batch norm, a depthwise layer, a padded one, and two linear layers that read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.one, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, groups=16)
        self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        x = functional.relu(x + self.bn1(self.one(x)))
        x = functional.relu(self.deep(functional.pad(x, (1, 1, 1, 1))))
        y = x.flatten(2).transpose(1, 2)
        y = functional.gelu(self.q(y)) * self.k(y)
        out: Tensor = self.head(y.mean(dim=1))
        return out


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Tensor, Anatomy, Template]:
    torch.manual_seed(0)
    model, x = Net().eval().requires_grad_(False), torch.randn(8, 3, 8, 8)
    anatomy = trace_anatomy(model, x[:1])
    return model, x, anatomy, Template.trace(model, anatomy, calibrate(model, [x], anatomy), x[:2])


def assignment(anatomy: Anatomy, seed: int) -> dict[str, LayerSpec]:
    rng = np.random.default_rng(seed)
    found = {layer.fqn: SPECS[int(rng.integers(len(SPECS)))] for layer in anatomy.layers}
    return {f: s if applicable(s, anatomy[f]) is None else SPECS[1] for f, s in found.items()}


def ran(runtime: str, path: Path, x: Tensor, folder: Path) -> Counter[tuple[str, ...]]:
    if runtime == "onnxruntime":
        seen = folder / "seen.onnx"
        OnnxRuntimeSession(path, 1, seen)
        return Counter((node.op_type,) for node in onnx.load(seen).graph.node)
    session = OpenVinoSession(path, 1)
    session.run(x)
    return Counter((kernel["type"], kernel["kernel"], kernel["precision"]) for kernel in session.kernels())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_kernels_run_as_in_the_real_export(
    runtime: str, seed: int, traced: tuple[nn.Module, Tensor, Anatomy, Template], tmp_path: Path
) -> None:
    pytest.importorskip(runtime)
    model, x, anatomy, template = traced
    chosen = assignment(anatomy, seed)
    calibration = calibrate(model, [x], anatomy)
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec.weight_only, anatomy[fqn])  # type: ignore[operator]
        for fqn, spec in chosen.items()
        if spec.changes_weight
    }
    real = get_runtime(runtime).export(model, chosen, variants, calibration, x[:2], tmp_path / "real")
    mine = template.write(forms_of(anatomy, chosen), tmp_path / "mine.onnx", guarded=runtime == "onnxruntime")
    assert ran(runtime, mine, x[:1], tmp_path) == ran(runtime, real, x[:1], tmp_path)


def test_whole_tensors_are_rounded_as_in_the_real_export(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, x = AWKWARD["residual"]()
    assert isinstance(x, Tensor)
    anatomy = trace_anatomy(model, x[:1])
    calibration = calibrate(model, [x], anatomy, tensors=True)
    of_layer = LayerSpec(weight_bits=8, activation_bits=8)
    tensor = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor")
    chosen = {layer.fqn: tensor if applicable(tensor, layer) is None else of_layer for layer in anatomy.layers}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec.weight_only, anatomy[fqn])  # type: ignore[operator]
        for fqn, spec in chosen.items()
    }
    real = get_runtime("onnxruntime").export(model, chosen, variants, calibration, x[:2], tmp_path / "real")
    template = Template.trace(model, anatomy, calibration, x[:2])
    mine = template.write(forms_of(anatomy, chosen), tmp_path / "mine.onnx", guarded=True)
    assert ran("onnxruntime", mine, x[:1], tmp_path) == ran("onnxruntime", real, x[:1], tmp_path)
    plain = OnnxRuntimeSession(template.write({}, tmp_path / "plain.onnx", guarded=True), 1)
    torch.testing.assert_close(plain.run(x), model(x).detach(), atol=1e-4, rtol=1e-4)


def test_plain_forms_compute_what_the_model_computes(
    traced: tuple[nn.Module, Tensor, Anatomy, Template], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    model, x, _, template = traced
    session = OnnxRuntimeSession(template.write({}, tmp_path / "plain.onnx", guarded=True), 1)
    torch.testing.assert_close(session.run(x), model(x), atol=1e-4, rtol=1e-4)
    int8 = {fqn: Form(integer=True, rounded=True) for fqn in template.layers}
    rounded = OnnxRuntimeSession(template.write(int8, tmp_path / "int8.onnx", guarded=True), 1).run(x)
    assert 1e-5 < float((rounded - model(x)).abs().max()) < 0.5  # really rounded, and not to rubbish


def test_neighbours_by_hand(traced: tuple[nn.Module, Tensor, Anatomy, Template]) -> None:
    wiring = traced[3].wiring
    edges = {(edge.writer, edge.reader): edge.through for edge in wiring.edges}
    assert edges["stem", "one"] == "Relu"
    assert edges["one", "deep"] == "Add-Relu"
    assert edges["stem", "deep"] == "Relu-Add-Relu"
    assert ("stem", "q") not in edges
    assert wiring.tensors == (("q", "k"),)


def test_forms_are_what_the_exporter_lowers_to(traced: tuple[nn.Module, Tensor, Anatomy, Template]) -> None:
    model, x, anatomy, _ = traced
    calibration = calibrate(model, [x], anatomy)
    for layer in anatomy.layers:
        for spec in SPECS:
            if applicable(spec, layer) is not None:
                continue
            weight = module_at(model, layer.fqn).weight.detach()  # type: ignore[operator]
            variants = {layer.fqn: compress(weight, spec.weight_only, layer)} if spec.changes_weight else {}
            lowered = lower({layer.fqn: spec}, variants, calibration)
            form = form_of(layer, spec)
            if not lowered:
                assert form.is_plain
                continue
            (real,) = lowered
            kept = real.factors[0].shape[1] if real.factors is not None else 0
            assert form == Form(integer=real.is_int8, rounded=real.activation is not None, kept_rank=kept)


@pytest.mark.parametrize("label", ["fp32", "int8", "a8", "r12", "r12a8"])
def test_labels_come_back(label: str) -> None:
    assert Form.from_label(label).label() == label


@pytest.mark.parametrize("label", ["", "int4", "r0", "r", "a8r2"])
def test_labels_that_are_none_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match="must be like fp32, int8"):
        Form.from_label(label)


def test_a_form_for_a_layer_that_is_not_there_is_refused(traced: tuple[nn.Module, Tensor, Anatomy, Template]) -> None:
    with pytest.raises(InputError, match="fc9 cannot be given a form"):
        traced[3].build({"fc9": Form(rounded=True)}, guarded=False)
    with pytest.raises(InputError, match="has rank 5 at most, and 9 is to be kept"):
        traced[3].build({"head": Form(kept_rank=9)}, guarded=False)


def test_lone_gains_are_of_every_form_that_is_on_offer(traced: tuple[nn.Module, Tensor, Anatomy, Template]) -> None:
    pytest.importorskip("onnxruntime")
    _, _, anatomy, template = traced
    groups = [((layer.fqn,), [s for s in SPECS if applicable(s, layer) is None]) for layer in anatomy.layers]
    layout = Layout.of(anatomy, template.layers, template.wiring)
    found = with_lone_gains(
        layout, anatomy, offers_of(anatomy, groups), runtime="onnxruntime", threads=1, original_ms=1.0
    )
    assert found.fqns == layout.fqns
    for layer, offer in zip(found.layers, offers_of(anatomy, groups), strict=True):
        forms = {forms[layer.fqn] for forms in offer}
        assert set(layer.lone) == {form.label() for form in forms if form.integer or form.kept_rank}
        assert all(abs(gain) < 1.0 for gain in layer.lone.values())  # microseconds, of an original of a millisecond
