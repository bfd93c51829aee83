"""Safety rail for control policies: it keeps the weights that the closed loop's stability depends on.

What it does   rolls a policy out in a model of its plant; the Hessian (Gauss-Newton) of the change of the rollouts by
               the policy's weights has few leading eigenvectors, and along these a loop is held or lost. Weights go in
               such an order that what they add up to along these vectors stays least, small ones first among equals;
               what a stage of pruning did to the rollouts is measured before the next
Paper          Optimal Brain Surgeon's quadratic form (Hassibi and Stork 1993) in the leading eigenspace, where most of
               the curvature is (Sagun et al. 2018). We know of no paper that prunes a policy by its closed loop's
We differ      the loss is the change of the closed loop's states over a horizon: an error of the action that the plant
               damps counts little, one that it amplifies as much as it is amplified. Errors of several weights cancel
               or add up, which scores of single weights do not see (those lost to magnitude here). Nothing is moved or
               trained
Cost           at each stage one rollout for each weight, all in one batch: for small controllers
Did not help   beyond the share at which no choice of weights holds the loop (a net of 340 weights on a cart-pole:
               stable at 60 % or 70 % of zeros, where magnitude fell at 50 % or 60 %). It is local and no proof:
               simulate what comes out
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from ...errors import InputError
from ..anatomy import preserved, weight_at
from ..files import tensor_digest
from ..registry import SPARSITY
from ..values import weight_name
from ._blend import ranks
from ._problem import SparsityProblem

_MOST = 2**14
"""Largest number of weights of a policy."""
_SMALL = 1e-4
"""Weight of a weight's own size beside the leading curvature: a ten-thousandth of the largest eigenvalue."""
_WILD = 1e3
"""Largest magnitude of a state; a larger one has left the plant, and its distance carries no information."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClosedLoop:
    """Plant and initial states of the loop.

    step     (states (n, s), actions (n, a)) -> the next states; differentiable
    states   (n, s) to begin at: disturbances of the size that the policy is to master
    horizon  steps of a rollout: as long as a disturbance takes to show
    """

    step: Callable[[Tensor, Tensor], Tensor]
    states: Tensor
    horizon: int = 60

    def rollout(self, policy: Callable[[Tensor], Tensor]) -> Tensor:
        """States (horizon * n * s,) of the rollout, all but the first."""
        states, seen = self.states, []
        for _ in range(self.horizon):
            states = self.step(states, policy(states))
            seen.append(states)
        return torch.stack(seen).reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StabilityRail:
    """Order in which the weights of a policy may be dropped.

    order        fqn -> (out, n): when each weight goes, the first ones 0; infinite for those beyond `share`
    eigenvalues  leading ones of the Hessian of the dense policy, falling
    digests      digest of a weight as a matrix -> fqn, so that a layer's order is found again by its weight
    """

    order: Mapping[str, Tensor]
    eigenvalues: tuple[float, ...]
    digests: Mapping[str, str]

    def scores(self, problem: SparsityProblem) -> Tensor:
        """Scores, least for weights to drop first. Beyond the share, and in unknown layers, magnitude decides."""
        plain = ranks(problem.matrix.abs())
        fqn = self.digests.get(tensor_digest(problem.matrix))
        if fqn is None:
            return plain
        order = self.order[fqn]
        return torch.where(order.isinf(), 2.0 * _MOST + plain, order)


def stability_rail(
    policy: nn.Module, loop: ClosedLoop, fqns: tuple[str, ...], *, share: float = 0.9, stage: float = 0.05,
    n_directions: int = 8,
) -> StabilityRail:  # fmt: skip
    """Make the rail of a trained policy for these layers. The policy is left as it was.

    share  of zeros in each layer up to which the order is worked out, in steps of `stage`
    n_directions  leading eigenvectors
    Raises `InputError` where the loop does not stay finite with the policy as it is (there is no stability to keep),
    and for a policy that is too large.
    """
    if not 0.0 < stage <= share < 1.0:
        raise InputError(f"stage and share must be 0 < stage <= share < 1, got {stage!r} and {share!r}")
    search = _Search(policy, loop, fqns, n_directions)
    with preserved(policy):
        n_stages = max(1, round(share / stage))
        for i in range(n_stages):
            search.drop_up_to(share * (i + 1) / n_stages)
    return search.rail()


def register_stability(name: str, rail: StabilityRail) -> None:
    """Register the rail as `LayerSpec(sparsity_method=name)`, in any pattern.

    Call it in a file that the task names in `plugins`. That file makes the rail again, which is deterministic.
    """
    version = " ".join([*sorted(rail.digests), *(tensor_digest(order) for order in rail.order.values())])
    SPARSITY.register(name, rail.scores, version=version, gives="scores")


class _Search:
    def __init__(self, policy: nn.Module, loop: ClosedLoop, fqns: tuple[str, ...], n_directions: int) -> None:
        self.policy, self.loop, self.fqns, self.k = policy, loop, fqns, n_directions
        self.weights = {weight_name(fqn): weight_at(policy, fqn).detach() for fqn in fqns}
        self.sizes = [weight.numel() for weight in self.weights.values()]
        self.dense = torch.cat([weight.reshape(-1).float().cpu() for weight in self.weights.values()])
        n = len(self.dense)
        if n > _MOST:
            raise InputError(f"a rail is for policies of {_MOST} weights at most, got {n}; name fewer layers")
        self.layer = torch.cat([torch.full((size,), i) for i, size in enumerate(self.sizes)])
        self.alive = torch.ones(n, dtype=torch.bool)
        self.order = torch.full((n,), torch.inf)
        self.eigenvalues: tuple[float, ...] = ()
        self.n_dropped = 0
        with torch.no_grad():
            self.wanted = self.rollout(self.dense)
        if not bool(self.wanted.isfinite().all()) or float(self.wanted.abs().max()) > _WILD:
            raise InputError(
                "the closed loop does not stay finite with the policy as it is, so that there is no stability to keep; "
                "begin nearer to the balance, or shorten the horizon"
            )

    def rollout(self, vector: Tensor) -> Tensor:
        parts = zip(self.weights.items(), vector.split(self.sizes), strict=True)
        given = {name: part.reshape(weight.shape) for (name, weight), part in parts}
        return self.loop.rollout(lambda states: functional_call(self.policy, given, (states,)))

    def drop_up_to(self, share: float) -> None:
        """Drop weights until each layer has its share of zeros (at least one weight stays).

        The next weight is always the one that adds least to the quadratic form.
        """
        now = self.dense * self.alive
        pull, curves = self._curvature(now)
        todo = [
            min(s - 1, round(share * s)) - int((~self.alive & (self.layer == i)).sum())
            for i, s in enumerate(self.sizes)
        ]
        own = curves.square().sum(dim=1) + _SMALL * self.eigenvalues[0] * now.square()
        while max(todo) > 0:
            i = max(range(len(todo)), key=lambda j: todo[j] / self.sizes[j])
            cost = torch.where(self.alive & (self.layer == i), 2.0 * (curves @ pull) + own, torch.inf)
            goes = int(cost.argmin())
            self.alive[goes] = False
            self.order[goes] = float(self.n_dropped)
            self.n_dropped += 1
            pull = pull + curves[goes]
            todo[i] -= 1

    def _curvature(self, now: Tensor) -> tuple[Tensor, Tensor]:
        """Curvature in the leading eigenspace of J' J, where J is the rollouts' Jacobian.

        Returns (k,), the effect of what was dropped before, and (weights, k), the effect of dropping each weight.
        """

        def along(tangent: Tensor) -> Tensor:
            change: Tensor = jvp(self.rollout, (now,), (tangent,))[1]
            return change

        # (weights, outputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")  # torch's own
            rows: Tensor = vmap(along)(torch.eye(len(now)))
        rows = rows.nan_to_num(0.0, 0.0, 0.0).clamp(-_WILD, _WILD).double()
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        values, vectors = values.flip(0)[: self.k].clamp(min=1e-30), vectors.flip(1)[:, : self.k]
        self.eigenvalues = self.eigenvalues or tuple(float(value) for value in values)
        done = (self.rollout(now) - self.wanted).nan_to_num(0.0, 0.0, 0.0).clamp(-_WILD, _WILD).double()
        # J = U S V': U' done = S^-1 V' J' done
        pull = (vectors.T @ (rows @ done)) / values.sqrt()
        curves = -(now.double()[:, None] * vectors) * values.sqrt()
        return pull, curves

    def rail(self) -> StabilityRail:
        matrices = [weight.reshape(len(weight), -1).float().cpu().contiguous() for weight in self.weights.values()]
        orders = (
            part.reshape(matrix.shape) for part, matrix in zip(self.order.split(self.sizes), matrices, strict=True)
        )
        return StabilityRail(
            order=dict(zip(self.fqns, orders, strict=True)),
            eigenvalues=self.eigenvalues,
            digests={tensor_digest(matrix): fqn for matrix, fqn in zip(matrices, self.fqns, strict=True)},
        )
