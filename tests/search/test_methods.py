"""Every method that a task can name has a card, a plugin's too, and the commands and the page show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import paredown
from paredown._cards import KINDS, NOT_MEASURED, NOT_SAID
from paredown.cli import main
from paredown.compressors import FORMAT_BITS, RANK_FORMS, methods
from paredown.compressors.quantization import knows
from paredown.compressors.registry import REGISTRIES, register_sparsity_method, register_weight_method
from paredown.compressors.structure import SCORES
from paredown.compressors.values import Pattern, SpecField, spec_fields
from paredown.errors import InputError
from paredown.evaluators.quality import METRICS, Metric, get_metric, register_metric
from paredown.evaluators.runtimes import TorchRuntime, list_formats, list_runtimes, register_runtime
from paredown.search import METHOD_KINDS, Axis, SearchContext, Searcher, list_methods, register_axis, register_searcher
from paredown.search._methods import _cards, is_template, names_of
from paredown.search.plans import STRATEGIES
from paredown.search.searchers import SAMPLERS, SEARCHERS, RandomSearcher, canonical_name
from paredown.search.task import COSTS, MORE_COSTS, THROUGHPUT, PrepareSection, RepairSection, axes
from paredown.testing import isolated_registries

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
EVERYTHING = list_methods()


@pytest.fixture
def registries() -> Iterator[None]:
    with isolated_registries():
        yield


REGISTERED: dict[str, set[str]] = {
    "searcher": {*SEARCHERS, *(f"optuna:{name}" for name in SAMPLERS)},
    "weight_method": set(methods("weight")),
    "weight_format": set(FORMAT_BITS),
    "activation_method": set(methods("activation")),
    "activation_scheme": set(next(f for f in spec_fields() if f.name == "activation_scheme").schema["enum"]),
    "activation_scope": {"auto", *next(f for f in spec_fields() if f.name == "activation_scope").schema["enum"]},
    "sparsity_method": set(methods("sparsity")),
    "sparsity_pattern": set(),
    "rank_method": set(methods("rank")),
    "rank_form": set(RANK_FORMS),
    "keep_method": {*SCORES, "frequency"},
    "prepare": set(get_args(PrepareSection.model_fields["scaling"].annotation)),
    "repair": {key for key in RepairSection.model_fields if key != "samples"},
    "format": {*list_formats(), "config"},
    "runtime": set(list_runtimes()),
    "metric": set(METRICS),
    "objective": {"divergence", *COSTS, *MORE_COSTS, THROUGHPUT},
    "plan": set(STRATEGIES),
    "axis": {*(axis.key for axis in axes()), "blocks"},
}
"""Kind -> what the code knows by name, read from the registries themselves."""


def test_every_registry_is_walked() -> None:
    assert set(REGISTERED) == set(METHOD_KINDS) == set(KINDS)
    assert {f"{kind}_method" for kind in REGISTRIES} <= set(REGISTERED)


@pytest.mark.parametrize("kind", METHOD_KINDS)
def test_everything_that_is_registered_has_a_card(kind: str) -> None:
    names = names_of(kind)
    assert len(set(names)) == len(names)
    assert {name for name in names if not is_template(name)} == REGISTERED[kind]
    assert set(_cards()[kind]) == set(names), "a card for each name, and a name for each card"


@pytest.mark.parametrize("method", EVERYTHING, ids=lambda method: f"{method.kind}:{method.name}")
def test_a_card_says_all_of_it(method: paredown.Method) -> None:
    facts = method.to_dict()
    assert list(facts) == ["kind", "name", "named_by", "does", "cost", "good_for", "did_not_help", "paper"]
    for key, text in facts.items():
        assert text.strip() == text
        assert text
        assert text != NOT_SAID
        assert text.isprintable()
        assert key in ("kind", "name", "named_by") or not text.endswith(".")
        assert len(text) <= 130
    assert re.match(r"[A-Z0-9]|tensor for|scale x|exp of|k x 1|torchao", method.card.does), "a sentence, or a formula"
    assert method.card.paper == "none" or re.search(r"\b(19|20)\d\d\b|none", method.card.paper)


def test_what_was_not_measured_is_said_so() -> None:
    said = [method.card.did_not_help for method in EVERYTHING]
    assert said.count(NOT_MEASURED) < len(said) / 2


@pytest.mark.parametrize("name", names_of("sparsity_pattern"))
def test_templates_of_patterns_stand_for_patterns(name: str) -> None:
    for spelling in {"''": [""], "N:M": ["2:4", "1:8"], "RxC": ["1x4", "16x1"]}.get(name, [name]):
        Pattern.parse(spelling)
        assert [method.name for method in list_methods(spelling)] == [name]


def test_a_name_gives_its_cards_and_a_kind_its_list() -> None:
    assert {method.kind for method in list_methods("affine")} == {
        "weight_method", "activation_method", "activation_scheme",
    }  # fmt: skip
    assert {method.name for method in list_methods("metric")} == REGISTERED["metric"]
    for spelling, name in {
        "tpe": "optuna:tpe", "TPESampler": "optuna:tpe", "optuna.samplers.NSGAIISampler": "optuna:nsga2",
        "optuna.samplers.CmaEsSampler": "optuna", "refit(wanda)": "refit(SCORE)", "ndcg_at_5": "ndcg_at_10",
        "0.7*wanda+0.3*fisher": "A*SCORE+B*SCORE", "openvino": "openvino",
    }.items():  # fmt: skip
        assert {method.name for method in list_methods(spelling)} == {name}
    for near, name in {"gptk": "gptq", "weight_metod": "weight_method", "evolutoin": "evolution"}.items():
        with pytest.raises(
            InputError, match=f"no method, and no kind of methods, named '{near}'; did you mean '{name}'"
        ):
            list_methods(near)
    with pytest.raises(InputError, match="named 'xyzzy'; `paredown methods` lists them"):
        list_methods("xyzzy")


@pytest.mark.usefixtures("registries")
class TestPlugins:
    def test_what_has_no_card_shows_its_docstring(self) -> None:
        def mine(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
            """Rounds as I please.

            And more.
            """
            raise NotImplementedError

        class Elsewhere(TorchRuntime):
            """A runtime of my own."""

            name = format = "elsewhere"

        def searcher(context: SearchContext) -> Searcher:
            return RandomSearcher(context)

        def length(outputs: Tensor, targets: Any, reference: Any) -> Tensor:
            """Length of the outputs."""
            return outputs.norm(dim=1)

        register_weight_method("mine", mine)
        register_sparsity_method("bare", lambda matrix, share: torch.ones_like(matrix) > 0)
        register_runtime(Elsewhere())
        register_searcher("walk", searcher, summary="walks about")
        register_metric(Metric(name="length", maximise=False, per_sample=length))
        field = SpecField(
            name="zeal", neutral=0, within="weight_bits", short="ze", schema={"enum": [0, 1]},
            check=lambda name, value: None,
        )  # fmt: skip
        register_axis(Axis(field=field, default=(0,), about="how eager it is"))
        does = {
            "mine": "Rounds as I please.", "bare": "its author does not say", "elsewhere": "A runtime of my own.",
            "walk": "walks about", "length": "Length of the outputs.", "zeal": "how eager it is",
        }  # fmt: skip
        for name, line in does.items():
            for method in list_methods(name):
                assert (method.card.does, method.card.did_not_help, method.card.paper) == (
                    line, NOT_MEASURED, NOT_SAID,
                )  # fmt: skip
        assert {method.kind for method in list_methods("elsewhere")} == {"runtime", "format"}
        assert knows("mine", "int")

    def test_a_card_of_its_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        card = paredown.Card(does="Walks", cost="a walk", good_for="health", paper="Thoreau 1862, Walking")
        register_searcher("walk", lambda context: RandomSearcher(context))
        paredown.register_card("searcher", "walk", card)
        assert list_methods("walk")[0].card == card
        assert main(["methods", "walk"]) == 0
        assert "good for      health" in capsys.readouterr().out
        with pytest.raises(InputError, match="there is a card of the searcher 'walk' already"):
            paredown.register_card("searcher", "walk", card)
        with pytest.raises(InputError, match=r"a card is of one of the kinds searcher, .*, got 'walker'"):
            paredown.register_card("walker", "walk", card)

    def test_the_plugins_of_a_task(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "plug.py").write_text(
            "from paredown import Card, register_card\n"
            "from paredown.search import register_searcher\n"
            "from paredown.search.searchers import RandomSearcher\n"
            "register_searcher('stroll', lambda context: RandomSearcher(context))\n"
            "register_card('searcher', 'stroll', Card(does='Strolls'))\n"
        )
        task = tmp_path / "task.toml"
        task.write_text('plugins = ["plug.py"]\n[model]\nfactory = "m.py:f"\n[data]\nfactory = "m.py:d"\n')
        assert main(["methods", "stroll"]) == 2
        assert main(["methods", "stroll", "--task", str(task)]) == 0
        assert "does          Strolls" in capsys.readouterr().out


class TestCommands:
    @pytest.mark.parametrize("arguments", [[], ["metric"], ["affine"], ["optuna:tpe"], ["A*SCORE+B*SCORE"]])
    def test_plain_text_in_80_columns(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["methods", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line.isascii() and line == line.rstrip() for line in lines)

    def test_the_list_names_everything(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["methods"]) == 0
        names = re.findall(r"^  (\S+)", capsys.readouterr().out, re.MULTILINE)
        assert names == [method.name for method in EVERYTHING]

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["methods", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"methods": [method.to_dict() for method in EVERYTHING]}
        assert main(["methods", "gptq", "--json"]) == 0
        (card,) = json.loads(capsys.readouterr().out)["methods"]
        assert card["paper"] == "Frantar 2023, GPTQ, alg. 1"

    def test_the_page_is_the_cards(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["methods", "--markdown"]) == 0
        written = capsys.readouterr().out
        assert PAGE.read_text(encoding="utf-8") == written, "paredown methods --markdown > docs/methods.md"

    def test_the_schema_lists_every_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["schema", "task"]) == 0
        schema = json.loads(capsys.readouterr().out)["$defs"]
        for section, key, kind in (
            ("SearchSection", "searcher", "searcher"), ("QualitySection", "metric", "metric"),
            ("HardwareSection", "runtime", "runtime"),
        ):  # fmt: skip
            assert schema[section]["properties"][key]["examples"] == list(names_of(kind))
        for kind in METHOD_KINDS:
            if kind.startswith(("weight_", "activation_", "sparsity_", "rank_", "keep_")):
                examples = schema["SpaceSection"]["properties"][kind]["examples"]
                assert examples == [[name] for name in names_of(kind)]
        assert all(canonical_name(name) for name in schema["SearchSection"]["properties"]["searcher"]["examples"])
        assert all(get_metric(name) for name in schema["QualitySection"]["properties"]["metric"]["examples"])

    def test_the_help_names_searchers_and_formats(self, capsys: pytest.CaptureFixture[str]) -> None:
        for command, wanted in (("search", {*SEARCHERS, *SAMPLERS} - {"optuna"}), ("export", REGISTERED["format"])):
            assert main([command, "--help"]) == 0
            told = capsys.readouterr().out
            assert all(name in told for name in wanted)
        assert main(["--help"]) == 0
        assert "methods" in capsys.readouterr().out
