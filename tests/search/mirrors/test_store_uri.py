"""Addresses of SQLite files: whatever the path is called, the file lies where it was meant to."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from sqlalchemy import create_engine, make_url, text

from paredown.errors import InputError
from paredown.search.mirrors import MlflowMirror, _store_uri
from paredown.search.mirrors._store_uri import same_store, sqlite_file, sqlite_uri
from paredown.search.mirrors._sync import tracking_uri
from paredown.testing._fronts import example_space

ODD = [
    "my runs",
    "a#1",
    "50%20",
    "50%",
    "why?",
    "why?mode=ro",
    "é ü",
    "a+b=c&d;e,f",
    "u:p@host",
    "[x]",
    "'q' \"r\"",
    "~x",
]


@pytest.mark.parametrize("name", ODD)
def test_the_file_lies_where_it_was_meant_to(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / name
    (runs / "r1").mkdir(parents=True)
    uri = tracking_uri(runs / "r1")
    engine = create_engine(uri)
    with engine.begin() as connection:
        connection.execute(text("create table t (x integer)"))
    engine.dispose()
    assert sorted(path.name for path in runs.iterdir()) == ["mlflow.db", "r1"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sqlite_file(uri) == runs / "mlflow.db"


def test_a_plain_path_has_the_plain_address() -> None:
    assert sqlite_uri(PurePosixPath("/runs/a-b_1.c/mlflow.db")) == "sqlite:////runs/a-b_1.c/mlflow.db"


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("C:\\runs\\mlflow.db", "sqlite:///C:/runs/mlflow.db"),
        ("D:\\my runs #1\\50%20\\mlflow.db", "sqlite+pysqlite:///D:/my%20runs%20%231/50%2520/mlflow.db"),
    ],
)
def test_drive_letters_of_windows(path: str, uri: str) -> None:
    assert sqlite_uri(PureWindowsPath(path)) == uri
    assert PureWindowsPath(make_url(uri).database or "") == PureWindowsPath(path)


def test_a_version_that_does_not_decode_gets_the_path_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecoded(uri: str) -> str:
        return uri.partition(":///")[2].partition("?")[0]

    monkeypatch.setattr(_store_uri, "_database", undecoded)
    assert sqlite_uri(PurePosixPath("/my runs #1 50%20/m.db")) == "sqlite:////my runs #1 50%20/m.db"
    with pytest.raises(InputError, match=r"cannot be at '/why\?/m.db'.*MLFLOW_TRACKING_URI"):
        sqlite_uri(PurePosixPath("/why?/m.db"))


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "postgresql://u:p@host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true"],
)
def test_other_stores_have_no_file(uri: str) -> None:
    assert sqlite_file(uri) is None


def test_one_store_under_two_addresses() -> None:
    assert same_store("sqlite:////a%20b/m.db", "sqlite+pysqlite:////a%20b/m.db")
    assert same_store("http://host", "http://host")
    assert not same_store("http://host", "http://other")
    assert not same_store("sqlite:////a/m.db", "sqlite:////b/m.db")


def test_mlflow_keeps_everything_in_the_folder(tmp_path: Path) -> None:
    runs = tmp_path / "my runs #1 50%20?"
    run = runs / "r1"
    run.mkdir(parents=True)
    (run / "task.toml").write_text("# a task\n")
    mirror = MlflowMirror(tracking_uri(run), "exp", run, "none")
    mirror.sync(Nothing(), example_space(), [], None, timings=dict, final=True)
    assert [path.name for path in tmp_path.iterdir()] == [runs.name]
    assert {"mlflow.db", "mlartifacts", "r1"} <= {path.name for path in runs.iterdir()}
    assert [path.read_text() for path in runs.glob("mlartifacts/*/artifacts/task.toml")] == ["# a task\n"]
    assert sqlite_file(json.loads((run / "mlflow.json").read_text())["tracking_uri"]) == runs / "mlflow.db"


class Nothing:
    def to_dict(self) -> dict[str, object]:
        return {}
