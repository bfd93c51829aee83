"""Every method by name, with its card: searchers, ways to compress, formats, runtimes, metrics, costs.

The names come from the registries, so that a plugin's methods are among them. A card comes from the `CARDS` of its
folder, or from `register_card`. A method of a plugin without a card shows the first line of its docstring.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from .._cards import REGISTERED, Card
from ..errors import InputError

_TEMPLATES = ("''", "N:M", "RxC", "row", "column", "refit(SCORE)", "A*SCORE+B*SCORE")
"""Names that no registry has: spellings are read by `Pattern` and by the mixtures of scores."""
_ANY_NUMBER = re.compile(r"\w+_at_\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method that a task can name.

    kind      one of `paredown._cards.KINDS`
    name      as it is written; words in capitals stand for a number or another name
    named_by  where it is written: the key of a task, or an option
    card      facts about it
    """

    kind: str
    name: str
    named_by: str
    card: Card

    def to_dict(self) -> dict[str, str]:
        """Return kind, name, place and the card's fields, JSON-ready."""
        return {"kind": self.kind, "name": self.name, "named_by": self.named_by, **self.card.to_dict()}


METHOD_KINDS: Mapping[str, tuple[str, str]] = {
    "searcher": ("Searchers", "[search] searcher, --searcher"),
    "weight_method": ("Weight methods: ranges and roundings", "[space] weight_method"),
    "weight_format": ("Weight formats", "[space] weight_format"),
    "activation_method": ("Activation ranges", "[space] activation_method"),
    "activation_scheme": ("Activation schemes", "[space] activation_scheme"),
    "activation_scope": ("Activation scopes", "[space] activation_scope"),
    "sparsity_method": ("Scores of weights", "[space] sparsity_method"),
    "sparsity_pattern": ("Patterns of zeros", "[space] sparsity_pattern"),
    "rank_method": ("Low-rank methods", "[space] rank_method"),
    "rank_form": ("Low-rank forms", "[space] rank_form"),
    "keep_method": ("Scores of units", "[space] keep_method"),
    "prepare": ("Preparations", "[prepare] scaling"),
    "repair": ("Repairs", "[repair] NAME"),
    "format": ("Formats", "--format"),
    "runtime": ("Runtimes", "[hardware] runtime"),
    "metric": ("Metrics", "[quality] metric"),
    "objective": ("Costs and divergence", "[objectives] names, [limits]"),
    "plan": ("Plans", "paredown plan --strategy"),
    "axis": ("Searchable levels", "[space] NAME"),
}
"""Kind -> (title, where a task or a command names one)."""


def list_methods(name: str | None = None) -> tuple[Method, ...]:
    """List methods with their cards, in the order of `METHOD_KINDS`.

    name  a method: all kinds that have one of this name; a kind: all of its methods; None: everything

    The plugins of a task are known once they are loaded (`Plugins.of(task).load()`).
    Raises `InputError` for a name that there is not, with those near it.
    """
    everything = tuple(
        Method(kind=kind, name=method, named_by=where, card=_card(kind, method))
        for kind, (_, where) in METHOD_KINDS.items()
        for method in names_of(kind)
    )
    if name is None:
        return everything
    if name in METHOD_KINDS:
        return tuple(method for method in everything if method.kind == name)
    if found := tuple(method for method in everything if method.name == name):
        return found
    spelt = _template(name)
    if found := tuple(method for method in everything if (method.kind, method.name) == spelt):
        return found
    from .task import nearest

    near = nearest(name, [*dict.fromkeys(method.name for method in everything), *METHOD_KINDS])
    hint = near if "did you mean" in near else "; `paredown methods` lists them"
    raise InputError(f"there is no method, and no kind of methods, named {name!r}{hint}")


def names_of(kind: str) -> tuple[str, ...]:
    """Names of a kind of methods: what is built in, in the order of its cards, then what plugins have registered."""
    names, cards = _names()[kind](), _cards().get(kind, {})
    built_in = [name for name in cards if name in names or is_template(name)]
    return (*built_in, *(name for name in names if name not in cards))


def is_template(name: str) -> bool:
    """Tell whether a name stands for many: a pattern of zeros, a mixture of scores."""
    return name in _TEMPLATES


