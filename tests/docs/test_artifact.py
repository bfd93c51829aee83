"""The reader in docs/artifact.md knows nothing of paredown or torch, and reads every artifact to the bit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import paredown
from paredown.compressors import (
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    describe_file,
    forward,
    load_model,
    save_model,
    stored_bytes,
    trace_anatomy,
    weight_at,
)
from paredown.compressors.anatomy import compared_tensors, widen
from paredown.compressors.sparse_formats import SPARSE_FORMATS, encode_as
from paredown.compressors.structure import Removal, find, find_blocks, removal_of, remove, remove_
from paredown.search.evaluation import structure_text
from paredown.testing import AWKWARD, STRUCTURES

PAGE = Path(__file__).parents[2] / "docs" / "artifact.md"
SOURCE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[-1]


@pytest.fixture(scope="module")
def read() -> Callable[[Path], Any]:
    module = types.ModuleType("reader")
    exec(compile(SOURCE, str(PAGE), "exec"), module.__dict__)
    found: Callable[[Path], Any] = module.__dict__["read"]
    return found


@pytest.fixture(scope="module")
def structure() -> Callable[[Path], Any]:
    module = types.ModuleType("reader")
    exec(compile(SOURCE, str(PAGE), "exec"), module.__dict__)
    found: Callable[[Path], Any] = module.__dict__["structure"]
    return found


def same(read: Callable[[Path], Any], path: Path, fresh: nn.Module) -> None:
    """Every tensor of the loaded model, and every layer's input, as the reader has them."""
    specs = load_model(path, fresh)
    tensors, layers = read(path)
    state = {name: value for name, value in fresh.state_dict().items() if isinstance(value, torch.Tensor)}
    assert set(tensors) == set(state)
    for name, value in state.items():
        found = np.ascontiguousarray(tensors[name])
        if value.is_floating_point():  # a file in half precision is loaded as FP32
            assert np.array_equal(value.float().numpy(), found.astype("f4")), name
        else:
            assert value.numpy().tobytes() == found.tobytes(), name
    described = describe_file(path)["layers"]
    for fqn, (spec, qparams) in layers.items():
        activations = [described[fqn]["activation"], *described[fqn].get("activation_calls", [])]
        assert [(found["scale"], found["zero_point"]) for found in activations if found is not None] == qparams
        assert spec.get("a", FLOAT_BITS) == specs[fqn].activation_bits


GRIDS = [(name, bits) for name, widths in FORMAT_BITS.items() for bits in widths if name != "adaptive"]


def saved(path: Path, specs: list[LayerSpec], *, entropy: bool, name: str = "convolutions") -> nn.Module:
    """A model whose layers get the specs in turn; gives a fresh one of the same architecture."""
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    assignment = {layer.fqn: specs[i % len(specs)] for i, layer in enumerate(anatomy.layers)}
    variants = {fqn: compress(weight_at(model, fqn), spec, anatomy[fqn]) for fqn, spec in assignment.items()}
    save_model(path, model, assignment, variants, calibration, entropy=entropy)
    fresh, _ = AWKWARD[name]()
    return fresh


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(("format", "bits"), GRIDS)
def test_every_format_of_weights(read: Any, tmp_path: Path, format: str, bits: int, entropy: bool) -> None:
    path = tmp_path / "model.safetensors"
    plain = LayerSpec(weight_bits=bits, weight_format=format)
    specs = [plain]
    if bits < 16:
        more = {"weight_bits": bits, "weight_format": format}
        specs = [
            LayerSpec(**more, group_size=8, scale_bits=16),
            LayerSpec(**more, group_size="tensor", sparsity=0.6, activation_bits=8),
            LayerSpec(**more, sparsity=0.3, activation_bits=8, activation_scheme="dynamic"),
        ]
    same(read, path, saved(path, specs, entropy=entropy))


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(
    "specs",
    [
        [LayerSpec()],
        [LayerSpec(rank=0.3), LayerSpec(rank=0.3, sparsity=0.6, weight_bits=4, activation_bits=8)],
        [LayerSpec(sparsity=0.5), LayerSpec(sparsity=0.9), LayerSpec(sparsity=0.1)],
    ],
    ids=["as it is", "low rank", "sparse"],
)
def test_low_rank_sparse_and_untouched(read: Any, tmp_path: Path, specs: list[LayerSpec], entropy: bool) -> None:
    path = tmp_path / "model.safetensors"
    same(read, path, saved(path, specs, entropy=entropy))


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("form", RANK_FORMS)
def test_every_form_of_low_rank(read: Any, tmp_path: Path, form: str, entropy: bool) -> None:
    path = tmp_path / "model.safetensors"
    wanted = [
        LayerSpec(rank=0.3, rank_form=form),
        LayerSpec(rank=0.3, rank_form=form, weight_bits=4, sparsity=0.5),
        LayerSpec(rank=0.3, rank_form=form, weight_bits=3, weight_format="palette"),
        LayerSpec(rank=0.3, rank_form=form, weight_bits=4, weight_format="int_asym", group_size="3x5", sparsity=0.5),
        LayerSpec(rank=0.3, rank_form=form, sparsity=0.6),
        LayerSpec(rank=0.3, rank_form=form, weight_bits=16, weight_format="fp16"),
    ]
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(6, 24, 3), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 24, 3)) for _ in range(2)]
    anatomy = trace_anatomy(models[0], torch.randn(1, 6, 12, 12))
    fitting = [{x.fqn: spec for x in anatomy.layers if applicable(spec, x) is None} for spec in wanted]
    assert len([fits for fits in fitting if fits]) >= 4  # a residual of FP16, or as it is, saves nothing
    for spec, fits in zip(wanted, fitting, strict=True):
        variants = {fqn: compress(weight_at(models[0], fqn), spec, anatomy[fqn]) for fqn in fits}
        save_model(path, models[0], fits, variants, entropy=entropy)
        same(read, path, models[1])


