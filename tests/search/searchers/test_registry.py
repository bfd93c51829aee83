from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

from paredown.errors import ConfigError, InputError
from paredown.search import (
    Candidate,
    Completed,
    SearchContext,
    Searcher,
    SearchSpace,
    Task,
    register_searcher,
    task_schema,
)
from paredown.search.searchers import (
    SAMPLERS,
    SEARCHERS,
    RandomSearcher,
    canonical_name,
    check_searcher,
    make_searcher,
    uses_table,
)
from paredown.testing import isolated_registries
from paredown.testing._problems import SyntheticProblem

CONTEXT = SyntheticProblem(n_groups=3, n_levels=3).context()


@pytest.fixture
def registry() -> Iterator[None]:
    """Removes what a test registers after it."""
    with isolated_registries():
        yield


def test_ours_are_there_and_are_searchers() -> None:
    assert set(SEARCHERS) == {"evolution", "genetic", "policy", "random", "optuna"}
    for name in SEARCHERS:
        assert isinstance(make_searcher(name, CONTEXT), Searcher)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError,
        match=r"one of evolution, genetic, policy, random, optuna, tpe, .*, qmc, or the import .*, got 'annealing'",
    ):
        make_searcher("annealing", CONTEXT)


def test_names_and_options_are_checked_without_a_context() -> None:
    check_searcher("optuna:tpe", {})
    with pytest.raises(
        InputError,
        match=r"one of evolution, genetic, policy, random, optuna, tpe, .*, qmc, or the import .*, got 'annealing'",
    ):
        check_searcher("annealing")
    with pytest.raises(InputError, match="unknown option 'kids' of searcher 'evolution'"):
        check_searcher("evolution", {"kids": 3})


SPELLINGS = [
    ("tpe", "optuna:tpe"),
    ("nsga2", "optuna:nsga2"),
    ("qmc", "optuna:qmc"),
    ("optuna:tpe", "optuna:tpe"),
    ("TPESampler", "optuna:tpe"),
    ("optuna:TPESampler", "optuna:tpe"),
    ("optuna.samplers.TPESampler", "optuna:tpe"),
    ("optuna:optuna.samplers.NSGAIISampler", "optuna:nsga2"),
    ("optuna.samplers._tpe.sampler.TPESampler", "optuna:tpe"),
    ("BruteForceSampler", "optuna:optuna.samplers.BruteForceSampler"),
    ("optuna.samplers.BruteForceSampler", "optuna:optuna.samplers.BruteForceSampler"),
    ("random", "random"),
    ("optuna:random", "optuna:random"),
    (f"{__name__}.Mine", f"optuna:{__name__}.Mine"),
]


class Mine(RandomSampler):
    """A sampler of the user's own."""


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_every_spelling_of_a_searcher(spelling: str, name: str) -> None:
    assert canonical_name(spelling) == name == canonical_name(name)
    check_searcher(spelling)
    assert isinstance(make_searcher(spelling, CONTEXT), Searcher)


@pytest.mark.parametrize("kind", [TPESampler, NSGAIISampler, Mine])
def test_a_class_is_a_name_too(kind: type) -> None:
    check_searcher(kind)
    asked = make_searcher(kind, CONTEXT).ask(2)
    assert asked == make_searcher(f"{kind.__module__}.{kind.__qualname__}", CONTEXT).ask(2)
    task = {"model": {"factory": "m.py:f"}, "data": {"factory": "m.py:d"}, "search": {"searcher": kind}}
    stored = Task.from_dict(task, base_dir=Path()).search.searcher
    assert canonical_name(stored) == canonical_name(kind)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("tpee", "tpe"),
        ("nsga", "nsga3 or nsga2"),
        ("evolutoin", "evolution"),
        ("optuna:tpr", "tpe"),
        ("polcy", "policy"),
    ],
)
def test_an_unknown_name_has_the_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"got '{name}'; did you mean {near}"):
        check_searcher(name)


@pytest.mark.parametrize("name", ["optuna.samplers.Anneal", "AnnealSampler", "optuna:nobody.knows.It"])
def test_a_sampler_that_there_is_not_is_refused_before_the_search(name: str) -> None:
    with pytest.raises(InputError, match=r"sampler must be one of tpe, nsga2.* or an import path such as"):
        check_searcher(name)


def test_the_help_and_the_schema_name_every_searcher() -> None:
    told = task_schema()["$defs"]["SearchSection"]["properties"]["searcher"]["description"]
    for name in {*SEARCHERS, *SAMPLERS} - {"optuna"}:
        assert name in told


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown option 'kids' of searcher 'evolution'; known are initial, children"):
        make_searcher("evolution", CONTEXT, {"kids": 3})
    with pytest.raises(InputError, match="known are none"):
        make_searcher("random", CONTEXT, {"kids": 3})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolution", {"initial": 0}, "initial of searcher 'evolution' must be a whole number"),
        ("evolution", {"children": 2.5}, "children of searcher 'evolution'"),
        ("evolution", {"exploration": 1.5}, r"exploration of searcher 'evolution' must be in \[0, 1\], got 1.5"),
        ("genetic", {"population": 1}, "population of searcher 'genetic' must be a whole number of at least 2, got 1"),
        ("genetic", {"elites": -1}, "elites of searcher 'genetic' must be a whole number of at least 0"),
        ("genetic", {"tournament": 0}, "tournament of searcher 'genetic'"),
        ("genetic", {"mutation": 2.0}, r"mutation of searcher 'genetic' must be in \[0, 1\], got 2.0"),
        ("genetic", {"crossover": "often"}, "crossover of searcher 'genetic'"),
        ("genetic", {"survival": "luck"}, "survival of searcher 'genetic' must be 'crowding' or 'reference'"),
        ("genetic", {"seed_with_sweep": -1}, "seed_with_sweep must be"),
        ("policy", {"learning_rate": -0.1}, "learning_rate of searcher 'policy' must be a number of at least 0"),
        ("policy", {"exploration": 1.5}, r"exploration of searcher 'policy' must be a number in"),
        ("optuna", {"sampler": "anneal"}, "sampler must be one of tpe, nsga2.*got 'anneal'"),
        ("optuna:optuna.samplers.Anneal", {}, "has no attribute 'Anneal'"),
        ("optuna:optuna.study.Study", {}, "not a subclass of optuna.samplers.BaseSampler"),
        ("optuna:nsga2", {"params": {"population_size": 1}}, "NSGAIISampler refuses its params"),
        ("optuna:nsga2", {"params": {"size": 1}}, "refuses its params {'size': 1}"),
        ("optuna:nsga2", {"sampler": "tpe"}, "two samplers given"),
        ("optuna", {"seed_with_sweep": -1}, "seed_with_sweep must be"),
        ("random:tpe", {}, "only optuna takes a sampler after a colon"),
    ],
)
def test_a_wrong_value_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_searcher(name, CONTEXT, options)


