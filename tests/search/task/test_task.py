"""A task: what it takes, what it refuses, and in what words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import TaskError
from paredown.search import Task, task_schema
from paredown.search.task import parse_duration

SMALLEST = {
    "model": {"factory": "nets.py:net"},
    "data": {"factory": "nets.py:data"},
    "quality": {"metric": "accuracy"},
}


def make(**sections: Any) -> Task:
    return Task.from_dict({**SMALLEST, **sections}, "/somewhere")


def a_function_at_the_top() -> None: ...


def test_the_smallest_task_has_a_default_for_everything_else() -> None:
    task = make()
    assert task.objective_names() == ("accuracy", "bytes")
    assert task.space.weight_bits == (2, 3, 4, 5, 6, 8, 32)
    assert task.space.activation_bits == (8, 32)
    assert (task.budget.trials, task.budget.time, task.budget.trial_timeout_s) == (150, None, 120.0)
    assert task.search.searcher == "evolution"
    assert task.profile == "x86-64-onnxruntime"
    assert task.base_dir == Path("/somewhere")


def test_it_survives_json_and_comes_back_equal() -> None:
    task = make(
        space={"overrides": {"conv*": {"weight_bits": [8, 32]}}},
        limits={"bytes": {"max_ratio": 0.25}},
        budget={"time": "30m"},
    )
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())), task.base_dir)
    assert again == task
    assert again.to_dict() == task.to_dict()
    assert again.digest == task.digest


def test_a_model_may_be_handed_in_instead_of_named() -> None:
    assert Task.from_dict({"data": {"factory": "a:b"}}).model is None


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"space": {"weigth_bits": [4]}}, ["space.weigth_bits", "space.weight_bits"]),
        (
            {"space": {"overrides": {"layer1.*": {"weigth_bits": [4]}}}},
            ['space.overrides."layer1.*".weigth_bits', 'mean space.overrides."layer1.*".weight_bits?'],
        ),
        ({"limits": {"accuracy": {"minn": 0.5}}}, ["limits.accuracy.minn", "mean limits.accuracy.min?"]),
        ({"trials": 3}, ["trials is not a known key", "belongs in [budget]"]),
        ({"mdoel": {}}, ["mdoel", "did you mean model?"]),
        ({"search": {"zzz": 1}}, ["search.zzz", "[search] has searcher, seed, samples"]),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(sections: dict[str, Any], parts: list[str]) -> None:
    refuses(sections, parts)


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"space": {"weight_bits": 4}}, ["space.weight_bits must be a list, got 4", "weight_bits = [4]"]),
        ({"space": {"weight_bits": ["4"]}}, ["space.weight_bits", "one of 2, 3, 4", "'4'"]),
        ({"space": {"weight_bits": [4, 4]}}, ["space.weight_bits", "4 twice"]),
        ({"space": {"weight_bits": []}}, ["space.weight_bits", "empty list"]),
        ({"space": {"sparsity": [1.0]}}, ["space.sparsity", "[0, 1)"]),
        ({"space": {"rank": [0]}}, ["space.rank", "(0, 1]"]),
        ({"space": {"leave": "fc"}}, ["space.leave must be a list, got 'fc'"]),
        ({"space": {"leave": ["fc", 3]}}, ["space.leave[1] must be a string, got 3"]),
        ({"space": {"overrides": {"a": 3}}}, ["space.overrides.a must be a table, got 3"]),
        ({"hardware": {"threads": True}}, ["hardware.threads must be a whole number, got True"]),
        ({"hardware": {"threads": 1.5}}, ["hardware.threads must be a whole number, got 1.5"]),
        ({"quality": {"divergence": "js"}}, ["quality.divergence must be one of 'auto', 'kl' or 'mse'", "'js'"]),
        ({"data": 3}, ["data must be a table, got 3"]),
        ({"data": {}}, ["data.factory is missing"]),
        ({"data": {"factory": "a:b", "search": "half"}}, ["data.search", "number of samples or a share", "'half'"]),
        ({"data": {"factory": "a:b", "search": 1.5}}, ["data.search", "between 0 and 1", "1.5"]),
        ({"data": {"factory": "nocolon"}}, ["data.factory", "'module:function' or 'file.py:function'", "'nocolon'"]),
        ({"data": {"factory": 3}}, ["data.factory must be a string, got 3"]),
        ({"search": {"seed": -1}}, ["search.seed must be at least 0, got -1"]),
        ({"objectives": {"names": []}}, ["objectives.names", "at least one"]),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_what_came(
    sections: dict[str, Any], parts: list[str]
) -> None:
    refuses(sections, parts)


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"model": {}}, ["model must name exactly one of", "none of them"]),
        ({"model": {"factory": "a:b", "export": "x.pt2"}}, ["exactly one", "factory and export"]),
        ({"model": {"export": "x.pt2", "weights": "w.safetensors"}}, ["weights beside export"]),
        ({"quality": {"metric": "m.py:top5"}}, ["quality must say maximise"]),
        ({"objectives": {"names": ["accuracy", "bites"]}}, ["objectives.names", "'bites'", "mean 'bytes'?"]),
        ({"objectives": {"names": ["bytes", "bytes"]}}, ["objectives.names", "'bytes' is named twice"]),
        ({"objectives": {"names": ["bytes"]}}, ["objectives.names", "must have 'accuracy' or 'divergence'"]),
        ({"limits": {"accurcy": {"min": 0.5}}}, ["limits", "'accurcy'", "mean 'accuracy'?"]),
    ],
)
def test_sections_that_contradict_each_other_are_refused(sections: dict[str, Any], parts: list[str]) -> None:
    refuses(sections, parts)


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        ({"bytes": {"min": 10, "max": 3}}, ["limits.bytes", "min = 10 and max = 3 exclude each other"]),
        ({"accuracy": {"min": 90}}, ["limits.accuracy", "min = 90 can never be met", "0.9, not 90 %"]),
        ({"accuracy": {"max": -0.1}}, ["limits.accuracy", "max = -0.1 can never be met"]),
        ({"latency_ms": {"max": 0}}, ["limits.latency_ms", "more than zero"]),
        ({"bytes": {}}, ["limits.bytes", "says nothing"]),
        ({"bytes": {"max_drop": 1}}, ["limits.bytes", "max_drop is for the metric"]),
        ({"accuracy": {"max_ratio": 0.5}}, ["limits.accuracy", "max_ratio is for a cost"]),
        ({"bytes": {"max": float("nan")}}, ["limits.bytes.max", "finite"]),
        ({"bytes": {"max_ratio": 0}}, ["limits.bytes.max_ratio must be more than 0, got 0"]),
    ],
)
def test_limits_that_exclude_each_other_or_everything_are_refused(limits: dict[str, Any], parts: list[str]) -> None:
    refuses({"limits": limits}, parts)


@pytest.mark.parametrize(
    ("budget", "parts"),
    [
        ({"trials": 0}, ["budget.trials must be at least 1, got 0"]),
        ({"trials": -5}, ["budget.trials must be at least 1, got -5"]),
        ({"time": "0m"}, ["budget.time must be more than zero", "'0m'"]),
        ({"time": -1}, ["budget.time must be more than zero", "-1"]),
        ({"time": float("inf")}, ["budget.time must be more than zero and finite"]),
        ({"time": "soon"}, ["budget.time must be a duration", "'soon'"]),
        ({"core_hours": 0}, ["budget.core_hours must be more than 0, got 0"]),
        ({"trial_timeout_s": 0}, ["budget.trial_timeout_s must be more than zero"]),
    ],
)
def test_budgets_of_nothing_are_refused(budget: dict[str, Any], parts: list[str]) -> None:
    refuses({"budget": budget}, parts)


def test_several_faults_are_counted_and_the_message_is_one_line() -> None:
    message = refuses({"budget": {"trials": 0}, "search": {"seed": -1}}, ["(and 1 more)"])
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1.5h", 5400),
        (45, 45),
        ("1h 5s", 3605),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 9), st.integers(0, 59), st.integers(1, 59))
def test_a_duration_in_parts_is_their_sum(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("bad", ["", "m", "3", "3x", "1h30", "-3m", True, None, [], float("nan")])
def test_what_is_no_duration(bad: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(bad)


class TestFile:
    def test_it_starts_at_its_own_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "task.toml"
        path.write_text('[model]\nfactory = "nets.py:net"\n[data]\nfactory = "nets.py:data"\n')
        assert Task.load(path).path("w.safetensors") == tmp_path.resolve() / "w.safetensors"

    def test_no_such_file_and_what_there_is_instead(self, tmp_path: Path) -> None:
        (tmp_path / "task.toml").write_text("")
        with pytest.raises(TaskError, match=r"there is no task file .*tsak\.toml; the folder has task\.toml"):
            Task.load(tmp_path / "tsak.toml")

    def test_a_folder_is_no_task(self, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match="got the folder"):
            Task.load(tmp_path)

    def test_bytes_are_no_task(self, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_bytes(b"a = \xff\xfe")
        with pytest.raises(TaskError, match="byte 4 is not UTF-8"):
            Task.load(tmp_path / "t.toml")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[model]\nfactory = nets\n", r"t\.toml line 2, column 11 is not TOML: .*'factory = nets'"),
            ("[model]\n\n[model]\n", r"t\.toml line 3, column 7 is not TOML"),
            ("a = [1,\n\n", r"t\.toml line 2 is not TOML: .* end of the file"),
        ],
    )
    def test_what_does_not_parse_is_given_with_its_line(self, tmp_path: Path, text: str, expected: str) -> None:
        (tmp_path / "t.toml").write_text(text)
        with pytest.raises(TaskError, match=expected):
            Task.load(tmp_path / "t.toml")

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (["[space]", "# bits", "weigth_bits = [3]"], "line 7: space.weigth_bits"),
            (["[space]", 'overrides."fc".rank = 3'], "line 6: space.overrides.fc.rank"),
            (['[space.overrides."fc"]', "", "rank = 3"], "line 7: space.overrides.fc.rank"),
            (["budget = {trials = 0}"], None),
            (["[budget]", "trials = 0"], "line 6: budget.trials"),
            (["[limits.bytes]", "min = 3", "max = 1"], "line 5: limits.bytes"),
        ],
    )
    def test_a_wrong_key_is_given_with_its_line(self, tmp_path: Path, lines: list[str], expected: str | None) -> None:
        head = ["[model]", 'factory = "a:b"', "[data]", 'factory = "a:b"']
        (tmp_path / "t.toml").write_text("\n".join([*head, *lines]))
        with pytest.raises(TaskError) as caught:
            Task.load(tmp_path / "t.toml")
        assert expected is None or expected in str(caught.value)


class TestOverrides:
    def test_values_are_toml_and_bare_words_are_strings(self) -> None:
        task = make().with_overrides(
            [
                "budget.time=30m",
                "budget.trials=7",
                "search.searcher=random",
                "space.weight_bits=[4, 8]",
                'space.overrides."conv*".weight_bits=[8]',
                "limits.bytes.max=2000",
                "model.args.depth=20",
            ]
        )
        assert (task.budget.time, task.budget.trials, task.search.searcher) == (1800.0, 7, "random")
        assert task.space.weight_bits == (4, 8)
        assert task.space.overrides["conv*"].weight_bits == (8,)
        assert task.limits["bytes"].max == 2000
        assert task.model is not None
        assert task.model.args == {"depth": 20}
        assert task.model.factory == "nets.py:net"

    def test_the_last_one_wins_and_the_old_task_stays(self) -> None:
        task = make()
        assert task.with_overrides(["search.seed=1", "search.seed=2"]).search.seed == 2
        assert task.search.seed == 0

    @pytest.mark.parametrize(
        ("override", "parts"),
        [
            ("budget", ["table.key=value", "'budget'"]),
            ("trials=3", ["write budget.trials=3"]),
            ("budget.trails=3", ["budget.trails", "mean budget.trials?"]),
            ("budget.trials=many", ["budget.trials must be a whole number, got 'many'"]),
            ("budget.time=[", ["is not TOML"]),
            ("=3", ["table.key=value"]),
        ],
    )
    def test_bad_ones_are_named(self, override: str, parts: list[str]) -> None:
        with pytest.raises(TaskError) as caught:
            make().with_overrides([override])
        assert all(part in str(caught.value) for part in ["-o", *parts]), caught.value


class TestDigest:
    @pytest.mark.parametrize("override", ["budget.trials=3", "budget.time=5m", "mlflow.children=all"])
    def test_a_bigger_budget_is_the_same_run(self, override: str) -> None:
        assert make().with_overrides([override]).digest == make().digest

    @pytest.mark.parametrize(
        "override",
        ["search.seed=1", "space.weight_bits=[4]", "data.seed=1", "limits.bytes.max=5", "model.weights=w.st"],
    )
    def test_anything_else_is_another(self, override: str) -> None:
        assert make().with_overrides([override]).digest != make().digest

    def test_the_folder_may_move(self) -> None:
        assert Task.from_dict(SMALLEST, "/a").digest == Task.from_dict(SMALLEST, "/b").digest


class TestFunctionsInsteadOfNames:
    def test_a_function_at_the_top_gets_its_name(self) -> None:
        task = Task.from_dict({"data": {"factory": a_function_at_the_top}})
        assert task.data.factory.endswith(("test_task.py:a_function_at_the_top", "test_task:a_function_at_the_top"))

    def test_one_of_an_installed_module_is_named_by_it(self) -> None:
        assert Task.from_dict({"data": {"factory": json.dumps}}).data.factory == "json:dumps"

    def test_one_that_no_other_process_finds_is_refused(self) -> None:
        refuses({"data": {"factory": lambda: None}}, ["data.factory", "top of a module", "<lambda>"])

    def test_arguments_must_be_storable(self) -> None:
        refuses({"model": {"factory": "a:b", "args": {"x": {"y": {1, 2}}}}}, ["model.args holds a set at x.y"])


def test_the_schema_describes_every_key_and_its_default() -> None:
    schema = task_schema()
    json.dumps(schema)
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            assert field.get("description"), name
            assert "default" in field or name in section.get("required", []) or _is_container(field), name


def _is_container(field: dict[str, Any]) -> bool:
    """A table that is empty unless it is given; JSON Schema has no word for the default of its keys."""
    return "$ref" in field or field.get("type") == "object"


def refuses(sections: dict[str, Any], parts: list[str]) -> str:
    with pytest.raises(TaskError) as caught:
        make(**sections)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert caught.value.exit_code == 2
    return message
