"""Lowering rules of a profile from measured forms: those that run natively, and the substitutes of the others.

A form is believed to be fast only if every layer of its kind that was tried was faster in it than in FP32, beyond noise
and in other kernels; or every one from some width on, which the rule then says. The others: where they took longer than
FP32 in kernels of their own, they are costed as slow as they were; else as FP32, for they save nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._figures import KernelFigure, MachineFigures
from ._rates import CLASSES, LayerClass, rate_of

if TYPE_CHECKING:
    from ...hardware_profiles import HardwareProfile

_FLOAT: dict[str, Any] = {"weight_bits": 32, "activation_bits": 32, "low_rank": True}
_INT8: dict[str, Any] = {"weight_bits": 8, "activation_bits": 8, "low_rank": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One of the tried forms.

    when      which layers it stands for
    runs_as   the kernel's widths, where it runs as such
    kept      share of the products that are left
    exported  whether it is for these measurements to say when a layer reaches the runtime in this form. Weight-only
              integers do from the size on that the shipped profile says, which the exporters read
    """

    name: str
    when: Mapping[str, Any]
    runs_as: Mapping[str, Any]
    kept: float = 1.0
    exported: bool = True


_FORMS = (
    _Form(
        name="2:4", when={"activation_bits": [32], "weight_bits": [32], "patterns": ["2:4"], "low_rank": False},
        runs_as={**_FLOAT, "low_rank": False, "sparse": True}, kept=0.5,
    ),
    *(
        _Form(
            name=f"zeros{share}",
            when={
                "activation_bits": [32], "weight_bits": [32], "min_sparsity": share / 100, "low_rank": False
            },
            runs_as={**_FLOAT, "low_rank": False, "sparse": True}, kept=1 - share / 100,
        )
        for share in (90, 50)
    ),
    _Form(
        name="int8", when={
            "weight_bits": [2, 3, 4, 5, 6, 7, 8], "activation_bits": [8], "low_rank": False,
            "weight_formats": ["int"], "group_sizes": [0],
        },
        runs_as=_INT8,
    ),
    _Form(
        name="w4", when={"weight_bits": [4], "activation_bits": [32], "group_sizes": [32], "low_rank": False},
        runs_as={"weight_bits": 4, "activation_bits": 32, "low_rank": False}, exported=False,
    ),
)  # fmt: skip


