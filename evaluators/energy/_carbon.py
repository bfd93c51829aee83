"""Carbon: the energy times what the grid emits for it. The grid's figure is the user's, for it differs by a factor of
twenty between countries; the making of the device is left out."""

from __future__ import annotations

from dataclasses import replace

from .._measurement import Measurement

_MJ_PER_KWH = 3.6e9
"""Millijoules."""


def co2_g_per_million(energy_mj: float, grid_g_per_kwh: float) -> float:
    """Grams of CO2 for a million samples.

    energy_mj       millijoules of one sample
    grid_g_per_kwh  grams of CO2 that the grid emits for a kilowatt-hour
    """
    return energy_mj * 1e6 / _MJ_PER_KWH * grid_g_per_kwh


def co2_measurement(energy: Measurement, grid_g_per_kwh: float) -> Measurement:
    """The same of an energy in millijoules, with its interval. Modelled, also where the energy was measured: what the
    grid emits is an average that nobody has read off a meter."""
    value, low, high = (
        None if mj is None else co2_g_per_million(mj, grid_g_per_kwh) for mj in (energy.value, energy.low, energy.high)
    )
    return replace(energy, value=value or 0.0, low=low, high=high, unit="g", source="modelled", samples=())
