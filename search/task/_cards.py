"""Cards of the axes of the space, and of the costs that are objectives and limits."""

from __future__ import annotations

from ..._cards import Card

_MODELLED = "none: modelled from the profile"
_KEEPS = "structure is found and tried before the search; trials are masked"

CARDS: dict[str, dict[str, Card]] = {
    "axis": {
        "weight_bits": Card(
            does="Widths of the weights: 2 to 8, 16, 32",
            cost="a variant and a row of the table for each width and layer",
            good_for="bytes; time only where the runtime has kernels for the width",
            did_not_help="CPU latency below 8 bits, but for wide linear layers",
            paper="Dong 2019, HAWQ",
        ),
        "activation_bits": Card(
            does="Widths of each layer's input: 4, 6, 8, 32",
            cost="ranges from the calibration split",
            good_for="int8 products, which need both sides in 8 bits",
            did_not_help="4 bits here: no runtime has kernels for them, so they cost accuracy and save no time",
            paper="Jacob 2018, Quantization and Training of Neural Networks",
        ),
        "sparsity": Card(
            does="Shares of zero weights",
            cost="a variant for each share and layer",
            good_for="bytes beside few bits: from 25 % zeros on at 4 bits",
            did_not_help="CPU latency: no runtime here runs zeros faster",
            paper="Han 2015, Learning both Weights and Connections",
        ),
        "rank": Card(
            does="Shares of the full rank",
            cost="an SVD for each layer",
            good_for="wide linear layers, in bytes and in MACs",
            did_not_help="small 3 x 3 convolutions, whose spectrum is flat",
            paper="Denton 2014, Exploiting Linear Structure",
        ),
        "rank_number": Card(
            does="Ranks as numbers, beside the shares",
            cost="as rank",
            good_for="kernels that want multiples of 8 or 16",
            paper="Denton 2014, Exploiting Linear Structure",
        ),
        "rank_energy": Card(
            does="The least rank that keeps a share of the squared singular values, layer by layer",
            cost="as rank",
            good_for="one number for layers of different spectra",
            paper="Eckart and Young 1936",
        ),
        "weight_method": Card(
            does="How the codes of weights are chosen: each method named is tried for each layer",
            cost="the methods' own; names that look at inputs need moments, n x n for n inputs",
            good_for="few bits, where methods differ most",
            did_not_help="8 bits: all are alike",
            paper="none",
        ),
        "activation_method": Card(
            does="How the ranges of activations are chosen",
            cost="one pass over the calibration split",
            good_for="4 and 6 bits",
            did_not_help="8 bits: minmax is as good or better",
            paper="none",
        ),
        "sparsity_method": Card(
            does="How the weights that become zero are chosen",
            cost="the methods' own; some need moments or gradients",
            good_for="half of the weights and more",
            did_not_help="a few per cent of zeros: all are alike",
            paper="none",
        ),
        "rank_method": Card(
            does="How the factors of a lower rank are found",
            cost="asvd needs moments",
            good_for="language models, whose inputs are far from white",
            did_not_help="inputs that are nearly white",
            paper="none",
        ),
        "weight_format": Card(
            does="What the codes of weights stand for",
            cost="all but int run as dense FP32 in the runtimes here",
            good_for="bytes at 2 to 4 bits",
            did_not_help="latency: only int has integer kernels",
            paper="none",
        ),
        "group_size": Card(
            does="How many weights share a scale: a row, 32 to 128 of it, blocks, the tensor",
            cost="a scale for each group",
            good_for="long rows at 3 and 4 bits",
            did_not_help="rows shorter than the group: left out of the space",
            paper="Dai 2021, VS-Quant",
        ),
        "scale_bits": Card(
            does="Width of the stored scales and tables: 32 or 16",
            cost="none",
            good_for="groups and palettes, whose scales weigh something",
            paper="none",
        ),
        "activation_scheme": Card(
            does="Ranges of activations: affine, symmetric, or dynamic of each token",
            cost="dynamic: a pass over the activation in each run",
            good_for="dynamic: transformers; symmetric: TensorRT",
            did_not_help="dynamic: latency of convolutions",
            paper="Yao 2022, ZeroQuant",
        ),
        "activation_scope": Card(
            does="Where tensors are rounded: for a layer, for all that read them, before a product",
            cost="more rounding beyond layer",
            good_for="tensor: ONNX Runtime's int8 kernels",
            did_not_help="OpenVINO, which does not round before a sum",
            paper="none",
        ),
        "sparsity_pattern": Card(
            does="Where zeros may stand: anywhere, N:M, blocks, rows, columns",
            cost="accuracy at the same share",
            good_for="2:4 on NVIDIA GPUs",
            did_not_help="latency on every CPU here",
            paper="Mishra 2021, Accelerating Sparse Deep Neural Networks",
        ),
        "rank_form": Card(
            does="What a weight of a lower rank is split into",
            cost="as rank, for each form",
            good_for="convolutions: spatial and tucker2",
            did_not_help="predicted latencies, which know channel alone",
            paper="Kim 2016, Compression of Deep Convolutional Neural Networks",
        ),
        "channels": Card(
            does="Shares of coupled channels of convolutions that stay",
            cost=_KEEPS + "; needs torch-pruning",
            good_for="latency: ResNet-20 at half of the MACs is 1.44 times faster in OpenVINO",
            did_not_help="depthwise channels that are no multiple of 8 in ONNX Runtime: 0.32 times",
            paper="Fang 2023, DepGraph",
        ),
        "heads": Card(
            does="Shares of attention heads that stay, groups of queries whole",
            cost=_KEEPS,
            good_for="transformers",
            did_not_help="models that write their number of heads into forward (KWT-1): left alone",
            paper="Michel 2019, Are Sixteen Heads Really Better than One?",
        ),
        "neurons": Card(
            does="Shares of neurons between linear layers that stay",
            cost=_KEEPS,
            good_for="feed-forward parts of transformers, and controllers",
            paper="Kwon 2022, A Fast Post-Training Pruning Framework for Transformers",
        ),
        "width": Card(
            does="Shares of the hidden dimension that stay",
            cost=_KEEPS,
            good_for="residual streams of transformers",
            did_not_help="T5, whose config cannot say it: paredown's own format alone",
            paper="Ashkboos 2024, SliceGPT",
        ),
        "units": Card(
            does="Shares of a recurrent layer's units that stay",
            cost=_KEEPS,
            good_for="LSTM and GRU",
            did_not_help="LSTMs with projections: left alone",
            paper="Wen 2018, Learning Intrinsic Sparse Structures within LSTM",
        ),
        "experts": Card(
            does="Shares of a mixture's experts that stay",
            cost=_KEEPS + "; at least top-k stay",
            good_for="bytes",
            did_not_help="MACs, where each expert runs only on the tokens that ask it",
            paper="Lu 2024, Not All Experts are Equal",
        ),
        "keep_method": Card(
            does="Which units stay, by score; each score named is tried",
            cost="the scores' own",
            good_for="nets on which scores differ",
            did_not_help="no score but output and hessian_diag was above random on three nets",
            paper="none",
        ),
        "blocks": Card(
            does="Whether residual blocks may be dropped",
            cost=_KEEPS,
            good_for="latency of deep nets",
            did_not_help="blocks that change the shape: left alone",
            paper="Men 2024, ShortGPT",
        ),
    },
    "objective": {
        "divergence": Card(
            does="Distance of the outputs from the original's: KL of logits, else mean squared error",
            cost="the same forward pass as the metric",
            good_for="guiding the search: it tells candidates apart that a metric cannot",
            did_not_help="below 1e-4 nats, where none is better than another",
            paper="Kullback and Leibler 1951",
        ),
        "bytes": Card(
            does="Length of the stored model", cost="none: exact", good_for="flash, downloads",
            did_not_help="as a measure of another runtime's file", paper="none",
        ),
        "macs": Card(
            does="Multiply-accumulates of a sample", cost="none: counted", good_for="comparison with papers",
            did_not_help="as a measure of time: half of them saved 31 % on ResNet-20 in OpenVINO", paper="none",
        ),
        "bops": Card(
            does="MACs times the widths of both factors", cost="none: counted",
            good_for="devices that compute bit by bit",
            did_not_help="as a measure of time on a CPU", paper="Baskin 2018, UNIQ",
        ),
        "latency_ms": Card(
            does="Milliseconds at batch 1", cost="modelled: none; measured: a table first, minutes",
            good_for="what users wait for", paper="Williams 2009, Roofline",
        ),
        "energy_mj": Card(
            does="Millijoules of a sample", cost=_MODELLED + "; read from a counter where there is one",
            good_for="batteries", paper="Horowitz 2014, Computing's Energy Problem",
        ),
        "ms_per_sample": Card(
            does="Milliseconds of a sample within a batch", cost=_MODELLED, good_for="servers",
            paper="Williams 2009, Roofline",
        ),
        "throughput": Card(
            does="Samples a second at [hardware] batch; more is better", cost=_MODELLED, good_for="servers",
            paper="Williams 2009, Roofline",
        ),
        "peak_activation_bytes": Card(
            does="Largest sum of live activations", cost="a trace of the graph",
            good_for="microcontrollers", paper="Lin 2020, MCUNet",
        ),
        "memory_bytes": Card(
            does="Weights as they run, and the peak of the activations", cost="a trace of the graph",
            good_for="devices of little memory", paper="Lin 2020, MCUNet",
        ),
        "co2_g_per_million": Card(
            does="Grams of CO2 for a million samples", cost=_MODELLED + "; needs hardware.grid_g_per_kwh",
            good_for="reports", paper="Lacoste 2019, Quantifying the Carbon Emissions",
        ),
    },
}  # fmt: skip
"""Kind -> name -> card."""
