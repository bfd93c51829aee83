"""`paredown resolve`: what it hands on, prints and writes. The solving is faked."""

import json
from dataclasses import replace

import pytest

from paredown.cli import main
from paredown.errors import LimitsNotMet
from paredown.evaluators import Measurement
from paredown.search import Candidate, Resolution
from paredown.search.resolution import Evaluated, Resolved, Trust


def predicted(value, low, high, unit=""):
    return Measurement(value=value, low=low, high=high, unit=unit, source="predicted", split="search", n=60)


def point(n_bytes=12_345.0, **changes):
    given = Resolved(
        candidate=Candidate(levels=(1, 2)),
        config={"schema_version": 1, "layers": {"conv1": {"weight_bits": 4}}},
        metrics={
            "divergence": predicted(0.0123, 0.01, 0.015, "nats"),
            "accuracy": predicted(0.9144, 0.905, 0.92, "fraction"),
            "bytes": Measurement(value=n_bytes, unit="B"),
            "macs": Measurement(value=1e6, unit="MAC"),
            "latency_ms": Measurement(value=0.25, unit="ms", source="modelled"),
        },
        gap=0.00004,
        status="optimal",
        seconds=0.02,
        evaluated=None,
    )
    return replace(given, **changes)


EVALUATED = Evaluated(
    candidate=Candidate(levels=(1, 1)),
    id="t17",
    kind="uniform",
    metrics={
        "divergence": Measurement(value=0.0456, low=0.04, high=0.05, unit="nats", split="search"),
        "accuracy": Measurement(value=0.9011, unit="fraction", split="search"),
        "bytes": Measurement(value=11_000.0, unit="B"),
    },
)


@pytest.fixture
def resolved(monkeypatch, tmp_path):
    """Calls of the faked `resolve`, and what it gives: `.result`, an exception or a `Resolution`."""

    class Calls(list):
        result = Resolution(
            run=tmp_path,
            points=(point(),),
            evaluated=(EVALUATED,),
            limits={"bytes": (None, 12_500.0)},
            minimised="divergence",
            profile="x86-64-torch",
            trust={
                "divergence": Trust(n=60, error=0.1823, rank=0.991, share=0.98),
                "accuracy": Trust(n=60, error=0.0123, rank=0.5, share=0.7),
            },
            notes=("3 rows are estimates",),
        )

    calls = Calls()

    def fake(run, **options):
        calls.append({"run": run, **options})
        if isinstance(calls.result, Exception):
            raise calls.result
        return calls.result

    monkeypatch.setattr("paredown.search.resolve", fake)
    return calls


def test_everything_is_handed_on(resolved, tmp_path):
    arguments = ["--limit", "bytes<=25%", "--limit", "latency_ms<=0.5", "--profile", "p.json", "--sweep", "bytes"]
    assert main(["resolve", str(tmp_path), *arguments, "--points", "7"]) == 0
    assert resolved == [
        {
            "run": tmp_path,
            "limits": ["bytes<=25%", "latency_ms<=0.5"],
            "profile": "p.json",
            "sweep": "bytes",
            "points": 7,
        }
    ]


def test_without_limits_none_are_handed_on(resolved, tmp_path):
    assert main(["resolve", str(tmp_path)]) == 0
    assert resolved[0]["limits"] is None


def test_for_people(resolved, tmp_path, capsys):
    assert main(["resolve", str(tmp_path), "--limit", "bytes<=12500"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    (predicted,) = [line for line in lines if "predicted" in line]
    (evaluated,) = [line for line in lines if "t17" in line]
    for part in ("0.01230 nats [0.0100, 0.0150]", "91.44 % [90.50, 92.00]", "12.3 kB", "0.250 ms", "0.004 %"):
        assert part in predicted
    for part in ("t17 uniform, evaluated", "0.04560 nats [0.0400, 0.0500]", "90.11 %", "11.0 kB"):
        assert part in evaluated
    assert "macs" not in captured.out
    for part in (
        "least divergence within bytes ≤ 12.5 kB; device: x86-64-torch",
        "on 60 held-out trials the prediction missed the divergence by a factor of 1.20 (rank correlation 0.99)",
        "the accuracy by 1.23 %",
        "3 rows are estimates",
    ):
        assert part in captured.err


def test_what_else_there_is_to_say(resolved, tmp_path, capsys):
    resolved.result = replace(
        resolved.result, points=(point(evaluated="t5", status="time"),), evaluated=(None,), trust={}, limits={}
    )
    assert main(["resolve", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    for part in ("evaluated: t5", "no evaluated trial", "ran out of time", "the sensitivity table alone"):
        assert part in err


def test_a_sweep_has_a_row_for_each_budget(resolved, tmp_path, capsys):
    points = (point(n_bytes=10_000.0), point(n_bytes=20_000.0, evaluated="t9"))
    resolved.result = replace(resolved.result, points=points, evaluated=(None, EVALUATED))
    assert main(["resolve", str(tmp_path), "--sweep", "bytes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (first,) = [line for line in lines if "10.0 kB" in line]
    (second,) = [line for line in lines if "20.0 kB" in line]
    assert "predicted" in first
    assert "t9, evaluated" in second
    assert "t17: 0.04560 nats" in second


def test_for_programs(resolved, tmp_path, capsys):
    assert main(["resolve", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == resolved.result.to_dict()
    assert data["points"][0]["best_evaluated"]["id"] == "t17"
    assert data["limits"] == {"bytes": {"min": None, "max": 12_500.0}}
    assert data["trust"]["accuracy"] == {"n": 60, "error": 0.0123, "rank": 0.5, "share": 0.7}


def test_out_is_a_config(resolved, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["resolve", str(tmp_path), "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == point().config
    assert f"paredown apply {out} --task" in capsys.readouterr().err


def test_out_and_sweep_exclude_each_other(resolved, tmp_path, capsys):
    assert main(["resolve", str(tmp_path), "--sweep", "bytes", "--out", "x.json"]) == 2
    assert "--out writes one config" in capsys.readouterr().err
    assert resolved == []


def test_out_of_reach_is_exit_3(resolved, tmp_path, capsys):
    resolved.result = LimitsNotMet("bytes <= 10 is out of reach: the least that this space allows is 99")
    assert main(["resolve", str(tmp_path), "--limit", "bytes<=10"]) == 3
    assert "the least that this space allows is 99" in capsys.readouterr().err
