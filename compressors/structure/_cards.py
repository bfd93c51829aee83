"""Cards of the scores that rank units: channels, heads, neurons, width, recurrent units, experts."""

from __future__ import annotations

from ..._cards import Card

_BACKWARD = "one backward pass over the calibration split; no targets"
_FIGURES = "1.5 times fewer MACs, no training: "

CARDS: dict[str, dict[str, Card]] = {
    "keep_method": {
        "output": Card(
            does="Keeps the units of which the layers that read them make most; the default",
            cost="one pass over the calibration split",
            good_for=_FIGURES + "above random on ResNet-20, ResNet-8 and DS-CNN (72.8, 42.2, 80.4 %)",
            did_not_help="by the two-sided 95 % interval it is not above random on ResNet-8",
            paper="Luo 2017, ThiNet",
        ),
        "l1": Card(
            does="Keeps the units of the largest sum of magnitudes",
            cost="one pass over the weights; no data",
            good_for=_FIGURES + "75.9 % on ResNet-20, the best there (random 60.2)",
            did_not_help="depthwise nets: DS-CNN 24.1 %, random 25.2",
            paper="Li 2017, Pruning Filters for Efficient ConvNets",
        ),
        "l2": Card(
            does="Keeps the units of the largest norm",
            cost="one pass over the weights; no data",
            good_for=_FIGURES + "47.3 % on ResNet-8, the best there (random 29.0)",
            did_not_help="depthwise nets: DS-CNN 21.2 %, random 25.2",
            paper="Li 2017, Pruning Filters for Efficient ConvNets",
        ),
        "batch_norm": Card(
            does="Keeps the channels of the largest scale in their batch norms",
            cost="none; no data",
            good_for="nets that were trained with a penalty on these scales",
            did_not_help=_FIGURES + "ResNet-8 29.8 and DS-CNN 18.4 %, no better than random",
            paper="Liu 2017, Network Slimming",
        ),
        "group": Card(
            does="Keeps the units of the largest norm over all rows and columns coupled to them",
            cost="one pass over the weights; no data",
            good_for=_FIGURES + "55.7 % on DS-CNN, the best without data",
            did_not_help="ResNet-8: 32.2 %, random 29.0",
            paper="Fang 2023, DepGraph",
        ),
        "taylor": Card(
            does="Keeps the units of the largest weight times gradient in the layers that read them",
            cost=_BACKWARD,
            good_for=_FIGURES + "48.7 % on DS-CNN (random 25.2)",
            did_not_help="ResNet-8: 39.3 %, not above random beyond noise",
            paper="Molchanov 2019, Importance Estimation; Michel 2019, Are Sixteen Heads Really Better than One?",
        ),
        "hessian": Card(
            does="As taylor, with the Fisher information of a unit as a whole",
            cost=_BACKWARD,
            good_for=_FIGURES + "72.1 and 44.6 % on ResNet-20 and ResNet-8",
            did_not_help="DS-CNN: 38.3 %, not above random beyond noise",
            paper="Kwon 2022, A Fast Post-Training Pruning Framework for Transformers",
        ),
        "hessian_diag": Card(
            does="As hessian, with the diagonal of the Fisher information",
            cost=_BACKWARD,
            good_for=_FIGURES + "above random on all three nets (73.6, 43.7, 45.6 %)",
            did_not_help="by the two-sided 95 % interval it is not above random on DS-CNN",
            paper="LeCun 1990, Optimal Brain Damage",
        ),
        "activation": Card(
            does="Keeps the units of the largest activations",
            cost="one pass over the calibration split",
            good_for=_FIGURES + "75.9 % on DS-CNN (random 25.2)",
            did_not_help="ResNet-8: 36.4 %, not above random beyond noise",
            paper="Hu 2016, Network Trimming",
        ),
        "entropy": Card(
            does="Keeps the attention heads that look at few places",
            cost="one pass over the calibration split; heads only",
            good_for="comparison of heads",
            paper="Voita 2019, Analyzing Multi-Head Self-Attention",
        ),
        "random": Card(
            does="Keeps random units",
            cost="none",
            good_for="comparison: every other score has to beat it",
            did_not_help=_FIGURES + "60.2, 29.0 and 25.2 % on ResNet-20, ResNet-8 and DS-CNN",
            paper="none",
        ),
        "frequency": Card(
            does="Keeps the experts that are asked most often; for experts always this one",
            cost="one pass over the calibration split",
            good_for="mixtures whose tokens ask some experts seldom",
            paper="Li 2024, Merge, Then Compress",
        ),
    },
}
"""Kind -> name -> card."""
