"""The schema of a hardware profile."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ..errors import InputError
from ._device import Alignment, Cache, Energy, Operator, Tile
from ._explain import explain
from ._figure import BOUNDS, RATE_BOUNDS, Closed, DeviceKind, Figure, check
from ._lowering import KINDS, Lowered, Pattern, Rule, Treatment, apply_rule
from ._migrate import SCHEMA_VERSION, migrate


class ProfileError(InputError):
    """A hardware profile cannot be found or read, or its content is wrong."""


class HardwareProfile(Closed):
    """A device and a runtime on it.

    Rates and bandwidths are those of *one core* of a cpu; of a gpu, npu or mcu the rates are those of one core too (a
    streaming multiprocessor, a systolic array), and the bandwidths those of the whole device, whose cores always work
    together.

    rates_gmac_s          10⁹ multiply-accumulates a second, by number type: the peak, or, where the rate has no
                          `efficiency`, what good kernels reach
    efficiency            share of the peak that good kernels reach, by the same keys
    scaling               what each further core adds, as a share of the first
    bandwidth_gb_s        10⁹ bytes a second from main memory; `bandwidth_all_gb_s` is where more cores stop helping
    layer_overhead_us     what one kernel costs beside its work: launch, dispatch, threads, borders
    boundary_overhead_us  what a change of the number format between two layers costs: quantize, dequantize, layout
    channels_multiple     kernels work on channels in such multiples; others are padded
    alignment             layers whose channels should be multiples of a number, to which pruning rounds
    patterns              N:M sparsity that some rule turns into speed
    lowering              what runs for which layers; the first rule that fits decides, and the last must fit every one
    operators             a measured table, where somebody has measured one
    runtime_options       what the runtime's sessions are loaded with; options that are not named are the runtime's own
    cpu                   the name of the CPU on which the `measured` figures were, as its system has it; says whether
                          they are of another machine
    """

    schema_version: Literal[2]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    device: str = Field(min_length=1)
    kind: DeviceKind
    architecture: str = Field(min_length=1, description="as `platform.machine()` says it: x86_64, aarch64; else a name")
    isa: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="instruction sets that the figures assume")
    cores: int = Field(ge=1, description="cores that can work on one model together")
    numa_nodes: int = Field(default=1, ge=1)
    runtime: str = Field(min_length=1)
    note: str = ""
    runtime_options: dict[str, str | int | bool] = Field(
        default_factory=dict, description="options of the runtime's sessions; default: the runtime's own"
    )
    cpu: str = Field(default="", description="where figures were measured: the CPU's name, as /proc/cpuinfo has it")
    memory_bytes: Figure | None = Field(default=None, description="main memory (of a microcontroller: its RAM)")
    storage_bytes: Figure | None = Field(default=None, description="where the model lies, if that is not main memory")
    caches: Annotated[tuple[Cache, ...], Field(strict=False)] = ()
    rates_gmac_s: dict[str, Figure] = Field(min_length=1)
    efficiency: dict[str, Figure] = Field(default_factory=dict)
    scaling: Figure | None = None
    tile: Tile | None = None
    bandwidth_gb_s: Figure
    bandwidth_all_gb_s: Figure | None = None
    layer_overhead_us: Figure
    boundary_overhead_us: Figure | None = None
    channels_multiple: int = Field(default=1, ge=1)
    alignment: Annotated[tuple[Alignment, ...], Field(strict=False)] = ()
    patterns: Annotated[tuple[Pattern, ...], Field(strict=False)] = ()
    energy: Energy | None = None
    lowering: Annotated[tuple[Rule, ...], Field(min_length=1, strict=False)]
    operators: Annotated[tuple[Operator, ...], Field(strict=False)] = ()

    @field_validator("lowering")
    @classmethod
    def _last_fits_all(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if rules[-1].when.model_dump(exclude_none=True):
            raise ValueError("the last rule must fit every layer: leave out its `when`")
        return rules

    @model_validator(mode="after")
    def _keys_are_known(self) -> Self:
        known = ", ".join(self.rates_gmac_s)
        for index, rule in enumerate(self.lowering):
            if rule.runs_as.rate not in self.rates_gmac_s:
                raise ValueError(f"lowering[{index}] runs at the rate {rule.runs_as.rate!r}, and the rates are {known}")
            if strange := [p for p in rule.when.patterns or () if p not in self.patterns]:
                raise ValueError(
                    f"lowering[{index}] is about the pattern {strange[0]}, and patterns are "
                    f"{', '.join(self.patterns) or 'none'}; add it there"
                )
        for where, keys in (
            ("energy.pj_per_mac", self.energy.pj_per_mac if self.energy else ()),
            ("efficiency", self.efficiency),
        ):
            for rate in keys:
                if rate not in self.rates_gmac_s:
                    raise ValueError(f"{where} has {rate!r}, and the rates are {known}")
        if self.energy is not None and (missing := sorted(self._rates_in_use() - set(self.energy.pj_per_mac))):
            raise ValueError(f"energy.pj_per_mac lacks {missing[0]!r}, at which a rule of the lowering runs")
        levels = [cache.level for cache in self.caches]
        if levels != sorted(set(levels)):
            raise ValueError(f"caches must go from the nearest level outwards, each once; got {', '.join(levels)}")
        return self

    @field_validator("alignment")
    @classmethod
    def _are_whole(cls, alignment: tuple[Alignment, ...]) -> tuple[Alignment, ...]:
        for one in alignment:
            if one.channels.value % 1:
                raise ValueError(f"channels must be a whole number, got {one.channels.value:g}")
        return alignment

    @model_validator(mode="after")
    def _units_can_be(self) -> Self:
        for rate, figure in self.rates_gmac_s.items():
            check(
                f"rates_gmac_s.{rate} of one core of a {self.kind}", figure.value, RATE_BOUNDS[self.kind],
                "10⁹ multiply-accumulates a second, and not in operations",
            )  # fmt: skip
        for where, bound, value in self._bounded():
            low, high, unit = BOUNDS[bound]
            check(where, value, (low, high), unit)
        return self

    def _rates_in_use(self) -> set[str]:
        return {rule.runs_as.rate for rule in self.lowering}

    def _bounded(self) -> Iterator[tuple[str, str, float]]:
        """Yield (place, key of `BOUNDS`, value) of every figure except the rates."""
        for name in (
            "memory_bytes", "storage_bytes", "scaling", "bandwidth_gb_s", "bandwidth_all_gb_s", "layer_overhead_us",
            "boundary_overhead_us",
        ):  # fmt: skip
            if (figure := getattr(self, name)) is not None:
                yield name, name, figure.value
        for rate, figure in self.efficiency.items():
            yield f"efficiency.{rate}", "efficiency", figure.value
        for cache in self.caches:
            yield f"caches.{cache.level}.bytes", "caches.bytes", cache.bytes.value
            if cache.bandwidth_gb_s is not None:
                yield f"caches.{cache.level}.bandwidth_gb_s", "caches.bandwidth_gb_s", cache.bandwidth_gb_s.value
        if self.energy is not None:
            for key, figure in self.energy.pj_per_mac.items():
                yield f"energy.pj_per_mac.{key}", "energy.pj_per_mac", figure.value
            for level, figure in self.energy.pj_per_byte.items():
                yield f"energy.pj_per_byte.{level}", "energy.pj_per_byte", figure.value
            if self.energy.idle_w is not None:
                yield "energy.idle_w", "energy.idle_w", self.energy.idle_w.value
        for index, one in enumerate(self.alignment):
            yield f"alignment[{index}].channels", "alignment.channels", one.channels.value
        for index, operator in enumerate(self.operators):
            yield f"operators[{index}].ms", "operators.ms", operator.ms

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "the profile") -> HardwareProfile:
        """A profile from JSON of this schema version, or of an older one (see `migrate`).

        Raises `ProfileError` that names the key, the expected value and, for an unknown key, the nearest known one.
        """
        version = data.get("schema_version")
        if isinstance(version, bool) or version not in range(1, SCHEMA_VERSION + 1):
            raise ProfileError(
                f"{source}: schema_version: must be one of {', '.join(map(str, range(1, SCHEMA_VERSION + 1)))}, got "
                f"{version!r}; this paredown writes {SCHEMA_VERSION}"
            )
        try:
            return cls.model_validate(migrate(data))
        except ValidationError as error:
            raise ProfileError(f"{source}: {explain(error, cls)}") from error

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON-ready values, without the keys that were left out."""
        data = self.model_dump(mode="json", exclude_none=True)
        return {key: value for key, value in data.items() if value not in ({}, [], "") or key == "isa"}

    def save(self, path: Path | str) -> Path:
        """Write the profile as JSON, for `load_profile` to read; return the path."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @property
    def saturates(self) -> bool:
        """Tell whether integer kernels add products of unsigned by signed bytes in pairs, saturating at 16 bits.

        ONNX Runtime and OpenVINO do so (vpmaddubsw) on an x86-64 without VNNI. Weights of 7 bits cannot saturate:
        2 · 255 · 64 < 2¹⁵.
        """
        whole = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(self.isa)
        return self.runtime in ("onnxruntime", "openvino") and self.architecture == "x86_64" and not whole

    def lower(self, asked: Treatment) -> Lowered:
        """Kernel that the runtime uses for a layer with this treatment: the first rule that fits decides.

        Raises `ProfileError` for an unknown kind of layer. A treatment that no rule names falls to the last rule.
        """
        if asked.kind not in KINDS:
            raise ProfileError(f"a layer's kind must be one of {', '.join(KINDS)}, got {asked.kind!r}")
        index, rule = next((i, r) for i, r in enumerate(self.lowering) if r.when.fits(asked))
        return apply_rule(rule, asked, index=index)

    def alignment_of(self, kind: str, *, depthwise: bool = False) -> int:
        """Number that the channels of such a layer should be a multiple of; 1 where it does not matter."""
        wanted = [int(one.channels.value) for one in self.alignment if one.fits(kind, depthwise=depthwise)]
        return max(wanted, default=1)

    def rate_gmac_s(self, rate: str, *, threads: int = 1) -> float:
        """Speed in 10⁹ multiply-accumulates a second of `threads` cores of a cpu, or of all cores of another device."""
        reached = self.rates_gmac_s[rate].value * (self.efficiency[rate].value if rate in self.efficiency else 1.0)
        n = self.cores_used(threads)
        return reached * (1.0 + (n - 1) * (self.scaling.value if self.scaling else 1.0))

    def cores_used(self, threads: int) -> int:
        return min(threads, self.cores) if self.kind == "cpu" else self.cores

    def level_of(self, n_bytes: float, *, threads: int = 1) -> tuple[str, float]:
        """Nearest level that holds `n_bytes`, and its bandwidth in 10⁹ bytes a second for `threads` threads.

        Only levels with a bandwidth count. Data that fits in none of them comes from memory.
        """
        n = self.cores_used(threads)
        for cache in self.caches:
            held = cache.bytes.value * max(1, n // cache.shared_by)
            if cache.bandwidth_gb_s is not None and n_bytes <= held:
                return cache.level, cache.bandwidth_gb_s.value * (n if self.kind == "cpu" else 1)
        if self.kind != "cpu":
            return "memory", self.bandwidth_gb_s.value
        most = self.bandwidth_all_gb_s.value if self.bandwidth_all_gb_s else float("inf")
        return "memory", max(self.bandwidth_gb_s.value, min(self.bandwidth_gb_s.value * n, most))

    def pj_per_byte(self, level: str) -> float | None:
        """Picojoules to move a byte from this level, or from the next farther one with a figure; None without any."""
        if self.energy is None:
            return None
        levels = ("l1", "l2", "l3", "l4", "memory")
        known = self.energy.pj_per_byte
        outwards = [*levels[levels.index(level) :], *reversed(levels)]
        return next(known[name].value for name in outwards if name in known)
