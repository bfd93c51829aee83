"""Cards of the preparations before compression."""

from __future__ import annotations

from ..._cards import Card

CARDS: dict[str, dict[str, Card]] = {
    "prepare": {
        "off": Card(
            does="Leaves the model's channels as they are; the default",
            cost="none",
            good_for="nets whose layers have norms between them",
            paper="none",
        ),
        "equalize": Card(
            does="Gives rows of a layer and columns of the next the same range",
            cost="a trace, seconds; the outputs stay",
            good_for="depthwise nets with one scale for a tensor",
            did_not_help="ResNets: norms stand between all layers, and nothing is left to do",
            paper="Nagel 2019, Data-Free Quantization, 4.1",
        ),
        "awq": Card(
            does="Makes weights of large inputs larger, by the error of the next layers' outputs",
            cost="a trace, and 11 roundings of each layer behind a pair; the outputs stay",
            good_for="language models at 3 and 4 bits",
            paper="Lin 2024, AWQ, eq. 4 and 5",
        ),
    },
}
"""Kind -> name -> card."""
