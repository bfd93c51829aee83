"""Cards of the methods and forms of low rank."""

from __future__ import annotations

from ..._cards import Card

CARDS: dict[str, dict[str, Card]] = {
    "rank_method": {
        "svd": Card(
            does="The factors nearest to the weight in squared error; the default",
            cost="one SVD in float64; no data",
            good_for="linear layers whose singular values fall fast",
            did_not_help="small 3 x 3 convolutions, whose spectrum is flat: bits are the cheaper way to save",
            paper="Denton 2014, Exploiting Linear Structure; Eckart and Young 1936",
        ),
        "asvd": Card(
            does="The factors that cost the layer's output least on calibration data",
            cost="an eigendecomposition of the inputs' moments and one SVD",
            good_for="language models: half of the ranks of a Llama of 260 k, perplexity 41, by svd 287",
            did_not_help="inputs that are nearly white, where it is svd",
            paper="Wang 2024, SVD-LLM",
        ),
    },
    "rank_form": {
        "channel": Card(
            does="The old kernel with r outputs, then 1 x 1; of a linear layer two factors; the default",
            cost="runs as two layers",
            good_for="linear layers, and convolutions of many outputs",
            did_not_help="small 3 x 3 convolutions, whose spectrum is flat",
            paper="Denton 2014, Exploiting Linear Structure",
        ),
        "input": Card(
            does="1 x 1 to r channels, then the old kernel",
            cost="runs as two convolutions; MACs rise before a stride",
            good_for="convolutions of many inputs",
            did_not_help="predicted latencies, which do not know this form",
            paper="Denton 2014, Exploiting Linear Structure",
        ),
        "spatial": Card(
            does="k x 1 to r channels, then 1 x k",
            cost="runs as two convolutions; MACs rise before a stride",
            good_for="kernels of 5 x 5 and more",
            did_not_help="predicted latencies, which do not know this form",
            paper="Jaderberg 2014, Speeding up Convolutional Neural Networks, scheme 2",
        ),
        "tucker2": Card(
            does="1 x 1, the old kernel on fewer channels, 1 x 1",
            cost="runs as three convolutions",
            good_for="wide convolutions of large kernels",
            did_not_help="predicted latencies, which do not know this form",
            paper="Kim 2016, Compression of Deep Convolutional Neural Networks",
        ),
        "residual": Card(
            does="Two factors beside what they leave over, which is sparse or of few bits",
            cost="factors have 8 bits at least; runs as the one dense weight",
            good_for="bytes, where a few directions are all that few bits lose",
            did_not_help="latency: it runs as the dense weight",
            paper="Saha 2024, Compressing LLMs using Low Rank and Low Precision Decomposition",
        ),
    },
}
"""Kind -> name -> card."""
