"""Profiles: those that come with the package, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paredown import compressors
from paredown.errors import InputError
from paredown.hardware_profiles import (
    KINDS,
    HardwareProfile,
    Lowered,
    ProfileError,
    Treatment,
    list_profiles,
    load_profile,
    schema,
)
from paredown.hardware_profiles._lowering import block_of

ORT = "x86-64-onnxruntime"


def _data() -> dict[str, Any]:
    return load_profile(ORT).to_dict()


def test_those_that_the_first_version_had_are_still_there() -> None:
    assert {ORT, "x86-64-openvino", "x86-64-torch"} <= set(list_profiles())
    assert len(list_profiles()) >= 14


@pytest.mark.parametrize("name", list_profiles())
def test_each_is_what_its_file_is_named_and_round_trips(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    assert profile.name == name
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(profile.to_dict()))
    assert load_profile(path) == load_profile(str(path)) == profile


@pytest.mark.parametrize("name", list_profiles())
def test_none_claims_to_have_been_measured(name: str) -> None:
    """A measured profile is of one machine, and is made there."""
    profile = load_profile(name)
    figures = [*_figures(profile.model_dump())]
    assert "measured" not in {figure["kind"] for figure in figures}
    assert all(figure["source"].startswith("estimate") for figure in figures if figure["kind"] == "modelled")
    assert "Rough" in profile.note
    assert not profile.operators


def _figures(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and {"value", "source", "date"} <= set(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _figures(part)


@pytest.mark.parametrize("name", list_profiles())
@pytest.mark.parametrize("kind", KINDS)
def test_the_original_runs_as_it_is(name: str, kind: str) -> None:
    lowered = load_profile(name).lower(Treatment(kind=kind))
    assert (lowered.weight_bits, lowered.activation_bits) == (32, 32)
    assert lowered.rate in ("fp32", "tf32", "host_fp32")
    assert lowered.native


@pytest.mark.parametrize("name", [ORT, "x86-64-openvino"])
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_what_a_runtime_makes_of_a_layer(name: str, kind: str) -> None:
    lower = load_profile(name).lower
    whole = lower(Treatment(kind=kind, weight_bits=8, activation_bits=8))
    assert (whole.weight_bits, whole.activation_bits, whole.rate, whole.native) == (8, 8, "int8", True)
    for narrow in (2, 3, 4, 5, 6, 7):
        widened = lower(Treatment(kind=kind, weight_bits=narrow, activation_bits=8))
        assert (widened.weight_bits, widened.rate, widened.native) == (8, "int8", False)
        weight_only = lower(Treatment(kind=kind, weight_bits=narrow))
        assert (weight_only.weight_bits, weight_only.rate, weight_only.native) == (32, "fp32", False)
    sparse = lower(Treatment(kind=kind, weight_bits=8, activation_bits=8, sparsity=0.5))
    assert (sparse.sparse, sparse.native, sparse.rate) == (False, False, "int8")
    factors = lower(Treatment(kind=kind, rank=0.5))
    assert (factors.low_rank, factors.native, factors.rate) == (True, True, "fp32")
    narrow_factors = lower(Treatment(kind=kind, rank=0.5, weight_bits=8, activation_bits=8))
    assert (narrow_factors.weight_bits, narrow_factors.rate, narrow_factors.native) == (32, "fp32", False)


def test_weight_only_integers_run_as_such_from_a_size_on_where_blocks_fit() -> None:
    lower = load_profile("x86-64-openvino").lower
    wide = {"weight_bits": 4, "channels": (512, 256), "n_weights": 131_072}
    assert lower(Treatment(kind="linear", **wide)).native
    assert lower(Treatment(kind="linear", **wide | {"weight_bits": 5})).weight_bits == 8
    assert lower(Treatment(kind="linear", **wide, group_size=48)).native  # blocks of 16
    assert lower(Treatment(kind="linear", **wide, group_size=40)).weight_bits == 32
    assert lower(Treatment(kind="linear", **wide | {"n_weights": 131_071})).weight_bits == 32
    assert lower(Treatment(kind="linear", **wide | {"n_weights": None})).weight_bits == 32
    assert lower(Treatment(kind="linear", **wide | {"channels": None})).weight_bits == 32
    assert lower(Treatment(kind="conv2d", **wide)).weight_bits == 32
    assert load_profile(ORT).lower(Treatment(kind="linear", **wide | {"weight_bits": 5})).weight_bits == 32


def test_blocks_by_hand() -> None:
    blocks = (16, 32, 64, 128)
    assert [block_of(blocks, 0, n, whole=False) for n in (256, 96, 48, 100)] == [128, 32, 16, 32]
    assert [block_of(blocks, 0, n, whole=True) for n in (256, 96, 48, 100)] == [128, 32, 16, None]
    assert [block_of(blocks, group, 200, whole=False) for group in (64, 48, 24, 200, 512)] == [64, 16, None, 32, 32]
    assert [block_of(blocks, group, 200, whole=True) for group in (64, 40, 8)] == [None, None, None]


@pytest.mark.parametrize("name", list_profiles())
def test_an_embedding_runs_in_fp32(name: str) -> None:
    lowered = load_profile(name).lower(Treatment(kind="embedding", weight_bits=4, activation_bits=8))
    assert (lowered.weight_bits, lowered.native) == (32, False)


@pytest.mark.parametrize("kind", KINDS)
def test_eager_pytorch_runs_everything_dense_in_fp32(kind: str) -> None:
    lowered = load_profile("x86-64-torch").lower(
        Treatment(kind=kind, weight_bits=8, activation_bits=8, sparsity=0.5, rank=0.5)
    )
    assert lowered == Lowered(
        weight_bits=32,
        activation_bits=32,
        sparse=False,
        low_rank=False,
        kernel=lowered.kernel,
        rate="fp32",
        native=False,
        note=lowered.note,
        rule=lowered.rule,
    )


def test_the_first_rule_that_fits_decides() -> None:
    data = _data()
    data["lowering"].insert(
        0,
        {
            "when": {"kinds": ["linear"], "sparse": True},
            "runs_as": {
                "weight_bits": 32,
                "activation_bits": 32,
                "sparse": True,
                "low_rank": False,
                "kernel": "SpMM",
                "rate": "fp32",
            },
        },
    )
    profile = HardwareProfile.from_dict(data)
    assert profile.lower(Treatment(kind="linear", sparsity=0.5)).kernel == "SpMM"
    assert profile.lower(Treatment(kind="linear", sparsity=0.5)).native
    assert profile.lower(Treatment(kind="linear")).kernel != "SpMM"
    assert profile.lower(Treatment(kind="conv2d", sparsity=0.5)).kernel != "SpMM"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"must be one of linear, conv1d, .*, got 'lstn'"):
        load_profile(ORT).lower(Treatment(kind="lstn"))


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        here: Any = data
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = to

    return change


def _without(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        here: Any = data
        for part in path[:-1]:
            here = here[part]
        del here[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("bandwith_gb_s", to=1), r"unknown key 'bandwith_gb_s'; did you mean 'bandwidth_gb_s'\?"),
        (_set("zzz", to=1), "unknown key 'zzz'; known are schema_version, name"),
        (_set("lowering", 0, "when", "kind", to=[]), r"unknown key 'lowering\[0\].when.kind'; did you mean 'kinds'"),
        (_set("rates_gmac_s", "fp32", "unit", to="GHz"), "unknown key 'rates_gmac_s.fp32.unit'"),
        (
            _set("rates_gmac_s", "fp32", "value", to=0),
            r"rates_gmac_s.fp32.value: input should be greater than 0, got 0",
        ),
        (_set("layer_overhead_us", "value", to=-1.0), "layer_overhead_us.value: .* got -1.0"),
        (_set("bandwidth_gb_s", "value", to=float("inf")), "bandwidth_gb_s.value: .* finite"),
        (_set("bandwidth_gb_s", "value", to="12"), "bandwidth_gb_s.value: .* got '12'"),
        (_without("bandwidth_gb_s", "source"), "the key 'bandwidth_gb_s.source' is missing"),
        (_set("bandwidth_gb_s", "source", to=""), "bandwidth_gb_s.source: "),
        (_set("bandwidth_gb_s", "date", to="yesterday"), "bandwidth_gb_s.date: .* got 'yesterday'"),
        (_set("schema_version", to=3), "schema_version: must be one of 1, 2, got 3; this paredown writes 2"),
        (_set("schema_version", to=True), "schema_version: must be one of 1, 2, got True"),
        (_without("schema_version"), "schema_version: must be one of 1, 2, got None"),
        (_set("kind", to="fpga"), "kind: .* got 'fpga'"),
        (
            _set("rates_gmac_s", "int8", "value", to=5e7),
            r"rates_gmac_s.int8 of one core of a cpu: 5e\+07 cannot be: it must be at most 20000; is it really in 10⁹",
        ),
        (
            _set("layer_overhead_us", "value", to=1e-9),
            "layer_overhead_us: 1e-09 cannot be: it must be at least 0.001; is it really in microseconds",
        ),
        (_set("bandwidth_gb_s", "value", to=12e9), r"bandwidth_gb_s: 1.2e\+10 cannot be"),
        (_set("scaling", "value", to=16.0), "scaling: 16 cannot be: it must be at most 1"),
        (_set("caches", 0, "bytes", "value", to=0.5), "caches.l1.bytes: 0.5 cannot be: .* bytes"),
        (_set("energy", "pj_per_mac", "fp32", "value", to=1e9), "energy.pj_per_mac.fp32: .* picojoules"),
        (
            _set("caches", 0, "level", to="l3"),
            "caches must go from the nearest level outwards, each once; got l3, l2, l3",
        ),
        (_without("energy", "pj_per_mac", "int8"), "energy.pj_per_mac lacks 'int8', at which a rule"),
        (
            _set("lowering", 0, "when", "patterns", to=["2:4"]),
            r"lowering\[0\] is about the pattern 2:4, and patterns are none",
        ),
        (_set("lowering", 0, "when", "patterns", to=["half"]), r"lowering.*patterns.* got 'half'"),
        (_set("cores", to=0), "cores: .* got 0"),
        (_set("name", to="../x"), "name: .* got '../x'"),
        (_set("lowering", to=[]), "lowering: "),
        (_set("lowering", 0, "when", "kinds", to=["conv4d"]), "lowering.0..when.kinds.0.: .* got 'conv4d'"),
        (
            _set("lowering", 0, "runs_as", "rate", to="int4"),
            r"lowering\[0\] runs at the rate 'int4', and the rates are",
        ),
        (_set("lowering", -1, "when", to={"kinds": ["linear"]}), "the last rule must fit every layer"),
        (
            _set(
                "energy",
                to={
                    "pj_per_mac": {"int2": {"value": 1, "kind": "modelled", "source": "x", "date": "2026-01-01"}},
                    "pj_per_byte": {"l1": {"value": 1, "kind": "modelled", "source": "x", "date": "2026-01-01"}},
                },
            ),
            "energy.pj_per_mac has 'int2'",
        ),
    ],
)
def test_what_is_no_profile_is_refused(change: Callable[[dict[str, Any]], None], message: str) -> None:
    data = _data()
    change(data)
    with pytest.raises(ProfileError, match=message) as raised:
        HardwareProfile.from_dict(data)
    assert isinstance(raised.value, InputError)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_none_gets_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"named 'x86-64-onxruntime'; did you mean 'x86-64-onnxruntime'\? known are"):
        load_profile("x86-64-onxruntime")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "name": "a",\n  oops\n}', "is no JSON: line 3"),
        ("[1, 2]", "must be a JSON object, got list"),
        ('{"name": "a", "name": "b"}', "has the key 'name' twice"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError, match=message) as raised:
        load_profile(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot read the hardware profile .*none.json: No such file"):
        load_profile(tmp_path / "none.json")


def test_the_schema_is_closed_and_describes_itself() -> None:
    described = schema()
    assert described["additionalProperties"] is False
    assert {"schema_version", "rates_gmac_s", "lowering"} <= set(described["required"])
    assert described == json.loads(json.dumps(described))


def test_the_kinds_are_those_of_the_compressors() -> None:
    """The two folders know nothing of each other, so each has its list."""
    assert set(compressors.KINDS) <= set(KINDS)
