"""Block reconstruction: which modules are blocks; and codes that move by a step, for the better, within their bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    Calibration,
    CompressedModel,
    LayerSpec,
    Variant,
    applicable,
    calibrate,
    compress,
    forward,
    model_digest,
    preserved,
    reconstruct,
    trace_anatomy,
)
from paredown.compressors.repair import MOST_LAYERS, blocks_of
from paredown.compressors.variants import load_coded
from paredown.errors import InputError
from paredown.testing import AWKWARD


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 12, 3), Residual(), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 5.0 * self.head(self.block(torch.relu(self.stem(x))).mean((2, 3)))
        return logits


def planted_block() -> tuple[nn.Module, list[Tensor]]:
    """Inputs of few directions: most of the error that rounding to nearest makes can be moved out of them."""
    net, _ = planted()
    x = torch.einsum("nk,kchw->nchw", normal(160, 4), normal(4, 12, 5, 5, seed=1))
    return net.get_submodule("block"), list(x.split(16))


def planted() -> tuple[nn.Module, list[Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net().eval().requires_grad_(False)
        x = torch.einsum("nk,kchw->nchw", torch.randn(160, 4), torch.randn(4, 3, 7, 7))
    return model, list(x.split(16))


EvaluationContext = tuple[CompressedModel, dict[str, LayerSpec], dict[str, Variant]]


def bench(model: nn.Module, batches: list[Tensor], spec: LayerSpec) -> EvaluationContext:
    anatomy = trace_anatomy(model, batches[0])
    calibration: Calibration = calibrate(model, batches, anatomy, bits=(8, 4))
    resident = CompressedModel(model, anatomy, calibration)
    fqns = [x.fqn for x in anatomy.layers if applicable(spec, x) is None]
    variants = {fqn: compress(resident.weight(fqn), spec, anatomy[fqn]) for fqn in fqns}
    return resident, dict.fromkeys(fqns, spec), variants


def codes_of(variant: Variant) -> Tensor:
    shape = (len(variant.effective), variant.effective[0].numel())
    return load_coded(variant.tensors, shape, variant.spec)[0].codes.int()


def test_half_of_the_block_s_error_at_least_is_recovered_on_new_samples() -> None:
    model, batches = planted_block()
    batches, new = batches[:8], torch.cat(batches[8:])
    resident, assignment, variants = bench(model, batches, LayerSpec(weight_bits=3, weight_method="minmax"))
    found = reconstruct(resident, assignment, variants, batches, divergence="mse", steps=200)
    assert [(one.block.fqn, one.block.layers) for one in found.blocks] == [("", ("first", "second"))]
    with preserved(model):
        original = forward(model, new)
        errors = []
        for which in (variants, found.variants):
            with resident.apply(assignment, which):
                errors.append(float((forward(model, new) - original).square().mean()))
    assert errors[1] < 0.5 * errors[0], errors


@pytest.mark.parametrize(
    "spec",
    [
        LayerSpec(weight_bits=2),
        LayerSpec(weight_bits=4, activation_bits=4),
        LayerSpec(weight_bits=4, activation_bits=8, activation_scheme="dynamic"),
        LayerSpec(weight_bits=3, weight_format="int_asym", group_size=8, scale_bits=16),
        LayerSpec(weight_bits=4, sparsity=0.6),
        LayerSpec(weight_bits=3, weight_format="int_asym", sparsity=0.5, pattern="2:4"),
    ],
    ids=LayerSpec.label,
)
def test_codes_move_by_a_step_within_their_range_and_nothing_else_does(spec: LayerSpec) -> None:
    model, batches = planted_block()
    resident, assignment, variants = bench(model, batches, spec)
    before = model_digest(model)
    found = reconstruct(resident, assignment, variants, batches, divergence="mse", steps=60)
    assert model_digest(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert found.kept
    assert any(not torch.equal(codes_of(found.variants[fqn]), codes_of(old)) for fqn, old in variants.items())
    for fqn, old in variants.items():
        new = found.variants[fqn]
        assert new.spec == old.spec
        for name in ("scale", "zero"):
            assert (name in new.tensors) == (name in old.tensors)
            assert name not in old.tensors or torch.equal(new.tensors[name], old.tensors[name])
        assert new.n_bytes <= old.n_bytes
        half = 2 ** (spec.weight_bits - 1)
        codes = codes_of(new)
        assert -half <= int(codes.min()) <= int(codes.max()) < half
        scale = old.even_codes().scale  # type: ignore[union-attr]
        group = -(-old.effective[0].numel() // scale.shape[1])
        steps = scale.repeat_interleave(group, dim=1)[:, : old.effective[0].numel()].reshape(old.effective.shape)
        assert float(((new.effective - old.effective).abs() / steps).max()) < 1.001
        if spec.sparsity:
            assert bool((new.effective[old.effective == 0] == 0).all())


def test_the_same_bits_again() -> None:
    model, batches = planted()
    given = bench(model, batches, LayerSpec(weight_bits=3, activation_bits=8))
    one, two, other = (reconstruct(*given, batches, steps=30, seed=seed) for seed in (1, 1, 2))
    assert one.blocks == two.blocks
    for fqn, variant in one.variants.items():
        assert all(torch.equal(tensor, two.variants[fqn].tensors[name]) for name, tensor in variant.tensors.items())
    assert one.blocks != other.blocks


def test_a_block_that_is_not_nearer_on_what_is_held_out_stays() -> None:
    """Learned from noise, and held out are the samples that matter: whatever is learned does not hold there."""
    model, batches = planted()
    given = bench(model, batches, LayerSpec(weight_bits=8))
    noise = [normal(*batch.shape, seed=n) for n, batch in enumerate(batches)]
    found = reconstruct(*given, [*(1e-3 * x for x in noise[:4]), batches[4]], steps=40)
    stayed = [one for one in found.blocks if not one.kept]
    assert stayed
    for one in stayed:
        assert one.ratio >= 1.0
        assert all(found.variants[fqn] is given[2][fqn] for fqn in one.block.layers)
    assert "block reconstruction: " in found.notes()[0]
    assert "stay" in found.notes()[0]


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - {"nothing"}))
def test_awkward_models_come_through(name: str) -> None:
    """Without blocks too; every layer of changed weights is in a block, or left with a reason."""
    model, inputs = AWKWARD[name]()
    before = model_digest(model)
    anatomy = trace_anatomy(model, inputs)
    resident, spec = CompressedModel(model, anatomy), LayerSpec(weight_bits=3)
    variants = {x.fqn: compress(resident.weight(x.fqn), spec, x) for x in anatomy.layers}
    found = reconstruct(resident, dict.fromkeys(variants, spec), variants, [inputs, inputs], divergence="mse", steps=5)
    assert {fqn for one in found.blocks for fqn in one.block.layers} | set(found.left) == set(variants)
    assert set(found.variants) == set(variants)
    assert model_digest(model) == before


class Asked(nn.Module):
    """Two experts, each for the samples whose first number has its sign."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)) for _ in range(2))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for n, expert in enumerate(self.experts):
            mine = (x[:, 0] > 0) == bool(n)
            if mine.any():
                out[mine] = expert(x[mine])
        return self.head(out.relu())


