"""Cards of the plans: configs without a search."""

from __future__ import annotations

from ..._cards import Card

CARDS: dict[str, dict[str, Card]] = {
    "plan": {
        "uniform": Card(
            does="One treatment for all layers, the dearest in stored bits within the limits",
            cost="the store alone: no table, no evaluation",
            good_for="a first config, and as the one to beat",
            did_not_help="few bits: a mixed point keeps more in the same bytes",
            paper="none",
        ),
        "sensitivity": Card(
            does="Least summed divergence within the limits, by an exact 0-1 programme over the table",
            cost="the table",
            good_for="bits where they matter, in seconds",
            did_not_help="layers whose errors add up in the outputs, which the sum of rows does not know",
            paper="Yao 2021, HAWQ-V3",
        ),
        "performance": Card(
            does="Least modelled latency for at most 1 + slack times the least divergence",
            cost="the table and a profile",
            good_for="devices on which some widths are faster",
            did_not_help="profiles on which no width is faster: bit operations alone decide",
            paper="none",
        ),
        "energy": Card(
            does="As performance, with the profile's energies",
            cost="the table and a profile with energies",
            good_for="batteries",
            did_not_help="profiles without energies: refused by name",
            paper="none",
        ),
        "fp16-mse": Card(
            does="INT8, but FP16 where INT8 is too coarse for a layer's weights",
            cost="one pass over the weights; no table, no space",
            good_for="deployments of FP16 and INT8 alone",
            did_not_help="layers that are coarse and unimportant: they stay in FP16",
            paper="none",
        ),
    },
}
"""Kind -> name -> card."""
