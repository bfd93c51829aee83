"""Cards of the repairs after compression."""

from __future__ import annotations

from ..._cards import Card

CARDS: dict[str, dict[str, Card]] = {
    "repair": {
        "bias": Card(
            does="Puts each layer's mean output back where it was, in its bias or the batch norm behind",
            cost="no byte; a product with a vector for each variant",
            good_for="few bits: ResNet-20 W3 affine 58.7 to 82.2 %",
            did_not_help="8 bits (ResNet-8 W8A8 87.7 to 87.3 %); layers with neither a bias nor a batch norm",
            paper="Nagel 2019, Data-Free Quantization, 4.2",
        ),
        "batch_norm": Card(
            does="Running statistics of batch norms follow the compressed model",
            cost="no byte; a pass over the calibration samples for each model",
            good_for="few bits and removed channels: ResNet-20 W3 affine 58.7 to 89.2 %",
            did_not_help="DS-CNN at 4 bits with 64 calibration samples: up to a point lost; ResNet-8 W8A8",
            paper="Sun 2019, Hybrid 8-bit Floating Point Training and Inference",
        ),
        "block_reconstruction": Card(
            does="Moves the codes of each block up or down, so that its output is the original's",
            cost="no byte; 400 forward and backward passes a block, minutes a point, exports alone",
            good_for="affine at 2 and 3 bits: ResNet-20 W3 59.9 to 88.7 %, DS-CNN W2 6.0 to 48.4 %",
            did_not_help="after the other repairs; DS-CNN W4 on 64 samples (90.5 to 88.3 %)",
            paper="Li 2021, BRECQ, 3.2 and 3.3",
        ),
    },
}
"""Kind -> name -> card."""
