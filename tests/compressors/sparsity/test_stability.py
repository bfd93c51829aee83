"""The safety rail of control policies, on a cart-pole that is simulated here.

The policy is a small net that has learned a linear regulator. Pruned by magnitude it lets the pole fall at a sparsity
at which the rail holds it: of several policies all must hold by the rail, and most must fall without it.
"""

import copy

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from paredown.compressors import LayerInfo, LayerSpec, compress
from paredown.compressors.sparsity import ClosedLoop, SparsityProblem, register_stability, stability_rail
from paredown.errors import InputError
from paredown.testing import check_compressor, isolated_registries

LAYERS = ("0", "2", "4")
STATES = (torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1) * torch.tensor([0.4, 0.4, 0.15, 0.4])


def step(states, actions, dt=0.02):
    """A pole of 0.1 kg, a metre long, on a cart of 1 kg without friction (Barto, Sutton and Anderson 1983), Euler's
    way.

    states (n, 4): place, speed, angle (0 is upright), its speed; actions (n, 1): newtons, 30 at most.
    """
    x, v, angle, turn = states.unbind(1)
    force = actions[:, 0].clamp(-30.0, 30.0)
    sin, cos = angle.sin(), angle.cos()
    shared = (force + 0.05 * turn * turn * sin) / 1.1
    faster = (9.8 * sin - cos * shared) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
    push = shared - 0.05 * faster * cos / 1.1
    return torch.stack([x + dt * v, v + dt * push, angle + dt * turn, turn + dt * faster], dim=1)


def regulator():
    """(1, 4): the linear-quadratic one about the balance."""
    at = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    a, b = (part[0, :, 0].numpy() for part in torch.autograd.functional.jacobian(step, at))
    q, r = np.diag([1.0, 0.1, 1.0, 0.1]), np.eye(1) * 0.05
    p = scipy.linalg.solve_discrete_are(a, b, q, r)
    return torch.from_numpy(np.linalg.solve(b.T @ p @ b + r, b.T @ p @ a)).float()


def policy(seed, hidden=16, steps=600):
    gain, spread = regulator(), torch.tensor([1.0, 1.0, 0.3, 1.0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(steps):
            states = torch.randn(256, 4) * spread
            loss = (net(states) + states @ gain.T).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


@torch.no_grad()
def held(net, n=64, seconds=8.0):
    """The share of disturbed poles that stay up, and on the track; none of them is one that the rail has seen."""
    states = (torch.rand(n, 4, generator=torch.Generator().manual_seed(9)) * 2 - 1) * torch.tensor(
        [0.5, 0.5, 0.15, 0.5]
    )
    up = torch.ones(n, dtype=torch.bool)
    for _ in range(round(seconds / 0.02)):
        states = step(states, net(states))
        up &= (states[:, 2].abs() < 0.8) & (states[:, 0].abs() < 5.0)
    return float(up.double().mean())


def pruned(net, share, method):
    net = copy.deepcopy(net)
    for fqn in LAYERS:
        weight = net.get_submodule(fqn).weight
        layer = LayerInfo(fqn=fqn, kind="linear", weight_shape=tuple(weight.shape))
        weight.data = compress(weight, LayerSpec(sparsity=share, sparsity_method=method), layer).effective
    return net


def test_the_rail_holds_the_pole_where_magnitude_lets_it_fall():
    share, by_magnitude, by_rail = 0.55, [], []
    for seed in range(3):
        net = policy(seed)
        assert held(net) == 1.0
        with isolated_registries():
            rail = stability_rail(net, ClosedLoop(step=step, states=STATES), LAYERS, share=0.6, stage=0.1)
            register_stability("stability", rail)
            kept = pruned(net, share, "stability")
        by_magnitude.append(held(pruned(net, share, "magnitude")))
        by_rail.append(held(kept))
    assert min(by_rail) == 1.0, (by_rail, by_magnitude)
    assert sorted(by_magnitude)[1] < 0.5, (by_rail, by_magnitude)


def test_it_is_a_method_like_any_other_and_leaves_the_policy_alone():
    net = policy(0, hidden=4, steps=20)
    before = copy.deepcopy(net.state_dict())
    loop = ClosedLoop(step=step, states=STATES[:2], horizon=5)
    rail = stability_rail(net, loop, LAYERS, share=0.5, stage=0.25)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    again = stability_rail(net, loop, LAYERS, share=0.5, stage=0.25)
    assert all(torch.equal(rail.order[fqn], again.order[fqn]) for fqn in LAYERS)
    assert list(rail.eigenvalues) == sorted(rail.eigenvalues, reverse=True)
    for fqn in LAYERS:
        matrix = net.get_submodule(fqn).weight
        light, heavy = (SparsityProblem(matrix=matrix, share=share) for share in (0.25, 0.5))
        masks = [problem.mask(rail.scores(problem)) for problem in (light, heavy)]
        assert bool((masks[0] | ~masks[1]).all())  # the sparser level's zeros hold the lighter's
        assert torch.equal(masks[1], rail.order[fqn].isinf())
    with isolated_registries():
        register_stability("stability", rail)
        check_compressor("sparsity", "stability")


def test_what_it_cannot_do_is_said():
    net = policy(0, hidden=4, steps=5)
    with pytest.raises(InputError, match="no stability to keep"):
        stability_rail(net, ClosedLoop(step=lambda s, a: s * 1e3, states=STATES, horizon=20), LAYERS)
    with pytest.raises(InputError, match="stage <= share"):
        stability_rail(net, ClosedLoop(step=step, states=STATES), LAYERS, share=1.5)
    wide = nn.Sequential(nn.Linear(4, 5000), nn.Tanh(), nn.Linear(5000, 1))
    with pytest.raises(InputError, match="at most"):
        stability_rail(wide, ClosedLoop(step=step, states=STATES), ("0", "2"))
