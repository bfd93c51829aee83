"""MACs, BOPs and modelled latency, by hand-computed cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import Anatomy, LayerInfo, LayerSpec
from paredown.errors import ConfigError
from paredown.evaluators import bops, macs, modelled_latency_ms
from paredown.hardware_profiles import HardwareProfile, load_profile

CONV = LayerInfo(
    fqn="conv",
    kind="conv2d",
    weight_shape=(16, 8, 3, 3),
    macs=16 * 8 * 9 * 25,
    input_shape=(8, 5, 5),
    output_shape=(16, 5, 5),
)
DEPTHWISE = LayerInfo(
    fqn="depthwise",
    kind="conv2d",
    weight_shape=(16, 1, 3, 3),
    groups=16,
    macs=16 * 9 * 25,
    input_shape=(16, 5, 5),
    output_shape=(16, 5, 5),
)
SHARED = LayerInfo(
    fqn="fc", kind="linear", weight_shape=(10, 40), n_calls=2, macs=800, input_shape=(40,), output_shape=(10,)
)
TABLE = LayerInfo(fqn="table", kind="embedding", weight_shape=(1000, 4), macs=0, input_shape=(7,), output_shape=(7, 4))
ANATOMY = Anatomy(layers=(TABLE, CONV, DEPTHWISE, SHARED), unused=("spare",))


def test_the_original_is_what_the_anatomy_says() -> None:
    cost = macs(ANATOMY)
    assert dict(cost.layers) == {"table": 0, "conv": 28_800, "depthwise": 3_600, "fc": 800}
    assert cost.total == ANATOMY.macs
    measurement = cost.measurement()
    assert (measurement.value, measurement.unit, measurement.low, measurement.high) == (33_200.0, "MAC", None, None)


def test_bits_and_zeros_change_no_macs() -> None:
    spec = LayerSpec(weight_bits=4, activation_bits=8, sparsity=0.9)
    assert macs(ANATOMY, dict.fromkeys(ANATOMY.fqns, spec)) == macs(ANATOMY)


def test_low_rank_changes_macs() -> None:
    cost = macs(ANATOMY, {"conv": LayerSpec(rank=0.25), "fc": LayerSpec(rank=0.5)})
    assert cost.layers["conv"] == 25 * 4 * (72 + 16)  # rank 4 of 16, at 25 positions
    assert cost.layers["fc"] == 2 * 5 * (40 + 10)  # rank 5 of 10, twice
    assert cost.layers["depthwise"] == 3_600


def test_bops_by_hand() -> None:
    assert bops(ANATOMY).total == 33_200 * 1024
    cost = bops(
        ANATOMY,
        {
            "depthwise": LayerSpec(weight_bits=4, activation_bits=8),
            "fc": LayerSpec(weight_bits=3),
            "conv": LayerSpec(weight_bits=8, activation_bits=8, rank=0.25),
        },
    )
    assert cost.layers["depthwise"] == 3_600 * 4 * 8
    assert cost.layers["fc"] == 800 * 3 * 32
    assert cost.layers["conv"] == 25 * 4 * 8 * (72 * 8 + 16 * 32)  # what the first product makes stays in FP32
    assert cost.layers["table"] == 0
    assert cost.unit == "BOP"


def test_a_layer_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="names layer9, which this model has not; its layers are table, conv"):
        macs(ANATOMY, {"layer9": LayerSpec()})
    with pytest.raises(ConfigError, match="layer9"):
        modelled_latency_ms(ANATOMY, {"layer9": LayerSpec()}, _profile())
    assert macs(ANATOMY, {"spare": LayerSpec()}).total == 33_200


@given(
    out=st.integers(1, 64),
    inner=st.integers(1, 64),
    positions=st.integers(1, 100),
    rank=st.floats(0.01, 0.99),
    bits=st.sampled_from([2, 4, 8, 32]),
)
def test_a_smaller_rank_never_costs_more(out: int, inner: int, positions: int, rank: float, bits: int) -> None:
    layer = LayerInfo(fqn="fc", kind="linear", weight_shape=(out, inner), macs=out * inner * positions)
    anatomy = Anatomy(layers=(layer,))
    whole, half = ({"fc": LayerSpec(rank=share, weight_bits=bits)} for share in (rank, rank / 2))
    assert macs(anatomy, half).total <= macs(anatomy, whole).total
    assert macs(anatomy, whole).total % positions == 0
    assert bops(anatomy, half).total <= bops(anatomy, whole).total


def _profile(**changes: object) -> HardwareProfile:
    """Round figures: 1 GMAC/s in FP32 and 4 in INT8, 1 GB/s, 10 µs a kernel."""

    def figure(value: float) -> dict[str, object]:
        return {"value": value, "kind": "modelled", "source": "a test", "date": "2026-01-01"}

    return HardwareProfile.from_dict(
        {
            "schema_version": 1,
            "name": "round",
            "device": "none",
            "isa": [],
            "cores": 1,
            "runtime": "none",
            "rates_gmac_s": {"fp32": figure(1.0), "int8": figure(4.0)},
            "bandwidth_gb_s": figure(1.0),
            "layer_overhead_us": figure(10.0),
            "lowering": [
                {
                    "when": {"weight_bits": [4, 8], "activation_bits": [8], "low_rank": False},
                    "runs_as": {
                        "weight_bits": 8,
                        "activation_bits": 8,
                        "sparse": True,
                        "low_rank": False,
                        "kernel": "int8",
                        "rate": "int8",
                    },
                },
                {
                    "runs_as": {
                        "weight_bits": 32,
                        "activation_bits": 32,
                        "low_rank": True,
                        "kernel": "float",
                        "rate": "fp32",
                    }
                },
            ],
            **changes,
        }
    )


def test_the_roofline_by_hand() -> None:
    latency = modelled_latency_ms(ANATOMY, {}, _profile())
    assert latency.layers["conv"] == pytest.approx(28_800e-6 + 0.01)  # arithmetic: 28.8 µs
    assert latency.layers["depthwise"] == pytest.approx(
        (144 * 4 + 400 * 4 + 400 * 4) * 1e-6 + 0.01
    )  # traffic: 3.776 µs
    assert latency.layers["fc"] == pytest.approx(2 * (400 * 4 + 40 * 4 + 10 * 4) * 1e-6 + 2 * 0.01)  # twice
    assert latency.layers["table"] == pytest.approx(2 * 28 * 4 * 1e-6 + 0.01)  # the rows that are looked up
    assert latency.total_ms == pytest.approx(sum(latency.layers.values()))
    measurement = latency.measurement()
    assert (measurement.source, measurement.unit, measurement.low) == ("modelled", "ms", None)


def test_what_does_not_run_saves_nothing() -> None:
    profile = _profile()
    weight_only = modelled_latency_ms(ANATOMY, {"conv": LayerSpec(weight_bits=2, sparsity=0.9)}, profile)
    assert weight_only.layers == modelled_latency_ms(ANATOMY, None, profile).layers
    four, eight = (
        modelled_latency_ms(ANATOMY, {"conv": LayerSpec(weight_bits=bits, activation_bits=8)}, profile)
        for bits in (4, 8)
    )
    assert four.layers == eight.layers
    assert four.layers["conv"] == pytest.approx(28_800e-6 / 4 + 0.01)
    assert (four.lowered["conv"].native, eight.lowered["conv"].native) == (False, True)


def test_zeros_and_factors_are_costed_where_they_run() -> None:
    sparse = modelled_latency_ms(
        ANATOMY, {"conv": LayerSpec(weight_bits=8, activation_bits=8, sparsity=0.25)}, _profile()
    )
    assert sparse.layers["conv"] == pytest.approx(0.75 * 28_800e-6 / 4 + 0.01)
    factors = modelled_latency_ms(ANATOMY, {"conv": LayerSpec(rank=0.25)}, _profile())
    assert factors.layers["conv"] == pytest.approx(8_800e-6 + 2 * 0.01)  # two kernels


def test_eager_pytorch_gains_no_time_from_anything() -> None:
    profile = load_profile("x86-64-torch")
    spec = LayerSpec(weight_bits=4, activation_bits=8, sparsity=0.5, rank=0.5)
    changed = modelled_latency_ms(ANATOMY, {"conv": spec, "fc": spec}, profile)
    assert changed.layers == modelled_latency_ms(ANATOMY, {}, profile).layers
