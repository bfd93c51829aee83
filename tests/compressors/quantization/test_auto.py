"""The method "auto": each row takes the result of least output error, and nothing is worse than what it chose from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import LayerSpec, calibrate, compress, trace_anatomy, weight_at
from paredown.compressors.calibration import LayerMoments, affordable
from paredown.compressors.calibration import _moments as moments_module
from paredown.compressors.variants import VariantStore

TRIED = ("affine", "minmax", "all_codes", "percentile", "weighted")


class Net(nn.Module):
    """A convolution, a grouped, a depthwise and a transposed one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.Conv2d(4, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.transposed = nn.ConvTranspose2d(8, 4, 2)
        self.linear = nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transposed(self.depthwise(self.grouped(self.plain(x).relu()).relu()).relu())
        return self.linear(x.mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> tuple[Net, Any, Any]:
    model = Net().eval().requires_grad_(False)
    x = torch.randn(32, 4, 12, 12, generator=torch.Generator().manual_seed(1)).cumsum(dim=1)  # channels that correlate
    anatomy = trace_anatomy(model, x[:1])
    return model, anatomy, calibrate(model, [x], anatomy, moments=True).moments


def row_errors(weight: Tensor, effective: Tensor, moments: LayerMoments) -> Tensor:
    n = moments.second.shape[-1]
    d = (effective - weight).reshape(len(moments.second), -1, n)
    h = moments.second + 1e-3 * moments.second.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * torch.eye(n)
    return ((d @ h) * d).sum(dim=2).reshape(-1)


@pytest.mark.parametrize("fqn", ["plain", "grouped", "depthwise", "linear"])
@pytest.mark.parametrize("bits", [2, 3, 6, 8])
@pytest.mark.parametrize("how", [{}, {"weight_format": "int_asym"}, {"sparsity": 0.3}, {"scale_bits": 16}])
def test_no_row_is_worse_than_by_what_was_tried(net: Any, fqn: str, bits: int, how: dict[str, Any]) -> None:
    model, anatomy, moments = net
    weight, layer, known = weight_at(model, fqn), anatomy[fqn], moments.get(fqn)

    def errors(method: str) -> Tensor:
        spec = LayerSpec(weight_bits=bits, weight_method=method, **how)
        return row_errors(weight, compress(weight, spec, layer, moments=known).effective, known)

    best = errors("auto")
    tried = [m for m in TRIED if m != "all_codes" or how.get("weight_format") is None]
    for method in tried + (["descent"] if bits <= 4 else []):
        assert bool((best <= errors(method) * 1.0001 + 1e-9).all()), method
    if bits == 3 and not how:
        assert float(best.sum()) < 0.9 * float(errors("affine").sum())


@pytest.mark.parametrize(
    "how", [{"group_size": "tensor"}, {"group_size": "4x8"}, {"group_size": 9}, {"weight_format": "palette"},
            {"weight_format": "nf4", "weight_bits": 4}, {"weight_format": "adaptive"}, {"weight_format": "fp16",
             "weight_bits": 16}],
)  # fmt: skip
def test_layers_whose_rows_share_take_one_result(net: Any, how: dict[str, Any]) -> None:
    model, anatomy, moments = net
    weight, layer, known = weight_at(model, "plain"), anatomy["plain"], moments.get("plain")
    keys = {"weight_bits": 3, **how}
    auto, affine = (
        float(row_errors(weight, compress(weight, LayerSpec(weight_method=m, **keys), layer, moments=known).effective,
                         known).sum())
        for m in ("auto", "affine")
    )  # fmt: skip
    assert auto <= affine * 1.0001


@pytest.mark.parametrize("bits", [3, 8])
def test_without_moments_it_is_affine(net: Any, bits: int) -> None:
    model, anatomy, moments = net
    assert moments.get("transposed") is None
    for fqn in ("transposed", "plain"):
        auto, affine = (
            compress(weight_at(model, fqn), LayerSpec(weight_bits=bits, weight_method=m), anatomy[fqn])
            for m in ("auto", "affine")
        )
        assert torch.equal(auto.effective, affine.effective)


def test_a_batch_norm_behind_the_layer_changes_no_choice(net: Any) -> None:
    """A norm scales channels; each channel takes the same codes whatever its scale."""
    model, anatomy, moments = net
    weight, gain = weight_at(model, "plain"), 2.0 ** torch.arange(-4, 4).float()
    spec = LayerSpec(weight_bits=3, weight_method="auto")
    plain, scaled = (
        compress(w, spec, anatomy["plain"], moments=moments.get("plain")).effective
        for w in (weight, weight * gain[:, None, None, None])
    )
    assert torch.allclose(scaled, plain * gain[:, None, None, None], rtol=1e-5)


def test_all_codes_uses_the_code_without_a_twin() -> None:
    layer = trace_anatomy(nn.Sequential(nn.Linear(3, 2, bias=False)), torch.ones(1, 3)).layers[0]
    weight = torch.tensor([[-4.0, 1.0, 2.0], [4.0, 1.0, -2.0]])
    found = compress(weight, LayerSpec(weight_bits=3, weight_method="all_codes"), layer).effective
    assert torch.equal(found, torch.tensor([[-4.0, 1.0, 2.0], [3.0, 1.0, -2.0]]))


def test_its_results_are_stored_by_the_moments(net: Any, tmp_path: Any) -> None:
    model, anatomy, moments = net
    store, spec = VariantStore(tmp_path), LayerSpec(weight_bits=3, weight_method="auto")
    with_moments, without = (
        store.key(weight_at(model, "plain"), spec, anatomy["plain"], moments=m) for m in (moments.get("plain"), None)
    )
    assert with_moments != without


def test_moments_are_collected_up_to_a_bound_small_layers_first(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, anatomy, _ = net
    assert set(affordable(anatomy)) == set(anatomy.fqns)
    sizes = {x.fqn: x.groups * x.matrix_shape[1] ** 2 for x in anatomy.layers}
    smallest = sorted(sizes, key=sizes.__getitem__)
    monkeypatch.setattr(moments_module, "LARGEST", sum(sizes[fqn] for fqn in smallest[:3]))
    assert affordable(anatomy) == tuple(smallest[:3])
    x = torch.randn(4, 4, 12, 12)
    found = calibrate(model, [x], anatomy, moments=affordable(anatomy)).moments
    assert found is not None
    assert set(found.names) == set(smallest[:3]) - {"transposed"}
    assert found.mean("plain") is not None
