"""Cards of the scores of weights, and of the patterns of zeros."""

from __future__ import annotations

from ..._cards import Card

CARDS: dict[str, dict[str, Card]] = {
    "sparsity_method": {
        "magnitude": Card(
            does="Drops the smallest weights; the default",
            cost="one sort; no data",
            good_for="up to half of the weights, and as the one to beat",
            did_not_help="75 % zeros on ResNet-20: 42 % of accuracy, refit(wanda) 84 %; CPU latency, ever",
            paper="Han 2015, Learning both Weights and Connections",
        ),
        "wanda": Card(
            does="Drops the least |w| times the norm of its input",
            cost="the diagonal of the inputs' moments, and one sort",
            good_for="language models: a Llama of 260 k at 50 % has perplexity 20.4, by magnitude 43.3",
            did_not_help="ResNet-20: no better than magnitude at 50 %, worse beyond",
            paper="Sun 2024, A Simple and Effective Pruning Approach for LLMs",
        ),
        "obs": Card(
            does="Drops what costs the layer's output least if the others made up for it",
            cost="one inverse of the inputs' moments a layer",
            good_for="refit(obs), which makes up for it",
            did_not_help="by itself: behind magnitude or wanda where nothing is refitted",
            paper="Hassibi and Stork 1993; Frantar and Alistarh 2022, Optimal Brain Compression",
        ),
        "block_obs": Card(
            does="As obs, for whole blocks and for the best set of M - N in N:M",
            cost="one inverse a layer; for N:M one small solve for each set, M up to 8",
            good_for="2:4, where it is the best plain score on ResNet-20 and the Llama of 260 k",
            did_not_help="zeros anywhere, where it is obs",
            paper="Kurtic 2022, The Optimal BERT Surgeon",
        ),
        "gradient": Card(
            does="Drops the least mean gradient of the loss",
            cost="one backward pass over the calibration split",
            good_for="comparison",
            did_not_help="trained networks: no better than chance",
            paper="Molchanov 2017, Pruning Convolutional Neural Networks",
        ),
        "taylor": Card(
            does="Drops the least |w| times its mean gradient of the loss",
            cost="one backward pass over the calibration split",
            good_for="networks that are not yet at a minimum",
            did_not_help="trained networks: hardly better than chance",
            paper="Molchanov 2019, Importance Estimation for Neural Network Pruning",
        ),
        "fisher": Card(
            does="Drops the least squared weight times its mean squared gradient",
            cost="one backward pass over the calibration split",
            good_for="language models: as good as wanda on a Llama of 260 k",
            did_not_help="ResNet-20: 45 % of accuracy at half of the weights, magnitude 89 %",
            paper="LeCun 1990, Optimal Brain Damage",
        ),
        "sparsegpt": Card(
            does="Drops weights column by column; later columns make up for each",
            cost="a Cholesky factor of the inputs' moments, and one pass over the columns",
            good_for="large layers, and N:M",
            did_not_help="small layers: refit(wanda) is as good or better (ResNet-20 at 75 %: 70.9 and 84.5 %)",
            paper="Frantar and Alistarh 2023, SparseGPT, alg. 1",
        ),
        "refit(SCORE)": Card(
            does="Drops as SCORE says, then fits the survivors to the layer's output",
            cost="at most 60 products of the weight with the inputs' moments",
            good_for="every net tried, without training: ResNet-20 at 75 % keeps 84.5 %, magnitude 41.7 %",
            did_not_help="90 % zeros on ResNet-20 (15 %); calibration data that is scarce beside the inputs",
            paper="Meng 2024, ALPS, 3.3",
        ),
        "A*SCORE+B*SCORE": Card(
            does="Drops the least weighted sum of ranks of two scores or more",
            cost="all that its parts cost",
            good_for="scores that see different things, such as 0.7*wanda+0.3*fisher",
            paper="none",
        ),
    },
    "sparsity_pattern": {
        "''": Card(
            does="Zeros may stand anywhere; the default",
            cost="positions are stored, in the smallest of ten formats",
            good_for="bytes: the most accuracy at a share of zeros",
            did_not_help="latency: no CPU runtime here runs such zeros faster",
            paper="Han 2015, Learning both Weights and Connections",
        ),
        "N:M": Card(
            does="M - N of every M input channels are zero, at the share 1 - N/M",
            cost="input channels must be a multiple of M",
            good_for="2:4 on NVIDIA GPUs, which run it sparse",
            did_not_help="latency on every CPU here",
            paper="Mishra 2021, Accelerating Sparse Deep Neural Networks",
        ),
        "RxC": Card(
            does="Blocks of R outputs by C input channels are zero as wholes",
            cost="outputs and input channels must be multiples of R and C",
            good_for="block-sparse kernels, and fewer bytes for positions",
            did_not_help="latency on every CPU here",
            paper="Gray 2017, GPU Kernels for Block-Sparse Weights",
        ),
        "row": Card(
            does="Each output has the same number of zeros",
            cost="positions are stored",
            good_for="wanda on language models, as in its paper",
            did_not_help="ResNet-20 at 50 % with wanda: 84 % of accuracy, magnitude anywhere 85 %",
            paper="Sun 2024, A Simple and Effective Pruning Approach for LLMs",
        ),
        "column": Card(
            does="Each input of each position has the same number of zeros",
            cost="positions are stored",
            good_for="devices that spread columns over units",
            paper="none",
        ),
    },
}
"""Kind -> name -> card. Names in capitals stand for a number or another name."""
