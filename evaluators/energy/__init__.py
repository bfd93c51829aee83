"""Energy and carbon of an inference: measured by a counter, or modelled from the device's profile and marked so.

It knows `costs`. Begin with `_measure.py` (a counter read around many calls) and `_modelled.py` (a profile's energies).
Another counter belongs in `_counters.py`.
"""

from ._carbon import co2_g_per_million, co2_measurement
from ._counters import Counter, NvmlCounter, RaplCounter, counters_here
from ._measure import measure_energy
from ._modelled import ModelledEnergy, modelled_energy_mj

__all__ = [
    "Counter",
    "ModelledEnergy",
    "NvmlCounter",
    "RaplCounter",
    "co2_g_per_million",
    "co2_measurement",
    "counters_here",
    "measure_energy",
    "modelled_energy_mj",
]
