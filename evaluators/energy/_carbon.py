"""Carbon: the energy times what the grid emits for it. The grid's figure is the user's, for it differs by a factor of
twenty between countries; the making of the device is left out."""

from __future__ import annotations

_MJ_PER_KWH = 3.6e9
"""Millijoules."""


def co2_g_per_million(energy_mj: float, grid_g_per_kwh: float) -> float:
    """Grams of CO2 for a million samples.

    energy_mj       millijoules of one sample
    grid_g_per_kwh  grams of CO2 that the grid emits for a kilowatt-hour
    """
    return energy_mj * 1e6 / _MJ_PER_KWH * grid_g_per_kwh
