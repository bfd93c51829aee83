"""Energy and carbon: from a counter where one can be read, else from the device's profile, and then marked so."""

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