@pytest.mark.parametrize("form", ["input", "tucker2"])
def test_zeros_of_a_single_rank_are_positive(read: Any, tmp_path: Path, form: str) -> None:
    """A product of one rank is not summed, so that a negative number times zero would stay -0.0."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    model, fresh = nn.Sequential(nn.Conv1d(5, 24, 3)), nn.Sequential(nn.Conv1d(5, 24, 3))
    layer = trace_anatomy(model, torch.randn(1, 5, 20))["0"]
    spec = LayerSpec(rank=0.1, rank_form=form, weight_bits=4, sparsity=0.5)
    variant = compress(model[0].weight, spec, layer)
    assert 1 in variant.parts()["v."].shape
    zeros = variant.effective[variant.effective == 0]
    assert len(zeros) > 0
    assert not torch.signbit(zeros).any()
    save_model(path, model, {"0": spec}, {"0": variant})
    same(read, path, fresh)


@pytest.mark.parametrize("seed", range(12))
def test_three_factors_that_cancel(read: Any, tmp_path: Path, seed: int) -> None:
    """With zeros and one scale for all, sums of the first two factors are 0 or 1e-19, as they are ordered."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(seed)
    model, fresh = nn.Sequential(nn.Conv2d(24, 24, 3)), nn.Sequential(nn.Conv2d(24, 24, 3))
    spec = LayerSpec(rank=0.3, rank_form="tucker2", weight_bits=3, sparsity=0.6, group_size="tensor")
    variant = compress(model[0].weight, spec, trace_anatomy(model, torch.zeros(1, 24, 6, 6))["0"])
    save_model(path, model, {"0": spec}, {"0": variant})
    same(read, path, fresh)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
@pytest.mark.parametrize("size", ["3x5", "32x16"])
@pytest.mark.parametrize("format", ["int", "int_asym", "nf4", "palette"])
def test_blocks_of_several_rows(
    read: Any, tmp_path: Path, format: str, size: str, sparsity: float, entropy: bool
) -> None:
    path = tmp_path / "model.safetensors"
    spec = LayerSpec(weight_bits=4, weight_format=format, group_size=size, sparsity=sparsity)
    model, fresh = nn.Sequential(nn.Linear(37, 40)), nn.Sequential(nn.Linear(37, 40))  # no block divides it
    variant = compress(model[0].weight, spec, trace_anatomy(model, torch.zeros(1, 37))["0"])
    save_model(path, model, {"0": spec}, {"0": variant}, entropy=entropy)
    same(read, path, fresh)


