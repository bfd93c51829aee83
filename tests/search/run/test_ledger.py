"""Whatever a kill leaves behind, every acknowledged record is there again, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import InputError, IntegrityError
from paredown.search.run import Ledger, decode, encode, read, write_atomic

RECORDS = [{"type": "trial", "number": n, "text": "ünïcode\nnewline"} for n in range(3)]


def _written(path: Path) -> bytes:
    with Ledger(path) as ledger:
        for record in RECORDS:
            ledger.append(record)
    return path.read_bytes()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    _written(tmp_path / "l.log")
    with Ledger(tmp_path / "l.log") as ledger:
        assert ledger.records == RECORDS


@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_cut_off_and_the_rest_stays(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "l.log"
    whole = _written(path)
    last = len(encode(RECORDS[-1]))
    path.write_bytes(whole[: -min(cut, last)])
    with Ledger(path) as ledger:
        assert ledger.records == RECORDS[:2]
        ledger.append({"type": "after"})
    with Ledger(path) as ledger:
        assert ledger.records == [*RECORDS[:2], {"type": "after"}]


def test_a_tail_of_zeros_is_a_torn_line_too(tmp_path: Path) -> None:
    path = tmp_path / "l.log"
    path.write_bytes(_written(path) + b"\0" * 512)
    with Ledger(path) as ledger:
        assert ledger.records == RECORDS


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_never_taken_for_a_record(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "l.log"
    data = bytearray(_written(path))
    position %= len(data)
    data[position] ^= flip
    path.write_bytes(bytes(data))
    records: list[object] = []
    with contextlib.suppress(IntegrityError):  # refusing the file is the other right answer
        records, _ = read(path)
    assert len(records) < len(RECORDS)
    assert records == RECORDS[: len(records)]


def test_damage_in_the_middle_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "l.log"
    lines = _written(path).split(b"\n")
    lines[1] = lines[1].replace(b'"number":1', b'"number":9')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(IntegrityError, match=r"line 2 of .*l\.log does not match its checksum"):
        Ledger(path)


def test_two_drivers_cannot_share_a_run(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.log"), pytest.raises(InputError, match="in use by another paredown process"):
        Ledger(tmp_path / "l.log")


def test_decode_refuses_a_line_of_another_length() -> None:
    line = encode({"a": 1})[:-1]
    assert decode(line) == {"a": 1}
    assert decode(line + b" ") is None
    assert decode(line[:-1]) is None
    assert decode(b"not a record") is None


def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        encode({"value": float("nan")})


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from paredown.search.run._ledger import Ledger
with Ledger(Path(sys.argv[2])) as ledger:
    for n in range(len(ledger.records), 10**9):
        ledger.append({"n": n, "padding": "x" * 300})
        print(n, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, repository: Path) -> None:
    """The writer prints a number only after `append` returned; after each kill all printed numbers must be there."""
    path = tmp_path / "l.log"
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, str(repository / "src"), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = -1
            for line in writer.stdout:
                acknowledged = int(line)
                if acknowledged % 40 == 39:
                    os.kill(writer.pid, signal.SIGKILL)
                    break
        records, _ = read(path)
        numbers = [record["n"] for record in records]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged


def test_write_atomic_leaves_no_half(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    write_atomic(path, json.dumps({"old": 1}))
    write_atomic(path, json.dumps({"new": 2}))
    assert json.loads(path.read_text()) == {"new": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["front.json"]
