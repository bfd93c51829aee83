"""Hardware profile from measured figures, and from an existing profile where nothing was measured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ._figures import KernelFigure, MachineFigure, MachineFigures
from ._machine_rules import rules_of
from ._rates import CLASSES, rate_of

if TYPE_CHECKING:
    from ...hardware_profiles import HardwareProfile

_LEVELS = {"L1d": "l1", "L2": "l2", "L3": "l3", "L4": "l4"}
_FITS = 0.75
"""Share of a cache that a working set may fill and still count as inside it."""
_LIKE_X86 = (("amx_int8", "x86-64-amx"), ("avx512_vnni", "x86-64"), ("", "x86-64-avx2"))
_LIKE_ARM = "raspberry-pi-5-onnxruntime"


def nearest_profile(figures: MachineFigures) -> str:
    """Shipped profile that supplies the figures that were not measured."""
    if figures.architecture in ("aarch64", "arm64"):
        return _LIKE_ARM
    return next(f"{name}-{figures.runtime}" for isa, name in _LIKE_X86 if not isa or isa in figures.isa)


def machine_profile(figures: MachineFigures, base: HardwareProfile, *, name: str | None = None) -> HardwareProfile:
    """Profile of the measured machine that a task can name.

    base  what was not measured keeps its figure, source and kind: energies, layouts, other operators
    name  default: the CPU's and the runtime's

    Figures that were measured are `measured`; a latency that is worked out from them is modelled all the same. Rules of
    the lowering say what was tried (`_machine_rules`), and `operators` has every time that was taken.
    """
    from ...hardware_profiles import HardwareProfile, load_profile

    data = base.to_dict()
    if base.runtime != figures.runtime:  # options are of one runtime
        data["runtime_options"] = load_profile(f"x86-64-{figures.runtime}").runtime_options
    rules, rates = rules_of(figures, base)
    data |= {
        "name": name or _slug(f"{figures.cpu}-{figures.runtime}"),
        "device": f"{figures.cpu}, {figures.n_cores} core{'s' if figures.n_cores > 1 else ''}",
        "cpu": figures.cpu,
        "architecture": figures.architecture,
        "isa": list(figures.isa),
        "cores": figures.n_cores,
        "numa_nodes": figures.n_numa_nodes,
        "runtime": figures.runtime,
        "note": f"Measured on {figures.date} with {figures.runtime} {figures.runtime_version} on core "
        f"{', '.join(map(str, figures.cores)) or 'unknown'}; what was not measured is {base.name}'s and keeps its "
        "source. Latencies that are worked out from it are modelled.",
        "rates_gmac_s": {**data["rates_gmac_s"], **_measured_rates(figures), **rates},
        "layer_overhead_us": _figure(figures.overhead_us["kernel"], "one of 33 convolutions of 8 channels on 4 pixels"),
        "lowering": rules,
        "patterns": sorted({*base.patterns, *(p for rule in rules for p in rule["when"].get("patterns", ()))}),
        "operators": [_operator(kernel) for kernel in figures.kernels if kernel.ms is not None and _is_kind(kernel)],
    }
    if figures.scaling is not None:
        what = f"{figures.threads} threads against one, in the widest of the standard convolutions"
        data["scaling"] = _figure(figures.scaling, what)
    if figures.memory_bytes is not None:
        data["memory_bytes"] = _told(figures.memory_bytes, figures.date, "the system")
    _with_memory(data, figures)
    _with_energies(data)
    # a rate that was measured is what was reached, and no peak
    reached = {*_measured_rates(figures), *rates}
    data["efficiency"] = {key: value for key, value in data.get("efficiency", {}).items() if key not in reached}
    return HardwareProfile.from_dict(data, source=f"the profile of {figures.cpu}")


def _measured_rates(figures: MachineFigures) -> dict[str, Any]:
    """Measured rates by the keys of the shipped profiles; linear layers separately."""
    found = {}
    for layers in CLASSES:
        for form in ("fp32", "int8"):
            kernels = layers.of(figures.kernels, form)
            if (rate := rate_of(kernels, figures.overhead_us["kernel"].value)) is not None:
                found[f"{form}{layers.suffix}"] = {
                    "value": rate.gmac_s, "kind": "measured", "date": figures.date,
                    "source": f"{kernels[0].source}: median of {rate.n} {layers.name} layers ({rate.low:.3g} to "
                    f"{rate.high:.3g}) on one pinned core",
                }  # fmt: skip
    return found


def _with_memory(data: dict[str, Any], figures: MachineFigures) -> None:
    """Memory levels: caches as the system describes them, with the bandwidth of working sets inside each.

    Main memory has the bandwidth of the largest working set, if that exceeds all caches.
    """
    copies = {_bytes_of(key): figure for key, figure in figures.bandwidth_gb_s.items() if key.startswith("copy ")}
    before, smaller = {cache["level"]: cache for cache in data.get("caches", [])}, 0
    caches = []
    for cache in figures.caches:
        if (level := _LEVELS.get(cache.name)) is None:
            continue
        entry = {
            "level": level, "bytes": _told(cache.bytes, figures.date, "the system"), "shared_by": cache.shared_by
        }  # fmt: skip
        # a copy reads one array and writes another
        inside = [size for size in copies if smaller < 2 * size <= _FITS * cache.bytes]
        if inside:
            best = max(inside, key=lambda size: copies[size].value)
            entry["bandwidth_gb_s"] = _figure(copies[best], f"a copy of {best} bytes, read and written")
        elif "bandwidth_gb_s" in before.get(level, {}):
            entry["bandwidth_gb_s"] = before[level]["bandwidth_gb_s"]
        caches.append(entry)
        smaller = cache.bytes
    if caches:
        data["caches"] = caches
    largest = max(copies, default=0)
    if largest and 2 * largest > 2 * smaller:
        data["bandwidth_gb_s"] = _figure(copies[largest], f"a copy of {largest} bytes, read and written")


def _with_energies(data: dict[str, Any]) -> None:
    """Energies for rates that the base profile lacks, from its rates of the same number type; none of them was
    measured.
    """
    if "energy" not in data:
        return
    known = data["energy"]["pj_per_mac"]
    for key in {rule["runs_as"]["rate"] for rule in data["lowering"]} - set(known):
        form = key.partition("_")[0]
        known[key] = known.get(form, known["int8" if form == "w4" and "int8" in known else "fp32"])


def _operator(kernel: KernelFigure) -> dict[str, Any]:
    return {
        "kind": kernel.operator, "shape": kernel.shape, "format": kernel.form, "ms": kernel.ms, "n": kernel.n,
        "source": f"{kernel.source}, {kernel.date}; ran {kernel.kernel or 'what the runtime does not name'}",
    }  # fmt: skip


def _is_kind(kernel: KernelFigure) -> bool:
    from ...hardware_profiles import KINDS

    return kernel.operator in KINDS


def _figure(figure: MachineFigure, what: str) -> dict[str, Any]:
    return {"value": figure.value, "kind": "measured", "source": f"{figure.source}: {what}", "date": figure.date}


def _told(value: float, date: str, by: str) -> dict[str, Any]:
    return {"value": value, "kind": "measured", "source": f"as {by} tells, not timed", "date": date}


def _bytes_of(key: str) -> int:
    """Parse a size: `copy 16 kB` -> 16384"""
    _, number, unit = key.split()
    return int(number) * {"kB": 1024, "MB": 1024**2}[unit]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "machine"