def rules_of(figures: MachineFigures, base: HardwareProfile) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rules in their order, the rates that they need beside those of whole classes).

    Kinds that were not measured keep the rules of `base`; so does whatever no rule speaks of.
    """
    rules: list[dict[str, Any]] = []
    rates: dict[str, Any] = {}
    measured = [layers for layers in CLASSES if layers.of(figures.kernels, "fp32")]
    for layers in measured:
        plain = layers.of(figures.kernels, "fp32")
        kinds: dict[str, Any] = {"kinds": [layers.operator]}
        if _is_conv(layers):
            kinds["depthwise"] = layers.depthwise
        tried = [(form, found) for form in _FORMS if (found := layers.of(figures.kernels, form.name))]
        unruled: dict[bool, list[str]] = {True: [], False: []}
        for form, found in tried:
            of_form = _of_form(form, layers, kinds, found, plain, figures, rates) if form.exported else []
            rules += of_form
            if not of_form:
                unruled[form.exported].append(f"{form.name} ({_speeds(found)} as fast)")
        note = "measured" + "".join(
            f"; {what}: {', '.join(unruled[exported])}"
            for exported, what in ((True, "no gain to count on"), (False, "exported by the shipped rules"))
            if unruled[exported]
        )
        runs_as = {**_FLOAT, "kernel": _most_common(plain), "rate": f"fp32{layers.suffix}"}
        rules.append({"when": kinds, "runs_as": runs_as, "note": note})
    whole = {each.operator for each in measured if all(c in measured for c in CLASSES if c.operator == each.operator)}
    return [*_of_exporters(base), *rules, *_others(base, whole)], rates


def _of_form(
    form: _Form,
    layers: LayerClass,
    kinds: Mapping[str, Any],
    tried: Sequence[KernelFigure],
    plain: Sequence[KernelFigure],
    figures: MachineFigures,
    rates: dict[str, Any],
) -> list[dict[str, Any]]:
    """Rule of one form; None for a form that nothing runs natively, unless it is INT8, which every space has."""
    kernel_us = figures.overhead_us["kernel"].value
    dense = {k.shape: k.kernel for k in plain}
    width, wide, rest = _split(tried, dense, by_width=not layers.depthwise)
    when, key = {**kinds, **form.when}, f"{_key(form)}{layers.suffix}"
    rules: list[dict[str, Any]] = []

    def add(kernels: Sequence[KernelFigure], said: str, **changes: Any) -> None:
        to = {**form.runs_as, "kernel": _most_common(kernels), "rate": key}
        note = f"measured: {_speeds(kernels)} as fast as FP32{said}"
        rules.append({"when": when, "runs_as": to, "note": note} | changes)

    if wide:
        add(wide, "", when={**when, **({"min_channels": width} if width else {})})
        _note_rate(rates, key, wide, kernel_us, form)
    own = [k for k in rest if k.kernel != dense.get(k.shape) and k.verdict == "slower"]
    if len(own) > len(rest) / 2:
        key = f"{key}_slow" if wide else key
        add(own, ", and run in kernels of their own all the same")
        _note_rate(rates, key, own, kernel_us, form)
    elif rest and form.name == "int8":
        runs_as = {**_FLOAT, "low_rank": False, "kernel": _most_common(plain), "rate": f"fp32{layers.suffix}"}
        add(rest, ", no gain to count on: costed as FP32", runs_as=runs_as)
    return rules


def _split(
    tried: Sequence[KernelFigure], dense: Mapping[str, str], *, by_width: bool
) -> tuple[int | None, list[KernelFigure], list[KernelFigure]]:
    """(least width, layers that are fast from it on, the rest); without a width, either all are fast or none counts as
    fast.
    """

    def is_fast(kernel: KernelFigure) -> bool:
        return kernel.verdict == "faster" and kernel.kernel != dense.get(kernel.shape)

    if all(map(is_fast, tried)):
        return None, list(tried), []
    if by_width:
        for width in sorted({min(k.channels) for k in tried}):
            wide = [k for k in tried if min(k.channels) >= width]
            if all(map(is_fast, wide)):
                return width, wide, [k for k in tried if min(k.channels) < width]
    return None, [], list(tried)


def _note_rate(rates: dict[str, Any], key: str, kernels: Sequence[KernelFigure], kernel_us: float, form: _Form) -> None:
    if (rate := rate_of(kernels, kernel_us, kept=form.kept)) is not None:
        left = "" if form.kept == 1.0 else ", of the products that are left"
        rates[key] = {
            "value": rate.gmac_s, "kind": "measured", "date": kernels[0].date,
            "source": f"{kernels[0].source}: median of {rate.n} layers in {form.name} ({rate.low:.3g} to "
            f"{rate.high:.3g}){left}, on one pinned core",
        }  # fmt: skip


def _of_exporters(base: HardwareProfile) -> list[dict[str, Any]]:
    """Rules of the base for the exporters: weight-only integers, and ranges found at run time."""
    found = [rule for rule in base.lowering if rule.when.blocks is not None or rule.when.dynamic]
    return [rule.model_dump(mode="json", exclude_none=True) for rule in found]


def _others(base: HardwareProfile, kinds: set[str]) -> list[dict[str, Any]]:
    """Rules of the base about other kinds; the one that fits all stays last."""
    kept = []
    theirs = _of_exporters(base)
    for rule in (rule.model_dump(mode="json", exclude_none=True) for rule in base.lowering):
        if rule in theirs:
            continue
        named = rule["when"].get("kinds")
        if named is not None:
            left = [kind for kind in named if kind not in kinds]
            if not left:
                continue
            rule["when"]["kinds"] = left
        kept.append(rule)
    return kept


def _is_conv(layers: LayerClass) -> bool:
    return layers.operator.startswith("conv")


def _key(form: _Form) -> str:
    return {"2:4": "fp32_2:4"}.get(form.name, f"fp32_{form.name}" if form.name.startswith("zeros") else form.name)


def _speeds(kernels: Sequence[KernelFigure]) -> str:
    found = sorted(k.speedup for k in kernels if k.speedup is not None)
    return f"{found[0]:.2f} times" if len(found) == 1 else f"{found[0]:.2f} to {found[-1]:.2f} times"


def _most_common(kernels: Sequence[KernelFigure]) -> str:
    return Counter(k.kernel for k in kernels).most_common(1)[0][0] or "not named by the runtime"
