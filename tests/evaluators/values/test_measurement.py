"""A measurement is kept and read back whole."""

from __future__ import annotations

import json

import pytest

from paredown.evaluators import Measurement


def test_it_round_trips_as_json() -> None:
    measurement = Measurement(
        value=0.91, unit="fraction", low=0.9, high=0.92, split="report", n=3, samples=(1.0, 0.0, 1.0)
    )
    assert Measurement.from_dict(json.loads(json.dumps(measurement.to_dict()))) == measurement
    assert "samples" not in measurement.to_dict(samples=False)


def test_unknown_keys_and_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown key 'valeu' in a measurement"):
        Measurement.from_dict({"valeu": 1.0})
    with pytest.raises(ValueError, match="source must be one of measured, predicted, modelled, got 'guessed'"):
        Measurement.from_dict({"value": 1.0, "source": "guessed"})


def test_not_every_value_is_finite() -> None:
    assert Measurement(value=1.0).is_finite
    assert not Measurement(value=float("nan")).is_finite