def test_tensors_that_are_rounded_for_all_their_readers(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, inputs = AWKWARD["residual"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, tensors=True)
    spec = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor")
    assignment = {layer.fqn: spec for layer in anatomy.layers if applicable(spec, layer) is None}
    variants = {fqn: compress(weight_at(model, fqn), spec.weight_only, anatomy[fqn]) for fqn in assignment}
    save_model(path, model, assignment, variants, calibration)
    assert any(layer.residual_output for layer in anatomy.layers)
    same(read, path, AWKWARD["residual"]()[0])


def test_factors_of_attention_that_are_rounded(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, inputs = AWKWARD["transformer"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, products=True)
    spec = LayerSpec(activation_bits=8, activation_scope="product")
    assignment = {layer.fqn: spec for layer in anatomy.layers if applicable(spec, layer) is None}
    assert list(assignment) == ["query", "key", "value"]
    save_model(path, model, assignment, {}, calibration)
    same(read, path, AWKWARD["transformer"]()[0])


def test_layers_whose_calls_have_ranges_of_their_own(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    fresh = saved(path, [LayerSpec(weight_bits=8, activation_bits=8)], entropy=False, name="shared_module")
    same(read, path, fresh)
    described = describe_file(path)
    assert described["schema_version"] == 3
    assert any(len(read(path)[1][fqn][1]) > 2 for fqn in described["layers"])


@pytest.mark.parametrize("name", ["tied_weights", "shared_module", "never_runs", "keyword_inputs"])
def test_models_that_share_and_leave_out(read: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    same(read, path, saved(path, [LayerSpec(weight_bits=4)], entropy=False, name=name))


@pytest.mark.parametrize("entropy", [False, True])
def test_a_format_that_was_chosen_for_the_weight(read: Any, tmp_path: Path, entropy: bool) -> None:
    path = tmp_path / "model.safetensors"
    adaptive = LayerSpec(weight_bits=3, weight_format="adaptive", scale_bits=16)
    same(read, path, saved(path, [adaptive, LayerSpec()], entropy=entropy, name="keyword_inputs"))


def pattern_for(name: str) -> torch.Tensor:
    """A mask (48, 80) that the sparse format of this name holds in the fewest bytes of all."""
    rng = np.random.default_rng(4)
    mask = np.zeros((48, 80), dtype=bool)
    if name == "bitmap":
        mask = rng.random((48, 80)) < 0.4
    elif name == "coo":
        mask.reshape(-1)[rng.choice(48 * 80, 3, replace=False)] = True
    elif name in ("csr", "csc"):
        few = np.array([np.isin(np.arange(80), rng.choice(80, 3, replace=False)) for _ in range(48)])
        mask = few
        mask[7], mask[9] = False, rng.random(80) < 0.1
        mask = mask if name == "csr" else np.ascontiguousarray(mask.reshape(80, 48)).reshape(48, 80)
    elif name == "bsr":
        mask = np.kron(rng.random((12, 20)) < 0.2, np.ones((4, 4))) > 0
    elif name == "ell":
        mask = np.array([np.isin(np.arange(80), rng.choice(80, 3, replace=False)) for _ in range(48)])
    elif name == "dia":
        mask = np.eye(48, 80, k=3) + np.eye(48, 80, k=-5) > 0
    elif name == "nm":
        mask = np.array([np.isin(np.arange(4), rng.choice(4, 1)) for _ in range(48 * 20)]).reshape(48, 80)
    elif name == "blockmap":
        mask = np.kron(rng.random((48, 10)) < 0.2, np.ones((1, 8))) * (rng.random((48, 80)) < 0.5) > 0
    elif name == "gaps":
        mask = rng.random((48, 80)) < 0.1
    return torch.from_numpy(mask)


@pytest.mark.parametrize("bits", [4, FLOAT_BITS])
@pytest.mark.parametrize("name", SPARSE_FORMATS)
def test_every_sparse_format(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bits: int) -> None:
    """The rule is made to choose this one format, so that all of them are written and read."""
    from paredown.compressors.variants import _encoding as _parts

    monkeypatch.setattr(_parts, "smallest", lambda pattern, bits, size=None: encode_as(pattern, name, bits))
    model = nn.Sequential(nn.Linear(80, 48))
    mask = pattern_for(name)
    with torch.no_grad():
        model[0].weight.mul_(mask)
    anatomy = trace_anatomy(model, torch.zeros(1, 80))
    zeros = float((~mask).sum()) / mask.numel()
    spec = LayerSpec(weight_bits=bits, sparsity=zeros)
    variant = compress(model[0].weight, spec, anatomy["0"])
    path = tmp_path / "model.safetensors"
    save_model(path, model, {"0": spec}, {"0": variant})
    assert describe_file(path)["layers"]["0"]["stored"] == [name]
    fresh = nn.Sequential(nn.Linear(80, 48))
    same(read, path, fresh)
    assert torch.equal(fresh[0].weight.detach(), variant.effective)


def test_half_precision_and_other_types(read: Any, tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4).to(torch.bfloat16)
            self.short = nn.Parameter(torch.randn(3).half())
            self.steps: torch.Tensor
            self.register_buffer("steps", torch.tensor(7))
            self.register_buffer("flags", torch.tensor([True, False]))

    model, fresh = Mixed(), Mixed()
    path = tmp_path / "model.safetensors"
    save_model(path, model, {}, {})
    same(read, path, fresh)


def test_it_needs_numpy_alone(tmp_path: Path) -> None:
    """In a process of its own, where torch and paredown cannot be imported."""
    path = tmp_path / "model.safetensors"
    fresh = saved(path, [LayerSpec(weight_bits=3, sparsity=0.5)], entropy=True)
    load_model(path, fresh)
    script = tmp_path / "reader.py"
    guard = "import sys\nsys.modules['torch'] = sys.modules['paredown'] = None\n"
    script.write_text(
        guard + SOURCE + "\ntensors, layers = read(sys.argv[1])\n"
        "print(json.dumps({n: [str(t.dtype), float(t.astype('f8').sum())] for n, t in tensors.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-I", script, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, value in fresh.state_dict().items():
        assert found[name][1] == pytest.approx(float(value.double().sum()), rel=1e-9, abs=1e-9)


def test_the_page_says_how_long_it_is() -> None:
    lines = [line for line in SOURCE.splitlines() if line.strip()]
    assert len(lines) <= 190


@pytest.mark.parametrize("name", ["recurrent", "cross_attention"])
def test_weights_inside_recurrent_layers_and_attentions(read: Any, tmp_path: Path, name: str) -> None:
    specs = [LayerSpec(weight_bits=3), LayerSpec(weight_bits=4, sparsity=0.5), LayerSpec(sparsity=0.5)]
    path = tmp_path / "model.safetensors"
    same(read, path, saved(path, specs, entropy=False, name=name))


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_of_a_widened_source(read: Any, tmp_path: Path, dtype: torch.dtype, entropy: bool) -> None:
    """What stays in floating point, whole, sparse or factorized, has the source's type; loaded it is FP32."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    model, fresh = (nn.Sequential(*(nn.Linear(24, 24) for _ in range(4)), nn.LayerNorm(24)) for _ in range(2))
    widen(model.to(dtype))
    anatomy = trace_anatomy(model, torch.randn(2, 24))
    specs = [LayerSpec(), LayerSpec(sparsity=0.6), LayerSpec(rank=0.3), LayerSpec(weight_bits=4)]
    assignment = dict(zip(anatomy.fqns, specs, strict=True))
    variants = {fqn: compress(weight_at(model, fqn), spec, anatomy[fqn]) for fqn, spec in assignment.items()}
    n_bytes = save_model(path, model, assignment, variants, entropy=entropy)
    assert entropy or n_bytes == stored_bytes(model, anatomy, assignment, variants)
    specs_loaded = load_model(path, fresh)
    assert list(specs_loaded.values()) == specs
    for name, array in read(path)[0].items():
        assert torch.equal(torch.from_numpy(np.array(array)).float(), fresh.state_dict()[name]), name
    for fqn, variant in variants.items():
        assert torch.equal(weight_at(fresh, fqn), variant.effective)
        assert variant.effective.dtype == torch.float32
    whole = save_model(path, model, {}, {})
    assert abs(whole - sum(p.numel() for p in model.parameters()) * dtype.itemsize) < 1000


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_models_that_have_lost_half_of_everything(
    read: Any, structure: Any, tmp_path: Path, name: str, entropy: bool
) -> None:
    """numpy reads what is left and where it was, and `paredown.load` makes the same module of the architecture."""
    model, inputs = STRUCTURES[name]()
    found = find(model, inputs)
    blocks = {block.fqn: block.n_outputs for block in find_blocks(model, inputs)[0][:1]}
    removal = removal_of(model, found.sets, {s.name: range(0, s.n_units, 2) for s in found.sets}, blocks)
    small = remove(model, removal)
    anatomy = trace_anatomy(small, inputs)
    specs = (LayerSpec(weight_bits=4), LayerSpec(), LayerSpec(sparsity=0.5))
    assignment = {fqn: specs[i % 3] for i, fqn in enumerate(anatomy.fqns)}
    variants = {fqn: compress(weight_at(small, fqn), spec, anatomy[fqn]) for fqn, spec in assignment.items()}
    path, beside = tmp_path / "model.safetensors", tmp_path / "structure.json"
    save_model(path, small, assignment, variants, entropy=entropy)
    beside.write_text(structure_text(removal))
    same(read, path, remove_(STRUCTURES[name]()[0], removal))

    loaded, state = paredown.load(path, lambda: STRUCTURES[name]()[0]), model.state_dict()
    tensors, lost = read(path)[0], structure(beside)
    assert set(tensors) == set(loaded.state_dict())
    for key, value in loaded.state_dict().items():
        assert np.array_equal(value.numpy(), tensors[key]), key
        whole = state[key].numpy()
        for axis, positions in lost["tensors"].get(key, {}).items():
            whole = np.take(whole, positions, axis)
        assert whole.shape == tensors[key].shape, key
        if assignment.get(key.removesuffix(".weight"), LayerSpec()).is_neutral:
            assert np.array_equal(whole, tensors[key]), key
    assert sorted(lost["skipped"]) == sorted(blocks)
    assert {fqn: tuple(kept) for fqn, kept in lost["experts"].items()} == dict(removal.experts)
    assert Removal.from_dict(json.loads(beside.read_text())) == removal
    load_model(path, small)
    with torch.no_grad():
        expected, outputs = (compared_tensors(forward(each, inputs)) for each in (small, loaded))
    for key, value in expected.items():
        torch.testing.assert_close(outputs[key], value)
