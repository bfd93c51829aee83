"""Facts of a run for people."""

from paredown.cli._tables import _spread


def test_where_the_time_went_the_most_first() -> None:
    facts = {"spent_s": 40.0, "seconds": {"ledger": 0.26, "evaluation": 25.0, "mirrors": 1.16}}
    assert _spread(facts) == [
        ("spent", "40 s"),
        ("time evaluation", "25 s  62.5%"),
        ("time mirrors", "1.2 s  2.9%"),
        ("time ledger", "0.3 s  0.7%"),
        ("time other", "14 s  33.9%"),
    ]


def test_times_alone_are_shown_as_they_are() -> None:
    assert _spread({"spent_s": 0.0, "seconds": {}}) == [("spent", "0 s")]


def test_stored_words_are_shown_as_the_terms_of_the_field() -> None:
    shown = _spread({"trials": {"completed": 3, "dominated": 2, "screened": 1}})
    assert shown == [("trials completed", "3"), ("trials early-stopped", "2"), ("trials low-fidelity", "1")]
