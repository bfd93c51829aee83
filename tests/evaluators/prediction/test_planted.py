"""Planted costs of layers and borders are found again, with correct uncertainty and a sensible next measurement."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from paredown.errors import ParedownError
from paredown.evaluators.prediction import Form, Layout, draw, fit, measure, next_to_measure


def _planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paredown_tests_planted", Path(__file__).with_name("planted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


planted = _planted()
NOISE = 0.005


def drawn(layout: Layout, n: int, seed: int) -> list[tuple[Form, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(planted.FORMS[i] for i in levels) for levels in draw([3] * len(layout.layers), n, rng)]


def by_fqn(layout: Layout, forms: Sequence[Form]) -> dict[str, Form]:
    return dict(zip(layout.fqns, forms, strict=True))


def fitted_to(layout: Layout, machine: object, many: list[tuple[Form, ...]]):  # type: ignore[no-untyped-def]
    timed = [machine(by_fqn(layout, forms)) for forms in many]  # type: ignore[operator]
    return fit(layout, many, [t.ratio for t in timed], [t.error for t in timed])


@pytest.fixture(scope="module")
def layout() -> Layout:
    found: Layout = planted.chain()
    return found


def test_planted_costs_of_layers_and_borders_are_found_again(layout: Layout) -> None:
    machine = planted.PlantedMachine(layout, noise=NOISE)
    fitted = fitted_to(layout, machine, drawn(layout, 60, seed=1))
    unseen = drawn(layout, 200, seed=2)
    truth = np.array([machine.truth(by_fqn(layout, forms)) for forms in unseen])
    mean, _ = fitted.predict(unseen)
    assert np.abs(mean / truth - 1.0).mean() < 0.01
    assert (np.abs(mean / truth - 1.0) < 0.05).mean() >= 0.99
    # a sum over layers, without the borders, does not get there
    lone = Layout(layers=layout.layers, wiring=planted.Wiring())
    without = fitted_to(lone, planted.PlantedMachine(layout, noise=NOISE), drawn(layout, 60, seed=1))
    assert np.abs(without.predict(unseen)[0] / truth - 1.0).mean() > 2 * np.abs(mean / truth - 1.0).mean()


def test_the_stated_uncertainty_covers_what_is_not_known(layout: Layout) -> None:
    covered = []
    for seed in range(4):
        machine = planted.PlantedMachine(layout, noise=NOISE, seed=seed)
        fitted = fitted_to(layout, machine, drawn(layout, 40, seed=10 + seed))
        unseen = drawn(layout, 150, seed=50 + seed)
        truth = np.array([machine.truth(by_fqn(layout, forms)) for forms in unseen])
        mean, deviation = fitted.predict(unseen)
        covered.append((np.abs(mean - truth) <= 1.96 * np.hypot(deviation, fitted.scales["noise"] * mean)).mean())
    assert np.mean(covered) >= 0.88  # 95 % is claimed
    # and it is not covered by being wide: the intervals are narrower than what there is to know
    assert deviation.mean() < 0.3 * truth.std()


def test_the_original_is_one_for_certain(layout: Layout) -> None:
    fitted = fitted_to(layout, planted.PlantedMachine(layout, noise=NOISE), drawn(layout, 20, seed=1))
    mean, deviation = fitted.predict([tuple(Form() for _ in layout.layers)])
    assert mean[0] == pytest.approx(1.0)
    assert deviation[0] == pytest.approx(0.0, abs=1e-9)


def test_a_form_that_was_never_seen_is_doubted(layout: Layout) -> None:
    fitted = fitted_to(layout, planted.PlantedMachine(layout, noise=NOISE), drawn(layout, 30, seed=1))
    known = tuple(planted.RANK for _ in layout.layers)
    strange = tuple(Form(kept_rank=2) for _ in layout.layers)
    (_, _), (sure, unsure) = fitted.predict([known, strange])
    assert unsure > 3 * sure


def test_left_out_predictions_are_those_of_a_fit_without_the_model(layout: Layout) -> None:
    machine = planted.PlantedMachine(layout, noise=NOISE)
    many = drawn(layout, 25, seed=3)
    timed = [machine(by_fqn(layout, forms)) for forms in many]
    ratios, errors = [t.ratio for t in timed], [t.error for t in timed]
    whole = fit(layout, many, ratios, errors)
    foreseen, deviation = whole.left_out()
    for i in (0, 7, 24):
        rest = [j for j in range(len(many)) if j != i]
        other = fit(
            layout, [many[j] for j in rest], [ratios[j] for j in rest], [errors[j] for j in rest],
            scales=whole.scales, also=many,
        )  # fmt: skip
        mean, own = other.predict([many[i]])
        assert foreseen[i] == pytest.approx(mean[0], abs=1e-6)
        noise = np.hypot(whole.scales["noise"] * ratios[i], errors[i])
        assert deviation[i] == pytest.approx(np.hypot(own[0], noise), rel=1e-3)


def test_chosen_models_teach_more_than_random_ones() -> None:
    layout = planted.chain(24, n_classes=6)
    better = []
    for seed in range(5):
        machine = planted.PlantedMachine(layout, noise=0.002, seed=seed)
        start, unseen = drawn(layout, 8, seed=seed), drawn(layout, 200, seed=900 + seed)
        truth = np.array([machine.truth(by_fqn(layout, forms)) for forms in unseen])
        pool = [forms for forms in drawn(layout, 200, seed=300 + seed) if forms not in start]
        chosen = list(start)
        for _ in range(2):
            left = [forms for forms in pool if forms not in chosen]
            fitted = fitted_to(layout, machine, chosen)
            timed = [machine(by_fqn(layout, forms)) for forms in chosen]
            fitted = fit(layout, chosen, [t.ratio for t in timed], [t.error for t in timed], also=left)
            chosen += [left[i] for i in next_to_measure(fitted, left, 8)]
        random = [*start, *pool[:16]]
        errors = [
            np.abs(fitted_to(layout, machine, many).predict(unseen)[0] / truth - 1.0).mean()
            for many in (chosen, random)
        ]
        better.append(np.log(errors[1] / errors[0]))
    assert np.mean(better) > 0.05


def test_a_campaign_measures_what_differs_and_stops_at_its_number(layout: Layout) -> None:
    machine = planted.PlantedMachine(layout, noise=NOISE)
    offers = [[{fqn: form} for form in planted.FORMS] for fqn in layout.fqns]
    found, scales = measure(layout, offers, machine, n_models=30, max_seconds=1e9, clock=lambda: 0.0)
    assert len(found) == machine.n_timed == 30
    assert len({model.forms for model in found}) == 30
    uniform = {tuple(form for _ in layout.fqns) for form in planted.FORMS[1:]}
    assert uniform <= {model.forms for model in found}
    assert scales["noise"] > 0


def test_a_campaign_ends_with_its_time_and_needs_no_more_models_than_there_are(layout: Layout) -> None:
    machine = planted.PlantedMachine(layout)
    offers = [[{fqn: form} for form in planted.FORMS] for fqn in layout.fqns]
    times = iter(range(10_000))
    found, _ = measure(layout, offers, machine, n_models=500, max_seconds=20.0, clock=lambda: float(next(times)))
    assert 4 <= len(found) <= 22
    small = planted.chain(3)
    few = [[{fqn: form} for form in planted.FORMS] for fqn in small.fqns]
    found, _ = measure(small, few, planted.PlantedMachine(small), n_models=500, max_seconds=1e9, clock=lambda: 0.0)
    assert len(found) == 3**3 - 1


def test_what_the_runtime_refuses_is_passed_over_and_too_little_is_said(layout: Layout) -> None:
    machine = planted.PlantedMachine(layout)
    offers = [[{fqn: form} for form in planted.FORMS] for fqn in layout.fqns]

    def picky(forms: dict[str, Form]):  # type: ignore[no-untyped-def]
        if sum(form.kept_rank > 0 for form in forms.values()) > len(layout.layers) // 2:
            raise ParedownError("no kernel for so many factors")
        return machine(forms)

    found, _ = measure(layout, offers, picky, n_models=12, max_seconds=1e9, clock=lambda: 0.0)
    assert len(found) == 12
    assert not any(all(form.kept_rank for form in model.forms) for model in found)

    def refuses(forms: dict[str, Form]):  # type: ignore[no-untyped-def]
        raise ParedownError("no kernel for anything")

    with pytest.raises(ParedownError, match="0 were: no kernel for anything"):
        measure(layout, offers, refuses, n_models=9, max_seconds=1e9, clock=lambda: 0.0)
