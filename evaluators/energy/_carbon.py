"""Carbon emissions: the energy times the emissions of the grid for it.

The user gives the grid's figure, which differs by a factor of twenty between countries. The production of the device is
left out.
"""

from __future__ import annotations

from dataclasses import replace

from ..values import Measurement

_MJ_PER_KWH = 3.6e9
"""Millijoules."""


def co2_g_per_million(energy_mj: float, grid_g_per_kwh: float) -> float:
    """Grams of CO2 for a million samples.

    energy_mj       millijoules of one sample
    grid_g_per_kwh  grams of CO2 that the grid emits for a kilowatt-hour
    """
    return energy_mj * 1e6 / _MJ_PER_KWH * grid_g_per_kwh


def co2_measurement(energy: Measurement, grid_g_per_kwh: float) -> Measurement:
    """Carbon emissions of an energy in millijoules, with its interval.

    The source is "modelled", also where the energy was measured: the grid's emissions are an average that nobody
    measured.
    """
    value, low, high = (
        None if mj is None else co2_g_per_million(mj, grid_g_per_kwh) for mj in (energy.value, energy.low, energy.high)
    )
    return replace(energy, value=value or 0.0, low=low, high=high, unit="g", source="modelled", samples=())
