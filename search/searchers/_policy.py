"""Reinforcement learning, as a baseline for others: a policy gradient that chooses the levels layer by layer.

It is REINFORCE (Williams 1992) on a softmax policy with a baseline, in the manner of HAQ (Wang 2019) and AMC (He 2018).
As there, candidates are repaired to a budget. We differ in three points. The budget of each episode is drawn anew, and
the policy sees the rest of it, so that one policy serves the whole front. The policy is linear in its features. It has
no critic. An episode is a candidate. Its reward is the lead of its quality over results of about the same cost.

    features of a level   its cost in the group, the square of it, and the log of the table's divergence
    each times            1, the group's place, its share of the cost, its sensitivity, the budget that is left

The weights follow from the results alone: each candidate is learnt from as if its own cost had been the budget.

Hypervolume in (log divergence, bytes), `SyntheticProblem` of 22 groups x 7 levels, mean of 5 seeds, baselines told:

                                    interaction = 1            interaction = 3
    trials                       25    50   100   200       25    50   100   200
    this                       .717  .719  .732  .769     .758  .768  .810  .835
    `evolution`                .879  .889  .903  .912     .904  .915  .922  .925
    random                     .715  .715  .715  .717     .749  .752  .755  .761

So it learns, but it needs hundreds of evaluations for what the table's sweep gives with none. It is not the default,
and is here for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ...errors import InputError
from ..allocation import pad
from ..values import Candidate, Completed, Trial
from ._base import SearchContext
from ._budget import Budget, lowered
from ._known import KnownCandidates, Levels, levels_of
from ._state import read_levels, read_state, write_state

IndexArray: TypeAlias = NDArray[np.int64]

EPISODES = 16
"""Most episodes for one proposal, until one is new."""
NEIGHBOURS = 16
"""Number of results of about the same cost that are the baseline of a reward."""


class PolicySearcher:
    """The policy-gradient searcher, see the module. Options:

    learning_rate  step along the gradient of an episode, at least 0
    exploration    probability that a group's level is drawn at random and not by the policy, in [0, 1]
    """

    def __init__(self, context: SearchContext, *, learning_rate: float = 0.1, exploration: float = 0.05) -> None:
        for name, value, most in (("learning_rate", learning_rate, np.inf), ("exploration", exploration, 1.0)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= most:
                span = "a number of at least 0" if most == np.inf else "a number in [0, 1]"
                raise InputError(f"{name} of searcher 'policy' must be {span}, got {value!r}")
        self._context = context
        self._rate, self._exploration = float(learning_rate), float(exploration)
        self._budget = Budget(context)
        self._policy = Policy(context, self._budget)
        self._reset()

    def _reset(self) -> None:
        self._known = KnownCandidates(self._context.space)
        self._results: dict[Levels, float] = {}
        self._costs: list[float] = []
        self._policy.weights = self._policy.first_weights()

    def ask(self, n: int) -> list[Candidate]:
        return self._known.asked(n, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._context.space.check(trial.candidate)
            levels = levels_of(trial.candidate)
            if isinstance(trial, Completed):
                self._learn(levels, float(self._context.vector(trial)[0]))
            self._known.add(levels)

    def state_dict(self) -> dict[str, Any]:
        """Return the known candidates, and by their index the results in the order of telling; weights follow."""
        index = {levels: i for i, levels in enumerate(self._known)}
        return write_state(
            "policy",
            self._context.space,
            known=[list(levels) for levels in index],
            results=[[index[levels], quality] for levels, quality in self._results.items()],
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = read_state(state, "policy", self._context.space, ("known", "results"))
        known = [read_levels(levels, self._context.space) for levels in fields["known"]]
        self._reset()
        self._known.update(known)
        for i, quality in fields["results"]:
            self._learn(known[i], float(quality))

    def _learn(self, levels: Levels, quality: float) -> None:
        """Take a step of the policy gradient. A candidate that has a result already changes nothing."""
        if levels in self._results:
            return
        self._results[levels] = quality
        self._costs.append(self._policy.cost_of(levels))
        if len(self._results) < 3:
            return
        scaled = _scaled(np.array(list(self._results.values())))
        distance = np.abs(np.array(self._costs[:-1]) - self._costs[-1])
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        spread = float(scaled.std())
        if spread > 0:
            advantage = float(np.clip((scaled[near].mean() - scaled[-1]) / spread, -2.0, 2.0))
            self._policy.weights = self._policy.weights + self._rate * advantage * self._policy.gradient(levels)

    def _propose(self) -> Levels | None:
        if self._known.exhausted:
            return None
        rng = self._known.rng(self._context.seed)
        levels: Levels = ()
        for _ in range(EPISODES):
            levels = self._budget.within_limits(self._policy.episode(rng, self._exploration))
            if levels not in self._known:
                return levels
        return self._known.near(levels, rng)


class Policy:
    """A softmax over the levels of each group, linear in the features. Groups are taken in the order of the space.

    weights  shape (features,)
    """

    N_LEVEL, N_GROUP = 3, 5

    def __init__(self, context: SearchContext, budget: Budget) -> None:
        self._n_levels = np.array(context.space.n_levels, dtype=np.int64)
        n_groups, most = len(self._n_levels), int(self._n_levels.max())
        self._rows = np.arange(n_groups)
        self._there: NDArray[np.bool_] = np.less(np.arange(most), self._n_levels[:, None])
        if context.table is not None and budget.costs:
            # the equal mixture of all costs, where there are several
            self.cost = np.where(self._there, budget.costs[-1], np.inf)
            scores = pad(context.table.divergence)
        else:
            # the place of a level in its group stands in for the cost; its divergence is unknown
            place = np.arange(most) / np.maximum(self._n_levels - 1, 1)[:, None]
            self.cost = np.where(self._there, 1.0 - place, np.inf)
            scores = np.zeros((n_groups, most))
        usable = np.asarray(np.isfinite(self.cost) & np.isfinite(scores))
        self._scores = np.where(usable, np.maximum(scores, 0.0), np.inf)
        self._least = np.where(usable, self.cost, np.inf).min(axis=1)
        self._most = np.where(usable, self.cost, -np.inf).max(axis=1)
        self._usable = np.where(usable.any(axis=1, keepdims=True), usable, self._there)
        self._least, self._most = (np.where(np.isfinite(v), v, 0.0) for v in (self._least, self._most))
        self._features = self._of_levels(usable)
        self._place = self._of_groups()
        self.weights = self.first_weights()

    def first_weights(self) -> FloatArray:
        """Return the weights of the untrained policy: a larger rest of the budget leads to dearer levels."""
        weights = np.zeros((self.N_LEVEL, self.N_GROUP))
        weights[0, 4] = 4.0
        return weights.reshape(-1)

    def cost_of(self, levels: Levels) -> float:
        """Return the cost of a candidate; a level without a cost counts as the dearest."""
        cost = self.cost[self._rows, list(levels)]
        return float(np.where(np.isfinite(cost), cost, self._most).sum())

    def episode(self, rng: np.random.Generator, exploration: float) -> Levels:
        """Return levels for a budget drawn uniformly between the least and the most, repaired to keep it."""
        budget = self._least.sum() + rng.random() * float((self._most - self._least).sum())
        left = float(budget)
        rest_least, rest_most = float(self._least.sum()), float(self._most.sum())
        levels = np.zeros(len(self._n_levels), dtype=np.int64)
        dice, noise = rng.random(len(levels)), rng.gumbel(size=self.cost.shape)
        for g in range(len(levels)):
            slack = _slack(left, rest_least, rest_most)
            logits = np.zeros(len(noise[g])) if dice[g] < exploration else self._logits(g, slack)
            # the largest logit plus Gumbel noise is a draw from the softmax
            levels[g] = chosen = int(np.where(self._usable[g], logits + noise[g], -np.inf).argmax())
            left -= float(self.cost[g, chosen])
            rest_least -= float(self._least[g])
            rest_most -= float(self._most[g])
        return tuple(lowered(levels, self._scores, self.cost, float(budget)).tolist())

    def gradient(self, levels: Levels) -> FloatArray:
        """Return the gradient of the log-probability of these levels, with the candidate's own cost as the budget."""
        chosen = np.array(levels)
        paid = self.cost[self._rows, chosen]
        paid = np.where(np.isfinite(paid), paid, self._most)
        left = paid.sum() - np.concatenate([[0.0], np.cumsum(paid)[:-1]])
        least = self._least.sum() - np.concatenate([[0.0], np.cumsum(self._least)[:-1]])
        most = self._most.sum() - np.concatenate([[0.0], np.cumsum(self._most)[:-1]])
        slack = np.array([_slack(*row) for row in zip(left.tolist(), least.tolist(), most.tolist(), strict=True)])
        place = np.column_stack([self._place, slack])
        logits = np.einsum("glf,gp,fp->gl", self._features, place, self.weights.reshape(self.N_LEVEL, self.N_GROUP))
        logits = np.where(self._usable, logits, -np.inf)
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        surprise = self._features[self._rows, chosen] - np.einsum("gl,glf->gf", chance, self._features)
        return np.asarray(np.einsum("gf,gp->fp", surprise, place).reshape(-1) / np.sqrt(len(levels)))

    def _logits(self, g: int, slack: float) -> FloatArray:
        weights = self.weights.reshape(self.N_LEVEL, self.N_GROUP)
        return np.asarray(self._features[g] @ (weights @ np.append(self._place[g], slack)))

    def _of_levels(self, usable: NDArray[np.bool_]) -> FloatArray:
        """Return the features of levels, (groups, most levels, 3), in about [-1, 1]; zero for absent levels."""
        span = np.where(self._most > self._least, self._most - self._least, 1.0)[:, None]
        cost = np.where(usable, (np.where(usable, self.cost, 0.0) - self._least[:, None]) / span, 0.0)
        harm = np.where(usable, self._scores, 0.0)
        floor = 1e-3 * float(harm.max()) or 1.0
        logs = np.log(harm + floor)
        logs = (logs - logs.mean()) / (float(np.ptp(logs)) or 1.0)
        return np.stack([cost, cost**2, np.where(usable, logs, 0.0)], axis=2)

    def _of_groups(self) -> FloatArray:
        """Return the features of groups, (groups, 4): 1, place, share of the cost, sensitivity, in about [-1, 1].

        The slack, which depends on the episode, is appended later.
        """
        n = len(self._n_levels)
        place = np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1)
        size = self._most - self._least
        share = np.log(size + 1e-3 * (float(size.max()) or 1.0))
        share = (share - share.mean()) / (float(np.ptp(share)) or 1.0)
        sensitivity = self._features[:, :, 2].mean(axis=1)
        return np.column_stack([np.ones(n), place, share, sensitivity])


def _slack(left: float, least: float, most: float) -> float:
    """Return the rest of the budget, in [-1, 1] between the cheapest and the dearest rest of the choices."""
    return float(np.clip(2.0 * (left - least) / (most - least) - 1.0, -1.0, 1.0)) if most > least else 0.0


def _scaled(quality: FloatArray) -> FloatArray:
    """Return the logarithm of a quality that is never negative, offset by the least above 0; else the quality."""
    if (quality < 0).any():
        return quality
    positive = quality[quality > 0]
    return np.asarray(np.log(quality + (float(positive.min()) if positive.size else 1.0)))
