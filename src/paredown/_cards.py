"""Cards: facts about a method for whoever chooses one. Every part of the product may give some.

The cards of what is built in stand in a `_cards.py` beside the code. A plugin calls `register_card`. All of them are
collected by `paredown.search.list_methods`, which `paredown methods` prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from .errors import InputError

NOT_SAID = "not said"
"""Value of a field that a plugin's author left out."""
NOT_MEASURED = "not measured"
"""Value of `did_not_help` where there is no figure."""

KINDS = (
    "searcher", "weight_method", "weight_format", "activation_method", "activation_scheme", "activation_scope",
    "sparsity_method", "sparsity_pattern", "rank_method", "rank_form", "keep_method", "prepare", "repair", "format",
    "runtime", "metric", "objective", "plan", "axis",
)  # fmt: skip
"""Kinds of methods: the key of a task that names one, or where that is not one key, a word for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Facts about a method. Each field is a phrase or a sentence of plain text.

    does          effect on the model, or on the search
    cost          time, data or bytes that it takes
    good_for      where it is the one to take
    did_not_help  where it was tried and gave nothing
    paper         source, or "none"
    """

    does: str
    cost: str = NOT_SAID
    good_for: str = NOT_SAID
    did_not_help: str = NOT_MEASURED
    paper: str = NOT_SAID

    def to_dict(self) -> dict[str, str]:
        """Return the fields by name, JSON-ready."""
        return {
            "does": self.does, "cost": self.cost, "good_for": self.good_for, "did_not_help": self.did_not_help,
            "paper": self.paper,
        }  # fmt: skip


_REGISTERED: dict[tuple[str, str], Card] = {}
REGISTERED = MappingProxyType(_REGISTERED)
"""(kind, name) -> card of a plugin. Read only: see `register_card`."""


def register_card(kind: str, name: str, card: Card) -> None:
    """Give a method of a plugin its card; without one, `paredown methods` shows the first line of its docstring.

    kind  one of `KINDS`, such as "weight_method" or "searcher"
    name  as it was registered

    Raises `InputError` for another kind, or where the name has a card.
    """
    if kind not in KINDS:
        raise InputError(f"a card is of one of the kinds {', '.join(KINDS)}, got {kind!r}")
    if (kind, name) in _REGISTERED:
        raise InputError(f"there is a card of the {kind} {name!r} already; give one card to each")
    _REGISTERED[kind, name] = card
