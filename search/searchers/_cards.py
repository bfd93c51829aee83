"""Cards of the searchers. Hypervolumes are those of 22 groups x 7 levels after 100 trials, mean of 5 seeds."""

from __future__ import annotations

from ..._cards import Card

_OPTUNA = "0.3 s to ask with 60 groups, 3.5 s with 400"

CARDS: dict[str, dict[str, Card]] = {
    "searcher": {
        "evolution": Card(
            does="Sensitivity table, its sweep over all budgets, refit to each result, level switches; the default",
            cost="the table, a share of the trials; milliseconds to ask",
            good_for="25 to 300 trials on one front or under limits: hypervolume .903, NSGA-II swept first .865",
            did_not_help="without a table and with strong interactions: .766, genetic .782",
            paper="ours, after Sieberling 2024, EvoPress, and Dong 2020, HAWQ-V2",
        ),
        "genetic": Card(
            does="Generations: population, elites, tournament, crossover, mutation (NSGA-II or NSGA-III)",
            cost="milliseconds to ask; needs thousands of trials",
            good_for="several objectives and many cheap trials",
            did_not_help="few trials: hypervolume .741, evolution .903; swept first .873",
            paper="Deb 2002, NSGA-II; Deb and Jain 2014, NSGA-III",
        ),
        "policy": Card(
            does="Policy gradient that chooses levels layer by layer, to a budget drawn anew",
            cost="the table; milliseconds to ask",
            good_for="comparison with HAQ and AMC",
            did_not_help="few trials: hypervolume .732, evolution .903, random .715",
            paper="Williams 1992, REINFORCE; Wang 2019, HAQ; He 2018, AMC",
        ),
        "random": Card(
            does="Draws uniformly from what was not tried yet",
            cost="nothing but its trials",
            good_for="comparison: every other searcher has to beat it",
            did_not_help="everywhere else: hypervolume .715, evolution .903",
            paper="Bergstra and Bengio 2012, Random Search",
        ),
        "optuna": Card(
            does="Any sampler of Optuna, by its short name or import path",
            cost="that of the sampler; params seed_with_sweep = true adds the table",
            good_for="a sampler that you know, or your own",
            did_not_help="many groups: samplers that model all variables take seconds to ask",
            paper="Akiba 2019, Optuna",
        ),
        "optuna:tpe": Card(
            does="Tree-structured Parzen estimator",
            cost=_OPTUNA,
            good_for="spaces of few groups",
            did_not_help="22 groups, swept first: hypervolume .870, evolution .903",
            paper="Bergstra 2011, Algorithms for Hyper-Parameter Optimization",
        ),
        "optuna:nsga2": Card(
            does="NSGA-II of Optuna",
            cost="milliseconds to ask; needs hundreds of trials",
            good_for="many cheap trials",
            did_not_help="22 groups, swept first: hypervolume .865, evolution .903",
            paper="Deb 2002, NSGA-II",
        ),
        "optuna:nsga3": Card(
            does="NSGA-III of Optuna",
            cost="milliseconds to ask; needs hundreds of trials",
            good_for="four objectives and more",
            paper="Deb and Jain 2014, NSGA-III",
        ),
        "optuna:gp": Card(
            does="Gaussian process with expected improvement",
            cost="7 s to ask with 60 groups, 70 s with 400",
            good_for="few groups and dear trials",
            did_not_help="many groups: the time to ask is longer than a trial",
            paper="Jones 1998, Efficient Global Optimization",
        ),
        "optuna:random": Card(
            does="Random sampler of Optuna",
            cost="nothing but its trials",
            good_for="comparison",
            paper="Bergstra and Bengio 2012, Random Search",
        ),
        "optuna:qmc": Card(
            does="A sequence of low discrepancy",
            cost="nothing but its trials",
            good_for="comparison, and even coverage of few groups",
            paper="Sobol 1967",
        ),
    },
}
"""Kind -> name -> card."""