def test_an_expert_learns_from_the_batches_that_ask_it() -> None:
    """And one that none of the batches held out asks stays as it was."""
    torch.manual_seed(0)
    model = Asked().eval()
    batches = [normal(16, 6, seed=n) for n in range(10)]
    for number in (1, 2, 4, 9):  # two of them are held out
        batches[number][:, 0] = batches[number][:, 0].abs() + 0.1
    found = reconstruct(*bench(model, batches, LayerSpec(weight_bits=3)), batches, steps=20)
    ratios = {one.block.fqn: one.ratio for one in found.blocks}
    assert set(ratios) == {"experts.0", "experts.1", "head"}
    assert ratios["experts.0"] == 1.0
    assert ratios["experts.1"] != 1.0


def test_blocks_are_the_smallest_modules_with_several_layers() -> None:
    model, inputs = AWKWARD["residual"]()
    layers = trace_anatomy(model, inputs).fqns
    found = [fqn for block in blocks_of(model, layers, inputs) for fqn in block.layers]
    assert sorted(found) == sorted(layers)
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(MOST_LAYERS + 1)))
    names = [str(n) for n in range(len(deep))]
    assert [block.layers for block in blocks_of(deep, names, torch.randn(2, 4))] == [(name,) for name in names]
    assert [block.fqn for block in blocks_of(deep, names[:-1], torch.randn(2, 4))] == [""]
    net, batches = planted()
    assert [block.fqn for block in blocks_of(net, trace_anatomy(net, batches[0]).fqns, batches[0])] == [
        "stem", "block", "head"
    ]  # fmt: skip


def test_what_is_not_on_an_even_grid_is_named() -> None:
    model, batches = planted()
    resident, assignment, variants = bench(model, batches, LayerSpec(weight_bits=3, weight_format="palette"))
    found = reconstruct(resident, assignment, variants, batches)
    assert (found.blocks, found.kept) == ((), False)
    assert found.variants == variants
    line = "block reconstruction leaves stem, block.first, block.second and 1 more alone: codes that are no integers "
    assert found.notes() == [f"{line}on an even grid (int, int_asym)"]


def test_one_batch_is_too_few() -> None:
    model, batches = planted()
    with pytest.raises(InputError, match="needs two of them, got 1"):
        reconstruct(*bench(model, batches, LayerSpec(weight_bits=3)), batches[:1])
