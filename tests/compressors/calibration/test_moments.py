"""Second moments of the inputs, against the layers' own outputs; where they live."""

import pickle

import pytest
import torch
from torch import nn

from paredown.compressors import LayerSpec, Moments, VariantStore, calibrate, compress, trace_anatomy
from paredown.errors import IntegrityError, SpecError
from paredown.testing._models import AWKWARD


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def collected(model, *batches):
    anatomy = trace_anatomy(model, batches[0])
    return calibrate(model, batches, anatomy, moments=True).moments


def change_of_output(layer, change, x):
    """Mean over positions of the squared change of a layer's output when `change` is added to its weight."""
    with torch.no_grad():
        before = layer(x)
        layer.weight += change
        after = layer(x)
        layer.weight -= change
    return float((after - before).square().sum()) / (before.numel() / before.shape[1])


CONVOLUTIONS = [
    ({"padding": 1}, (8, 12, 9)),
    ({"padding": 1, "stride": 2}, (8, 12, 9)),
    ({"padding": "same", "dilation": 2}, (8, 12, 9)),
    ({"padding": 2, "padding_mode": "reflect"}, (8, 12, 9)),
    ({"groups": 4}, (8, 7, 7)),
    ({"groups": 8}, (8, 7, 7)),
]


@pytest.mark.parametrize(("options", "shape"), CONVOLUTIONS)
def test_they_say_what_an_error_of_a_convolution_does_to_its_output(options, shape):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 16, 3, **options).eval()
    x = normal(5, *shape)
    groups = options.get("groups", 1)
    second = collected(layer, x).get("").second
    assert tuple(second.shape) == (groups, 72 // groups, 72 // groups)
    change = normal(*layer.weight.shape, seed=1) * 0.1
    d = change.reshape(groups, 16 // groups, -1)
    assert float(((d @ second) * d).sum()) == pytest.approx(change_of_output(layer, change, x), rel=1e-4)


def test_a_line_and_a_matrix_too():
    layer = nn.Conv1d(4, 6, 5, stride=2, padding=2).eval()
    x = normal(3, 4, 20)
    change = normal(6, 4, 5, seed=1)
    d = change.reshape(1, 6, -1)
    second = collected(layer, x).get("").second
    assert float(((d @ second) * d).sum()) == pytest.approx(change_of_output(layer, change, x), rel=1e-4)
    tokens = normal(3, 7, 4)
    linear = nn.Linear(4, 2).eval()
    expected = torch.einsum("nti,ntj->ij", tokens, tokens) / 21
    assert torch.allclose(collected(linear, tokens).get("").second[0], expected, atol=1e-5)


def test_batches_are_added_up_whatever_their_size():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 5)).eval()
    x = normal(6, 3, 6, 6)
    whole, parts = collected(model, x), collected(model, x[:1], x[1:6])
    for name in ("0", "2"):
        assert torch.allclose(whole.get(name).second, parts.get(name).second, rtol=1e-4, atol=1e-5)


def test_a_subclass_that_pads_by_itself_is_seen_padded():
    class Padded(nn.Conv2d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (0, 2, 0, 2)))

    torch.manual_seed(0)
    layer = Padded(2, 3, 3).eval()
    change = normal(3, 2, 3, 3, seed=1)
    d = change.reshape(1, 3, -1)
    x = normal(2, 2, 5, 5)
    second = collected(layer, x).get("").second
    assert float(((d @ second) * d).sum()) == pytest.approx(change_of_output(layer, change, x), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "nothing"])
def test_awkward_models_are_left_as_they_were(name):
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    before = {module: dict(vars(module)) for module in model.modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = calibrate(model, [inputs], anatomy, moments=True).moments
    for module, attributes in before.items():
        assert set(vars(module)) == set(attributes)
        assert not module._forward_pre_hooks
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for layer in anatomy.layers:
        seen = found.get(layer.fqn)
        if layer.is_transposed:
            assert seen is None
        elif layer.kind != "embedding":
            n = layer.matrix_shape[1]
            assert tuple(seen.second.shape) == (layer.groups, n, n)


def test_layers_that_share_a_weight_share_their_moments():
    model, inputs = AWKWARD["tied_weights"]()
    anatomy = trace_anatomy(model, inputs)
    found = calibrate(model, [inputs], anatomy, moments=True).moments
    embed, head = found.get("embed"), found.get("head")
    assert embed.digest == head.digest
    entered: list[torch.Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda module, args: entered.append(args[0].detach()))
    model(inputs)
    handle.remove()
    x = entered[0].reshape(-1, 8)
    assert torch.allclose(embed.second[0], x.T @ x / len(x), atol=1e-5)  # the embedding's own inputs are one-hot


def test_a_file_holds_the_same_and_goes_to_another_process_by_name(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).eval()
    found = collected(model, normal(20, 6))
    stored = found.save(tmp_path)
    assert stored.path == found.save(tmp_path).path  # the name is the content's
    assert len(pickle.dumps(stored)) < 500
    there = pickle.loads(pickle.dumps(stored))
    for name in ("0", "1"):
        assert torch.equal(there.get(name).second, found.get(name).second)
        assert there.get(name).digest == found.get(name).digest
    assert there.get("2") is None
    in_memory = pickle.loads(pickle.dumps(found))
    assert torch.equal(in_memory.get("0").second, found.get("0").second)
    assert set(there.names) == {"0", "1"}


def test_a_damaged_file_is_refused(tmp_path):
    model = nn.Linear(6, 4).eval()
    path = collected(model, normal(20, 6)).save(tmp_path).path
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"is damaged.*calibrate again"):
        Moments({}, {}, path).get("")


def test_a_layer_that_sees_nan_has_no_moments():
    model = nn.Linear(6, 4).eval()
    x = normal(20, 6)
    x[3, 3] = float("nan")
    moments = collected(model, x)
    assert moments.names == ()
    assert moments.mean("") is None


def test_of_very_wide_layers_none_are_collected(monkeypatch):
    from paredown.compressors.calibration import _moments
    from paredown.compressors.variants import _compress

    for module in (_compress, _moments):
        monkeypatch.setattr(module, "LARGEST", 30)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)).eval()
    found = collected(model, normal(9, 6))
    assert found.get("0") is None
    assert found.get("1") is not None
    layer = trace_anatomy(model, normal(1, 6))["0"]
    spec = LayerSpec(weight_bits=4, weight_method="gptq")
    with pytest.raises(SpecError, match=r"0: 'gptq' needs the moments .* of 6 inputs they are too large"):
        compress(model[0].weight, spec, layer)


def test_a_variant_that_needs_none_is_found_again_by_whoever_has_some(tmp_path):
    layer = nn.Linear(6, 4).eval()
    anatomy = trace_anatomy(layer, normal(2, 6))
    store = VariantStore(tmp_path)
    spec = LayerSpec(weight_bits=4)
    store.get(layer.weight, spec, anatomy[""])
    assert store.has(layer.weight, spec, anatomy[""], moments=collected(layer, normal(20, 6)).get(""))
