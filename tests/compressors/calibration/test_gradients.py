"""The loss' gradients by each weight, against autograd by hand."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from paredown.compressors import Gradients, Moments, collect_gradients, trace_anatomy
from paredown.compressors.anatomy import own_scales, packed
from paredown.errors import InputError, IntegrityError
from paredown.evaluators import Split, get_metric, loss_gradients
from paredown.testing._models import AWKWARD


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def squares(outputs, inputs, targets):
    return outputs.square().sum(dim=-1).mean()


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).requires_grad_(False)


def one_by_one(model, x):
    rows = []
    for sample in x:
        weight = model[0].weight.detach().clone().requires_grad_(True)
        hidden = functional.relu(functional.linear(sample[None], weight, model[0].bias))
        loss = squares(model[2](hidden), None, None)
        rows.append(torch.autograd.grad(loss, weight)[0])
    return torch.stack(rows)


def test_means_and_mean_squares_of_single_samples():
    model, x = net(), normal(6, 5)
    found = collect_gradients(model, [(sample[None], None, 1) for sample in x], trace_anatomy(model, x), squares)
    rows = one_by_one(model, x)
    assert torch.allclose(found.get("0").both, torch.stack([rows.mean(0), rows.square().mean(0)]), atol=1e-6)
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training


def test_of_batches_the_mean_is_exact():
    model, x = net(), normal(6, 5)
    found = collect_gradients(model, [(x[:4], None, 4), (x[4:], None, 2)], trace_anatomy(model, x), squares)
    assert torch.allclose(found.get("0").both[0], one_by_one(model, x).mean(0), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "nothing"])
def test_awkward_models(name):
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    found = collect_gradients(
        model, [(inputs, None, 4)], anatomy, lambda outputs, _, __: packed(outputs, own_scales(outputs)).square().mean()
    )
    for layer in anatomy.layers:
        known = found.get(layer.fqn)
        if known is not None:
            assert tuple(known.both.shape) == (2, *layer.matrix_shape)
        for other in layer.tied_to:
            assert found.get(other).digest == known.digest
    assert found.names


def test_they_live_in_a_file_of_their_own_kind(tmp_path):
    model, x = net(), normal(6, 5)
    found = collect_gradients(model, [(x, None, 6)], trace_anatomy(model, x), squares)
    saved = found.save(tmp_path)
    again = pickle.loads(pickle.dumps(saved))
    assert torch.equal(again.get("2").both, found.get("2").both)
    assert again.get("2").digest == found.get("2").digest
    assert Gradients({}, {}, saved.path).get("nothing") is None
    with pytest.raises(IntegrityError, match="holds no moments"):
        Moments({}, {}, saved.path).get("2")


def test_bad_losses_are_named():
    model, x = net(), normal(6, 5)
    anatomy = trace_anatomy(model, x)
    for loss, message in (
        (lambda o, i, t: o, "one finite number"),
        (lambda o, i, t: o.sum() * float("nan"), "one finite number"),
    ):
        with pytest.raises(InputError, match=message):
            collect_gradients(model, [(x, None, 6)], anatomy, loss)
    with pytest.raises(InputError, match="at least one batch"):
        collect_gradients(model, [], anatomy, squares)


def test_the_loss_follows_from_the_targets():
    model, x = net(), normal(6, 5)
    anatomy = trace_anatomy(model, x)
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    found = loss_gradients(model, Split("calibration", x, classes), anatomy, get_metric("accuracy"))
    by_hand = collect_gradients(
        model, [(s[None], c[None], 1) for s, c in zip(x, classes, strict=True)], anatomy,
        lambda outputs, _, targets: functional.cross_entropy(outputs, targets),
    )  # fmt: skip
    assert torch.allclose(found.get("2").both, by_hand.get("2").both, atol=1e-7)
    values = loss_gradients(model, Split("calibration", x, normal(6, 3)), anatomy, get_metric("mse"))
    drawn = loss_gradients(model, Split("calibration", x), anatomy, get_metric("cosine"))
    again = loss_gradients(model, Split("calibration", x), anatomy, get_metric("cosine"))
    assert not torch.equal(values.get("2").both, drawn.get("2").both)
    assert torch.equal(drawn.get("2").both, again.get("2").both)