def _names() -> dict[str, Callable[[], tuple[str, ...]]]:
    from ..compressors import FORMAT_BITS, RANK_FORMS, methods
    from ..compressors.preparation import SCALINGS
    from ..compressors.structure import SCORES
    from ..compressors.values import spec_field
    from ..evaluators.quality import METRICS
    from ..evaluators.runtimes import list_formats, list_runtimes
    from .plans import STRATEGIES
    from .searchers import SAMPLERS, SEARCHERS
    from .task import COSTS, MORE_COSTS, THROUGHPUT, PrepareSection, RepairSection, axes

    def choices(field: str) -> tuple[str, ...]:
        return tuple(spec_field(field).schema["enum"])

    return {
        "searcher": lambda: (*SEARCHERS, *(f"optuna:{name}" for name in SAMPLERS)),
        "weight_method": lambda: methods("weight"),
        "weight_format": lambda: tuple(FORMAT_BITS),
        "activation_method": lambda: methods("activation"),
        "activation_scheme": lambda: choices("activation_scheme"),
        "activation_scope": lambda: ("auto", *choices("activation_scope")),
        "sparsity_method": lambda: methods("sparsity"),
        "sparsity_pattern": tuple,
        "rank_method": lambda: methods("rank"),
        "rank_form": lambda: tuple(RANK_FORMS),
        "keep_method": lambda: (*SCORES, "frequency"),
        "prepare": lambda: tuple(
            dict.fromkeys((*get_args(PrepareSection.model_fields["scaling"].annotation), *SCALINGS))
        ),
        "repair": lambda: tuple(key for key in RepairSection.model_fields if key != "samples"),
        "format": lambda: (*list_formats(), "config"),
        "runtime": list_runtimes,
        "metric": lambda: tuple(METRICS),
        "objective": lambda: ("divergence", *COSTS, *MORE_COSTS, THROUGHPUT),
        "plan": lambda: STRATEGIES,
        "axis": lambda: (*(axis.key for axis in axes()), "blocks"),
    }


@cache
def _cards() -> dict[str, dict[str, Card]]:
    """Cards of what is built in: kind -> name -> card."""
    from ..compressors import lowrank, preparation, quantization, repair, sparsity, structure
    from ..evaluators import quality, runtimes
    from . import plans, searchers, task

    folders = (
        quantization, sparsity, lowrank, structure, preparation, repair, quality, runtimes, searchers, plans, task,
    )  # fmt: skip
    return {kind: cards for folder in folders for kind, cards in folder.CARDS.items()}


def _card(kind: str, name: str) -> Card:
    card = REGISTERED.get((kind, name)) or _cards().get(kind, {}).get(name)
    return card if card is not None else Card(does=_first_line(kind, name))


def _first_line(kind: str, name: str) -> str:
    """Read what a plugin says of its method where it gives no card: its summary, or its docstring's first line."""
    text = _described(kind, name)
    return " ".join(text.strip().split("\n\n")[0].split()) or "its author does not say"


def _described(kind: str, name: str) -> str:
    from ..compressors.registry import REGISTRIES
    from ..evaluators.quality import METRICS
    from ..evaluators.runtimes import get_runtime, list_runtimes
    from .searchers import SEARCHERS
    from .task import axes

    thing: Any = None
    if kind == "searcher":
        if SEARCHERS[name].summary:
            return SEARCHERS[name].summary
        thing = SEARCHERS[name].load()
    elif kind == "axis":
        return next((axis.about for axis in axes() if axis.key == name), "")
    elif kind == "metric":
        thing = METRICS[name].per_sample
    elif kind == "runtime":
        thing = type(get_runtime(name))
    elif kind == "format":
        thing = next((type(get_runtime(one)) for one in list_runtimes() if get_runtime(one).format == name), None)
    elif (base := kind.removesuffix("_method")) in REGISTRIES:
        thing = REGISTRIES[base][name]
    return getattr(thing, "__doc__", None) or ""


def _template(name: str) -> tuple[str, str]:
    """(kind, name) of the card that a spelling belongs to: an alias of a searcher, a pattern, a mixture of scores."""
    from ..evaluators.quality import known_metric
    from .searchers import short_name

    if re.fullmatch(r"\d+:\d+", name):
        return "sparsity_pattern", "N:M"
    if re.fullmatch(r"\d+x\d+", name):
        return "sparsity_pattern", "RxC"
    if name == "":
        return "sparsity_pattern", "''"
    if name.startswith("refit("):
        return "sparsity_method", "refit(SCORE)"
    if "*" in name:
        return "sparsity_method", "A*SCORE+B*SCORE"
    if _ANY_NUMBER.fullmatch(name) and known_metric(name):
        return "metric", re.sub(r"\d+$", "10", name)
    sampler = short_name(name.removeprefix("optuna:"))
    known = f"optuna:{sampler}" in names_of("searcher")
    return "searcher", f"optuna:{sampler}" if known else "optuna" if name.endswith("Sampler") else name