def test_a_sweep_needs_the_table() -> None:
    context = SyntheticProblem(n_groups=3, n_levels=3, table_noise=None).context()
    with pytest.raises(InputError, match="seed_with_sweep needs the sensitivity table"):
        make_searcher("optuna", context, {"seed_with_sweep": True})


def test_who_wants_the_table() -> None:
    assert uses_table("evolution")
    assert not uses_table("random")
    assert not uses_table("optuna:tpe")
    assert uses_table("optuna", {"seed_with_sweep": 4})
    with pytest.raises(InputError, match="got 'annealing'"):
        uses_table("annealing")


@pytest.mark.usefixtures("registry")
def test_one_from_outside() -> None:
    def make(context: SearchContext, *, patience: int = 3) -> Searcher:
        return RandomSearcher(context)

    register_searcher("mine", make, uses_table=True)
    assert isinstance(make_searcher("mine", CONTEXT, {"patience": 5}), RandomSearcher)
    assert uses_table("mine")
    with pytest.raises(InputError, match="unknown option 'speed' of searcher 'mine'; known are patience"):
        make_searcher("mine", CONTEXT, {"speed": 1})


@pytest.mark.usefixtures("registry")
def test_one_by_import_path() -> None:
    register_searcher("elsewhere", "paredown.search.searchers._random:RandomSearcher")
    assert isinstance(make_searcher("elsewhere", CONTEXT), RandomSearcher)


@pytest.mark.usefixtures("registry")
def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(InputError, match="'random' is registered already"):
        register_searcher("random", RandomSearcher)
    with pytest.raises(InputError, match="no colon"):
        register_searcher("my:own", RandomSearcher)


def test_the_list_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        SEARCHERS["mine"] = SEARCHERS["random"]  # type: ignore[index]


def test_nothing_to_decide_is_refused() -> None:
    context = SearchContext(space=SearchSpace(groups=()), objectives=CONTEXT.objectives, seed=0, table=None, limits={})
    with pytest.raises(InputError, match="at least one group"):
        make_searcher("random", context)
    bare = SearchContext(space=CONTEXT.space, objectives=(), seed=0, table=None, limits={})
    with pytest.raises(InputError, match="at least one objective"):
        make_searcher("random", bare)


@pytest.mark.parametrize("name", ["evolution", "genetic", "policy", "random", "optuna:nsga2"])
def test_another_ones_state_is_refused(name: str) -> None:
    state = make_searcher(name, CONTEXT).state_dict()
    searcher = make_searcher(name, CONTEXT)
    with pytest.raises(ConfigError, match="searcher = 'other'"):
        searcher.load_state_dict({**state, "searcher": "other"})
    with pytest.raises(ConfigError, match="n_levels"):
        searcher.load_state_dict({**state, "n_levels": [2, 2]})
    with pytest.raises(ConfigError, match="schema_version"):
        searcher.load_state_dict({**state, "schema_version": 99})
    with pytest.raises(ConfigError, match="unknown key 'extra'"):
        searcher.load_state_dict({**state, "extra": 1})
    with pytest.raises(ConfigError, match="has no 'known'"):
        searcher.load_state_dict({key: value for key, value in state.items() if key != "known"})
    with pytest.raises(ConfigError, match="level of layer0"):
        searcher.load_state_dict({**state, "known": [[7, 0, 0]]})


@pytest.mark.parametrize("name", ["evolution", "genetic", "policy", "random", "optuna:nsga2"])
def test_a_trial_of_another_space_is_refused(name: str) -> None:
    other = SyntheticProblem(n_groups=4, n_levels=3)
    with pytest.raises(ConfigError, match=r"has 3 levels"):
        make_searcher(name, CONTEXT).tell([other.trial(0, Candidate(levels=(0, 0, 0, 0)))])


@pytest.mark.parametrize("name", ["evolution", "genetic", "policy", "optuna:nsga2"])
def test_a_result_without_its_objective_is_refused(name: str) -> None:
    trial = Completed(number=4, candidate=Candidate(levels=(0, 0, 0)), kind="mixed", metrics={})
    with pytest.raises(InputError, match="trial 4 has no metric 'divergence'"):
        make_searcher(name, CONTEXT).tell([trial])


def test_optuna_is_not_imported_before_it_is_wanted() -> None:
    code = (
        "import sys; from paredown.search.searchers import *; import paredown.search.mirrors._optuna; "
        "assert 'optuna' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})
