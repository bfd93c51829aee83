"""What is removed whole, as a part of the space: trials are masked, exports are smaller, and both say the same."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec, forward, load_model, weight_at
from paredown.errors import ConfigError, InputError, IntegrityError, SpecError, TaskError
from paredown.evaluators.runtimes import STRUCTURE_FILE, get_runtime
from paredown.hardware_profiles import HardwareProfile
from paredown.search import (
    Candidate,
    Front,
    Task,
    apply_config,
    export_point,
    open_run,
    resume,
    search,
    verify_artifact,
)
from paredown.search.artifacts import Exporter
from paredown.search.evaluation import CandidateModel, Worker, exact_totals, static_costs
from paredown.search.phases import baselines_of
from paredown.search.problem import Problem, prepare
from paredown.search.report import uniform_label
from paredown.search.space import assignment_of, config_of, plans, threshold_settings, uniform_settings, weights_of
from paredown.search.values import is_structural, structure_of

TINY = Path(__file__).parents[1] / "tiny"


class Convolutions(nn.Module):
    """16 numbers as a picture of 4 x 4; a block that can be dropped, channels, and a linear layer after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Residual(8))
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.inner, self.head = nn.Linear(12 * 16, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(x.reshape(-1, 1, 4, 4)))))
        output: Tensor = self.head(torch.relu(self.inner(torch.relu(self.conv(x)).flatten(1))))
        return output


class Residual(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.Conv2d(n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.b(torch.relu(self.bn(self.a(x))))
        return output


class Router(nn.Module):
    """Numbers and weights of the two experts of each token, as transformers' routers give them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.top_k, self.num_experts = nn.Parameter(torch.randn(6, 16)), 2, 6

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = x @ self.weight.T
        weights, chosen = logits.softmax(-1).topk(self.top_k, -1)
        return logits, weights / weights.sum(-1, keepdim=True), chosen


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(6, 16, 12) / 4), nn.Parameter(torch.randn(6, 12, 16) / 4)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        hidden = torch.einsum("bi,bkio->bko", x, self.up[chosen]).relu()
        return torch.einsum("bko,bkoi,bk->bi", hidden, self.down[chosen], weights)


class Mixture(nn.Module):
    """A layer whose experts lie in one tensor, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts, self.head = Router(), Stacked(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        _, weights, chosen = self.gate(x)
        output: Tensor = self.head(x + self.experts(x, chosen, weights))
        return output


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(self.norm(self.up(x)).relu())
        return output


class Listed(nn.Module):
    """A layer whose experts are modules in a list, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.top_k, self.head = nn.Linear(16, 6, bias=False), 2, nn.Linear(16, 10)
        self.experts = nn.ModuleList(Expert() for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(self.top_k, -1)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mixed = mixed + expert(x) * (weights * (chosen == i)).sum(-1, keepdim=True)
        output: Tensor = self.head(x + mixed)
        return output


class Dispatched(Listed):
    """An expert that nobody asks does not run."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(self.top_k, -1)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            token, slot = (chosen == i).nonzero(as_tuple=True)
            if len(token):
                mixed = mixed.index_add(0, token, expert(x[token]) * weights[token, slot, None])
        output: Tensor = self.head(x + mixed)
        return output


def dispatched() -> nn.Module:
    made = Dispatched().eval()
    made.load_state_dict(listed().state_dict())
    return made


def test_experts_that_one_sample_does_not_ask_are_layers_all_the_same(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    space = {"experts": [1.0, 0.5], "weight_bits": [4, 32]}
    problem = prepare(task(**space), store=tmp_path / "store", model=dispatched())
    assert problem.anatomy.unused == ()
    exporter, inputs = Exporter(problem), problem.context.split.take(20).inputs
    candidate = smallest(problem)
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
    path = exporter.export(problem.space.assignment(candidate), "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=dispatched).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    totals = exact_totals(problem, exporter.candidate_model.pruned_models, candidate)
    written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
    assert totals["bytes"] == written
    gate = 3 * 16  # of its six outputs three are left; the MACs of the experts stay
    assert totals["macs"] == pytest.approx(problem.anatomy.macs - gate, abs=12)


def listed() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Listed().eval()
        for name, value in made.named_buffers():
            if value.is_floating_point():
                value.uniform_(0.5, 2.0) if "var" in name else value.normal_()
        return made


def mixture() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Mixture().eval()


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Convolutions().eval()


@pytest.fixture
def task() -> Callable[..., Task]:
    def make(**space: Any) -> Task:
        data = {
            "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
            "quality": {"max_loss": 1.0},
            "space": {"weight_bits": [4, 32], "activation_bits": [32], **space},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "budget": {"trials": 4},
            "mlflow": {"enabled": False},
        }
        return Task.from_dict(data, base_dir=TINY)

    return make


ALL = {"channels": [1.0, 0.75, 0.5], "neurons": [1.0, 0.5], "blocks": True}


@pytest.fixture
def problem(task: Callable[..., Task], tmp_path: Path) -> Problem:
    return prepare(task(**ALL), store=tmp_path / "store", model=model())


def smallest(problem: Problem, *, but: str = "") -> Candidate:
    """Every group at its last level, but one."""
    return Candidate(levels=tuple(0 if group.name == but else len(group.levels) - 1 for group in problem.space.groups))


def test_sets_and_blocks_are_groups_of_the_space(problem: Problem) -> None:
    groups = {group.name: [level.label() for level in group.levels] for group in problem.space.groups}
    assert groups == {
        "channels:stem": ["fp32", "k75", "k50"],
        "channels:blocks.0.a": ["fp32", "k75", "k50"],
        "channels:conv": ["fp32", "k75", "k50"],
        "neurons:inner": ["fp32", "k50"],
        "block:blocks.0": ["fp32", "k0"],
        **{fqn: ["fp32", "w4"] for fqn in ("stem", "blocks.0.a", "blocks.0.b", "conv", "inner", "head")},
    }
    assert [label for label, _ in uniform_settings(problem.space)] == ["k75", "k50", "w4"]


def test_one_threshold_for_all_sets_is_a_baseline_too(problem: Problem) -> None:
    structured = problem.context.structured
    assert structured is not None
    found = threshold_settings(problem.space, structured)
    uniform = [candidate for _, candidate in uniform_settings(problem.space)]
    assert {c for _, c in found} - set(uniform), "it keeps another share of each set"
    assert len({label for label, _ in found}) == len(found), "two settings never have one name"
    for _, candidate in found:
        assignment = problem.space.assignment(candidate)
        assert all(is_structural(name) for name, spec in assignment.items() if not spec.is_neutral)
    label = uniform_label(config_of(problem.space.assignment(uniform[1])))
    assert label == "k50"
    named, uneven = next((label, candidate) for label, candidate in found if candidate not in uniform)
    assert named in ("threshold k75", "threshold k50")
    said = uniform_label(config_of(problem.space.assignment(uneven)))
    counts = [int(part.partition("×")[2]) for part in said.split()]
    assert len(counts) > 1, said
    assert sum(counts) == 4, said
    assert baselines_of(problem)[uneven] == named


def test_it_goes_to_another_process(problem: Problem) -> None:
    again = pickle.loads(pickle.dumps(problem.context.structured))
    assert again == problem.context.structured


@pytest.mark.parametrize("but", ["", "block:blocks.0", "channels:stem"])
def test_a_trial_says_what_the_exported_model_says_and_costs_what_it_weighs(
    problem: Problem, tmp_path: Path, but: str
) -> None:
    candidate = smallest(problem, but=but)
    exporter = Exporter(problem)
    inputs = problem.context.split.take(20).inputs
    before = {name: value.clone() for name, value in problem.context.model.state_dict().items()}
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
    assert all(torch.equal(v, before[name]) for name, v in problem.context.model.state_dict().items())
    assignment = problem.space.assignment(candidate)
    path = exporter.export(assignment, "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    totals = exact_totals(problem, exporter.candidate_model.pruned_models, candidate)
    written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
    assert totals["bytes"] == written == exporter.stored_bytes(assignment, tmp_path / "again")
    assert totals["macs"] < 0.5 * problem.anatomy.macs


def test_a_structure_file_that_is_damaged_or_of_another_model_is_refused(problem: Problem, tmp_path: Path) -> None:
    path = Exporter(problem).export(problem.space.assignment(smallest(problem)), "paredown", tmp_path / "out")
    structure = path.with_name(STRUCTURE_FILE)
    for text, kind, said in (
        ("{", IntegrityError, "is not JSON"),
        (structure.read_text().replace("conv.weight", "conv.gain"), ConfigError, "there is no tensor conv.gain"),
    ):
        structure.write_text(text)
        with pytest.raises(kind, match=said):
            get_runtime("torch").load(path, threads=1, model_factory=model)


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_other_formats_hold_the_smaller_model(problem: Problem, tmp_path: Path, format: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}[format])
    candidate = smallest(problem)
    exporter = Exporter(problem)
    inputs = problem.context.split.take(20).inputs
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
    path = exporter.export(problem.space.assignment(candidate), format, tmp_path / "out")
    runtime = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}[format]
    got = get_runtime(runtime).load(path, threads=1).run(inputs)
    torch.testing.assert_close(want, torch.as_tensor(got), atol=1e-3, rtol=1e-3)


def test_the_tables_costs_are_right_at_both_ends_and_never_negative(task: Callable[..., Task], tmp_path: Path) -> None:
    problem = prepare(task(**ALL | {"weight_bits": [32]}), store=tmp_path / "store", model=model())
    worker = Worker(problem.context)
    stored = {(fqn, LayerSpec()): worker.build_variants(fqn, [LayerSpec()])[0].n_bytes for fqn in problem.anatomy.fqns}
    costs, fixed = static_costs(problem, stored)
    low = exact_totals(problem, worker.candidate_model.pruned_models, smallest(problem))
    for name in ("macs", "bops", "latency_ms"):
        assert all(value >= 0 for row in costs[name] for value in row)
        assert fixed[name] + sum(row[-1] for row in costs[name]) == pytest.approx(low[name])
    assert fixed["macs"] + sum(row[0] for row in costs["macs"]) == pytest.approx(problem.anatomy.macs)


def test_a_reset_takes_a_half_applied_mask_off(problem: Problem) -> None:
    worker = Worker(problem.context)
    before = {name: (value.data_ptr(), value.clone()) for name, value in problem.context.model.state_dict().items()}
    block = worker.candidate_model.applied(smallest(problem))
    block.__enter__()
    worker.reset()
    for name, value in problem.context.model.state_dict().items():
        assert (value.data_ptr(), True) == (before[name][0], torch.equal(value, before[name][1]))
    assert not any(m._forward_hooks or "forward" in vars(m) for m in problem.context.model.modules())


def test_a_config_names_what_is_removed(problem: Problem) -> None:
    assignment = problem.space.assignment(smallest(problem))
    config = json.loads(json.dumps(config_of(assignment)))
    assert config["layers"]["channels:conv"] == {"keep": 0.5}
    again = assignment_of(config, problem.anatomy)
    assert {name: spec for name, spec in again.items() if is_structural(name)} == {
        name: spec for name, spec in assignment.items() if is_structural(name)
    }
    structured = problem.context.structured
    assert structured is not None
    structured.check(again)
    for broken, said in (
        ({"channels:nowhere": LayerSpec(keep=0.5)}, "channels:nowhere, which this task does not know; known are"),
        ({"channels:conv": LayerSpec(weight_bits=4)}, "can keep a share of its units and nothing else, got 'w4'"),
    ):
        with pytest.raises(ConfigError, match=said):
            structured.check(broken)
    with pytest.raises(ConfigError, match="not ranked by 'taylor'"):
        structured.removal(problem.context.model, {"channels:conv": LayerSpec(keep=0.5, keep_method="taylor")})


def test_shares_by_glob_scores_alignment_and_leave(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(
        channels=[1.0, 0.5], keep_method=["l2", "hessian"], round_to=4, leave=["blocks.0.b"],
        overrides={"conv": {"channels": [1.0, 0.7]}},
    )  # fmt: skip
    problem = prepare(made, store=tmp_path / "store", model=model())
    groups = {group.name: [level.label() for level in group.levels] for group in problem.space.groups}
    assert groups["channels:conv"] == ["fp32", "k70:l2", "k70:hessian"]
    assert "channels:blocks.0.a" not in groups, "its channels go through a layer that is to be left alone"
    structured = problem.context.structured
    assert structured is not None
    assert "leave names a layer" in structured.left["channels:blocks.0.a"]
    conv = next(s for s in structured.sets if s.name == "channels:conv")
    assert len(structured.kept(conv, LayerSpec(keep=0.7, keep_method="l2"))) == 8  # 8.4 of 12, to a multiple of four


class Separable(nn.Module):
    """A depthwise convolution between two of one position, and a plain one behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.point, self.last, self.head = nn.Conv2d(20, 12, 1), nn.Conv2d(12, 14, 3, padding=1), nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depth(torch.relu(self.stem(x.reshape(-1, 1, 4, 4)))))
        output: Tensor = self.head(torch.relu(self.last(torch.relu(self.point(x)))).mean((2, 3)))
        return output


@pytest.mark.parametrize(
    ("profile", "round_to", "kept"),
    [
        ("x86-64-onnxruntime", None, {"stem": 8, "point": 7, "last": 8}),  # 0.55 of 20, 12 and 14
        ("x86-64-openvino", None, {"stem": 11, "point": 7, "last": 8}),
        ("x86-64-onnxruntime", 5, {"stem": 10, "point": 5, "last": 10}),
        ("x86-64-onnxruntime", 1, {"stem": 11, "point": 7, "last": 8}),
    ],
)
def test_channels_are_rounded_where_the_profile_asks_for_it(
    task: Callable[..., Task], tmp_path: Path, profile: str, round_to: int | None, kept: dict[str, int]
) -> None:
    asked: dict[str, Any] = {} if round_to is None else {"round_to": round_to}
    made = task(channels=[1.0, 0.55], keep_method=["l2"], **asked).with_overrides([f'hardware.profile="{profile}"'])
    torch.manual_seed(2)
    structured = prepare(made, store=tmp_path / "store", model=Separable().eval()).context.structured
    assert structured is not None
    half = LayerSpec(keep=0.55, keep_method="l2")
    found = {s.name.removeprefix("channels:"): len(structured.kept(s, half)) for s in structured.sets}
    assert found == kept


def test_a_run_whose_channels_would_be_rounded_otherwise_now_is_not_gone_on_with(
    task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_unverified: Callable[..., Front]
) -> None:
    """Its trials are of other models than their shares mean now: neither resumed nor exported as if they were not."""
    torch.manual_seed(2)
    subject, run = Separable().eval(), tmp_path / "run"
    made = task(channels=[0.55], keep_method=["l2"], weight_bits=[32]).with_overrides(["budget.trials=1"])
    search_unverified(made, model=subject, out=run, workers=0)
    point = next(f"t{t.number}" for t in open_run(run).trials if t.kind == "uniform")
    shutil.rmtree(run / "verified")
    for multiple, resumed, exported in (
        (8, "what can be removed keeps other numbers of units", "MACs when it was tried"),
        (16, "channels:point is no part of it any more, for of its 12 units all stay", "which this task does not know"),
    ):
        monkeypatch.setattr(HardwareProfile, "alignment_of", lambda *_, n=multiple, **_kind: n)
        with pytest.raises(TaskError, match=resumed):
            resume(run, model=subject, workers=0)
        with pytest.raises(ConfigError, match=exported):
            export_point(run, point, "pt2", tmp_path / "out", model=subject)
    assert open_run(run).front().points


def test_where_a_score_says_nothing_another_ranks(task: Callable[..., Task], tmp_path: Path) -> None:
    problem = prepare(task(neurons=[1.0, 0.5], keep_method=["batch_norm"]), store=tmp_path / "store", model=model())
    structured = problem.context.structured
    assert structured is not None
    (group,) = [group for group in problem.space.groups if is_structural(group.name)]
    assert [level.label() for level in group.levels] == ["fp32", "k50:l2"]
    assert "it is ranked by l2" in structured.left["neurons:inner by batch_norm"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"heads": [1.0, 0.5]}, "space.heads: this model has no heads that can be removed"),
        ({"channels": [1.0, 0.01]}, r"keeping 0.01 of the \d+ units of channels:\S+ leaves 0; at least 1 must stay"),
        ({"channels": [1.0, 0.5], "keep_method": ["l3"]}, "there is no score 'l3'; known are l1, l2"),
    ],
)
def test_what_cannot_be_is_said(task: Callable[..., Task], tmp_path: Path, space: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        prepare(task(**space), store=tmp_path / "store", model=model())


LOOKING: tuple[dict[str, Any], ...] = (
    *(
        {"weight_bits": [4], "weight_method": [m]}
        for m in ("gptq", "awq", "adaround", "adaptive", "descent", "weighted")
    ),
    *(
        {"weight_bits": [32], "sparsity": [0.5], "sparsity_method": [m]}
        for m in ("wanda", "sparsegpt", "obs", "taylor")
    ),
    {"weight_bits": [32], "rank": [0.25], "rank_method": ["asvd"]},
    {"weight_bits": [4], "weight_method": ["gptq"], "sparsity": [0.5], "sparsity_method": ["sparsegpt"]},
    {"weight_bits": [3], "rank": [0.25], "rank_method": ["asvd"], "rank_form": ["residual"]},
)


@pytest.mark.parametrize("space", LOOKING, ids=lambda space: "-".join(str(v[0]) for v in space.values()))
def test_methods_that_look_at_inputs_or_gradients_know_what_is_left(
    task: Callable[..., Task], tmp_path: Path, space: dict[str, Any]
) -> None:
    """In a trial and in the artifact, the same weights to the bit."""
    problem = prepare(task(**ALL | space), store=tmp_path / "store", model=model())
    candidate, exporter = smallest(problem, but="block:blocks.0"), Exporter(problem)
    assignment = problem.space.assignment(candidate)
    inputs = problem.context.split.take(20).inputs
    cut = exporter.candidate_model.pruned_models.build(assignment)
    assert {fqn for fqn, spec in cut.assignment.items() if spec.changes_weight}
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
        trial = {
            fqn: weight_at(resident, fqn)[grid(cut.removal.tensors.get(f"{fqn}.weight", {}), weight_at(resident, fqn))]
            for fqn in cut.variants
        }
    path = exporter.export(assignment, "paredown", tmp_path / "out")
    small = exporter.candidate_model.pruned_models.model(cut.removal)
    load_model(path, small)
    for fqn, weight in trial.items():
        assert torch.equal(weight_at(small, fqn), weight), fqn
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)


def grid(axes: Any, weight: Tensor) -> tuple[Tensor, ...]:
    places = [torch.tensor(axes.get(axis, range(size))) for axis, size in enumerate(weight.shape)]
    return torch.meshgrid(*places, indexing="ij")


def test_looking_at_the_inputs_helps_what_is_left_too(task: Callable[..., Task], tmp_path: Path) -> None:
    """The broken double would hand gptq the moments of other columns: it would then lose to plain rounding."""
    apart = {}
    for method in ("affine", "gptq"):
        problem = prepare(
            task(**ALL | {"weight_bits": [3], "weight_method": [method]}).with_overrides(['repair.batch_norm="off"']),
            store=tmp_path / method, model=model(),
        )  # fmt: skip
        candidate_model, inputs = CandidateModel(problem.context), problem.context.split.inputs
        space = problem.space
        cut = {name: spec for name, spec in space.assignment(smallest(problem)).items() if is_structural(name)}
        with candidate_model.apply(cut, batch_norm=False) as resident, torch.no_grad():
            want = forward(resident, inputs)
        with candidate_model.applied(smallest(problem)) as resident, torch.no_grad():
            apart[method] = float((forward(resident, inputs) - want).square().mean())
    assert apart["gptq"] < 0.8 * apart["affine"]


@pytest.mark.parametrize("how", ["equalize", "awq"])
def test_scaled_channels_go_with_it(task: Callable[..., Task], tmp_path: Path, how: str) -> None:
    """The same units go as without scaling, what is left answers alike, and the export as the trial."""
    keys = ['repair.batch_norm="off"']
    plain = prepare(task(**ALL).with_overrides(keys), store=tmp_path / "store", model=model())
    scaled = task(**ALL).with_overrides([*keys, f'prepare.scaling="{how}"'])
    problem = prepare(scaled, store=tmp_path / "store", model=model())
    changed = [k for k, v in problem.context.model.state_dict().items() if not torch.equal(v, model().state_dict()[k])]
    assert changed
    assert problem.context.structured == plain.context.structured
    exporter, inputs = Exporter(problem), problem.context.split.take(20).inputs
    for but in ("", "block:blocks.0"):
        assignment = problem.space.assignment(smallest(problem, but=but))
        cut = {name: spec for name, spec in assignment.items() if is_structural(name)}
        answers = []
        for candidate_model in (exporter.candidate_model, CandidateModel(plain.context)):
            with candidate_model.apply(cut, batch_norm=False) as resident, torch.no_grad():
                answers.append(forward(resident, inputs))
        torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=1e-4)
        with exporter.candidate_model.applied(smallest(problem, but=but)) as resident, torch.no_grad():
            want = forward(resident, inputs)
        path = exporter.export(assignment, "paredown", tmp_path / "out")
        got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)


class Attending(nn.Module):
    """16 numbers as four tokens: PyTorch's own attention, one written by hand, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.qkv, self.out, self.n_heads = nn.Linear(16, 48), nn.Linear(16, 16), 4
        self.cell, self.head = nn.LSTM(16, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.embed(x.reshape(-1, 4, 4)))
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        output: Tensor = self.head(self.cell(x)[0].mean(dim=1))
        return output


def attending() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Attending().eval()


@pytest.mark.parametrize("method", ["affine", "gptq"])
def test_heads_width_neurons_and_units_are_masked_in_a_trial_and_removed_in_the_export(
    task: Callable[..., Task], tmp_path: Path, method: str
) -> None:
    half = [1.0, 0.5]
    removed = {"heads": half, "neurons": half, "width": half, "units": half, "keep_method": ["taylor"]}
    made = task(**removed, weight_bits=[4, 32], weight_method=[method])
    problem = prepare(made, store=tmp_path / "store", model=attending())
    kinds = {group.name.partition(":")[0] for group in problem.space.groups if is_structural(group.name)}
    assert kinds == {"heads", "neurons", "hidden", "units"}
    exporter, inputs = Exporter(problem), problem.context.split.take(20).inputs
    for but in ("", *(group.name for group in problem.space.groups if is_structural(group.name))):
        candidate = smallest(problem, but=but)
        inside = {fqn: spec for fqn, spec in problem.space.assignment(candidate).items() if fqn.startswith("cell.")}
        assert {spec.weight_method for spec in inside.values()} == {method}
        with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
            want = forward(resident, inputs)
        path = exporter.export(problem.space.assignment(candidate), "paredown", tmp_path / "out")
        got = get_runtime("torch").load(path, threads=1, model_factory=attending).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert exact_totals(problem, exporter.candidate_model.pruned_models, candidate)["bytes"] == written


def test_what_the_alignment_forbids_is_named(task: Callable[..., Task], tmp_path: Path) -> None:
    """Four heads of four channels in multiples of 16: none can go. Of 24 neurons eight can."""
    made = task(heads=[1.0, 0.5], neurons=[1.0, 0.5], weight_bits=[32], round_to=16, keep_method=["taylor"])
    with pytest.raises(
        TaskError,
        match=r"space\.heads: .*its 4 units of 4 channels all stay at 0\.5 in multiples of 16 channels; lower round_to",
    ):
        prepare(made, store=tmp_path / "store", model=attending())
    made = task(neurons=[1.0, 0.5], channels=[1.0, 0.75], weight_bits=[32], round_to=8)
    structured = prepare(made, store=tmp_path / "store", model=model()).context.structured
    assert structured is not None
    assert structured.left["channels:stem"].startswith("of its 8 units all stay at 0.75 in multiples of 8")
    assert [coupled.name for coupled in structured.sets] == ["channels:conv", "neurons:inner"]


REPAIRS = (
    ['repair.batch_norm="trials"', "repair.samples=40"],
    ["repair.bias=true"],
    ["repair.bias=true", 'repair.batch_norm="trials"', "repair.samples=40"],
)


@pytest.mark.parametrize("keys", [["repair.bias=true"], []])
def test_experts_in_a_list_are_masked_in_a_trial_and_removed_in_the_export(
    task: Callable[..., Task], tmp_path: Path, keys: list[str]
) -> None:
    """With bits, neurons inside of the experts, biases and batch norms that follow; the layers keep their names."""
    space = {"experts": [1.0, 0.67, 0.34], "neurons": [1.0, 0.5], "weight_bits": [4, 32], "weight_method": ["gptq"]}
    problem = prepare(task(**space).with_overrides(keys), store=tmp_path / "store", model=listed())
    (group,) = [group for group in problem.space.groups if group.name.startswith("experts:")]
    assert [level.label() for level in group.levels] == ["fp32", "k67:frequency", "k34:frequency"]
    worker, exporter, inputs = Worker(problem.context), Exporter(problem), problem.context.split.take(20).inputs
    stored = {(f, s): worker.build_variants(f, [s])[0].n_bytes for g in problem.space.groups for f in g.layers
              if not is_structural(f) for s in {*g.levels, LayerSpec()}}  # fmt: skip
    stored |= {(fqn, LayerSpec()): worker.build_variants(fqn, [LayerSpec()])[0].n_bytes for fqn in problem.anatomy.fqns}
    costs, _ = static_costs(problem, stored)
    assert costs["bytes"][problem.space.groups.index(group)][0] > 0
    for level, others in ((1, 0), (2, 1)):
        levels = tuple(level if g is group else others * (len(g.levels) - 1) for g in problem.space.groups)
        candidate = Candidate(levels=levels)
        with exporter.candidate_model.applied(Candidate(levels=levels)) as resident, torch.no_grad():
            want = forward(resident, inputs)
        assignment = problem.space.assignment(candidate)
        cut = exporter.candidate_model.pruned_models.build(assignment)
        names = {fqn.split(".")[1] for fqn in cut.anatomy.fqns if fqn.startswith("experts.")}
        assert len(names) == (4, 2)[level - 1]
        small = exporter.candidate_model.pruned_models.model(cut.removal)
        assert {name.split(".")[1] for name in small.state_dict() if name.startswith("experts.")} == names
        path = exporter.export(assignment, "paredown", tmp_path / f"out{level}")
        got = get_runtime("torch").load(path, threads=1, model_factory=listed).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert exact_totals(problem, exporter.candidate_model.pruned_models, candidate)["bytes"] == written
        for format in ("pt2", "onnx"):
            assert exporter.export(assignment, format, tmp_path / f"{format}{level}").stat().st_size > 0


@pytest.mark.parametrize("keys", REPAIRS)
@pytest.mark.parametrize("but", ["", "block:blocks.0", "channels:stem"])
def test_what_is_left_is_repaired_alike_in_a_trial_and_in_the_export(
    task: Callable[..., Task], tmp_path: Path, keys: list[str], but: str
) -> None:
    problem = prepare(task(**ALL).with_overrides(keys), store=tmp_path / "store", model=model())
    off = task(**ALL).with_overrides(['repair.batch_norm="off"'])
    plain = prepare(off, store=tmp_path / "store", model=model())
    candidate, inputs = smallest(problem, but=but), problem.context.split.take(20).inputs
    exporter = Exporter(problem)
    before = {name: value.clone() for name, value in problem.context.model.state_dict().items()}
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
    with CandidateModel(plain.context).applied(candidate) as resident, torch.no_grad():
        assert not torch.allclose(want, forward(resident, inputs), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(v, before[name]) for name, v in problem.context.model.state_dict().items())
    assignment = problem.space.assignment(candidate)
    path = exporter.export(assignment, "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    again = exporter.export(assignment, "paredown", tmp_path / "again")
    assert path.read_bytes() == again.read_bytes(), "what was repaired once is not repaired twice"
    sizes = [Exporter(p).stored_bytes(assignment, tmp_path / "size") for p in (plain, problem)]
    assert sizes[0] == sizes[1] == exact_totals(problem, exporter.candidate_model.pruned_models, candidate)["bytes"]


def test_batch_norms_of_finalists_alone_follow_what_was_removed(task: Callable[..., Task], tmp_path: Path) -> None:
    """The removed model's batch norms then have the statistics of what they see."""
    keys = ['repair.batch_norm="finalists"', "repair.samples=40"]
    made = task(channels=[1.0, 0.5], weight_bits=[32]).with_overrides(keys)
    problem = prepare(made, store=tmp_path / "store", model=model())
    exporter, candidate = Exporter(problem), smallest(problem)
    assignment = problem.space.assignment(candidate)
    norm = problem.context.model.get_submodule("bn")
    assert isinstance(norm.running_mean, Tensor)
    before = norm.running_mean.clone()
    with exporter.candidate_model.applied(candidate):
        kept = norm.running_mean != 0
        assert torch.equal(norm.running_mean[kept], before[kept]), "a trial's batch norms stay"
    with exporter.repaired(assignment) as (small, _, _, _):
        moved = small.get_submodule("blocks.0.bn").running_mean.clone()
    whole = problem.context.model.get_submodule("blocks.0.bn").running_mean
    assert moved.shape[0] < whole.shape[0]
    assert not any(torch.isclose(value, whole, atol=1e-6).any() for value in moved)


class Asking(Convolutions):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * scale


def test_an_argument_that_the_task_does_not_give_is_named(task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing 1 required positional argument: 'scale'.*Give every argument"):
        prepare(task(**ALL), store=tmp_path / "store", model=Asking().eval())


def test_batch_norms_follow_by_themselves_where_something_is_removed(task: Callable[..., Task], tmp_path: Path) -> None:
    def asked(*keys: str, **space: Any) -> str | None:
        made = task(**space).with_overrides(list(keys))
        return prepare(made, store=tmp_path / "store", model=model()).context.repair.batch_norm

    assert asked(channels=[1.0, 0.5], weight_bits=[32]) == "trials"
    assert asked('repair.batch_norm="off"', channels=[1.0, 0.5], weight_bits=[32]) == "off"
    assert asked(weight_bits=[32, 8]) == "off"


def test_plans_of_the_layers_leave_sets_and_blocks_whole(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(**ALL | {"weight_bits": [32], "sparsity": [0.0, 0.3, 0.6]})
    problem = prepare(made, store=tmp_path / "store", model=model())
    found = plans(problem.space, weights_of(problem.context.model))
    assert [label for label, _ in found] == ["global s30", "global s60"]
    for _, candidate in found:
        assignment = problem.space.assignment(candidate)
        assert not structure_of(assignment)
        assert any(spec.sparsity > 0.0 for spec in assignment.values())


def test_tensors_that_are_shared_are_rounded_where_something_was_removed_too(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    space = {"weight_bits": [8], "activation_bits": [8], "activation_scope": ["tensor"]}
    problem = prepare(task(**ALL | space), store=tmp_path / "store", model=model())
    exporter, inputs = Exporter(problem), problem.context.split.take(20).inputs
    for but in ("", "block:blocks.0"):
        candidate = smallest(problem, but=but)
        assignment = problem.space.assignment(candidate)
        with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
            want = forward(resident, inputs)
        path = exporter.export(assignment, "paredown", tmp_path / "out")
        got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert exact_totals(problem, exporter.candidate_model.pruned_models, candidate)["bytes"] == written
        scopes = {spec.activation_scope for spec in assignment.values() if spec.changes_activation}
        assert "tensor" in scopes


def test_measured_latencies_do_not_go_with_it(task: Callable[..., Task], tmp_path: Path) -> None:
    measured = task(**ALL).with_overrides(["hardware.latency=measured"])
    with pytest.raises(TaskError, match="a table of measured latencies knows the layers as they are"):
        prepare(measured, store=tmp_path / "store", model=model())


def test_what_is_left_may_be_too_small_for_its_treatment(problem: Problem) -> None:
    """Then as much of it as fits: the row for the group, dense where the pattern does not fit, whole where the rank
    saves nothing."""
    pruned_models = CandidateModel(problem.context).pruned_models
    for asked, got in (
        (LayerSpec(weight_bits=4, group_size=16), LayerSpec(weight_bits=4)),
        (LayerSpec(weight_bits=4, group_size=8), LayerSpec(weight_bits=4, group_size=8)),
        (LayerSpec(sparsity=0.5, pattern="2:4"), LayerSpec()),
        (LayerSpec(weight_bits=4, sparsity=0.5, pattern="2:4"), LayerSpec(weight_bits=4)),
        (LayerSpec(rank=0.9), LayerSpec()),
        (LayerSpec(weight_bits=4, group_size=16, sparsity=0.5), LayerSpec(weight_bits=4, sparsity=0.5)),
    ):
        cut = pruned_models.build({"neurons:inner": LayerSpec(keep=0.5), "head": asked})
        assert cut.assignment["head"] == got
        assert ("head" in cut.variants) == got.changes_weight
    never = LayerSpec(weight_bits=2, weight_format="adaptive", weight_method="log_of_nobody")
    with pytest.raises(SpecError, match="log_of_nobody"):
        pruned_models.build({"neurons:inner": LayerSpec(keep=0.5), "head": never})


def test_a_trial_of_the_joint_space_does_not_fail_for_want_of_room(task: Callable[..., Task], tmp_path: Path) -> None:
    joint = {"weight_bits": [32, 4], "group_size": [16], "sparsity": [0.0, 0.5], "sparsity_pattern": ["2:4"]}
    problem = prepare(task(**ALL | joint), store=tmp_path / "store", model=model())
    candidate, exporter = smallest(problem), Exporter(problem)
    inputs = problem.context.split.take(20).inputs
    with exporter.candidate_model.applied(candidate) as resident, torch.no_grad():
        want = forward(resident, inputs)
    path = exporter.export(problem.space.assignment(candidate), "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
    assert exact_totals(problem, exporter.candidate_model.pruned_models, candidate)["bytes"] == written


def test_another_device_is_refused(problem: Problem) -> None:
    with pytest.raises(InputError, match="search with that profile"):
        problem.devices[0].rows(problem.anatomy, problem.space)


def test_from_a_search_to_an_artifact_that_is_measured_again(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(**ALL | {"weight_bits": [32]}).with_overrides(['objectives.names=["accuracy","macs"]'])
    front = search(made, model=model(), out=tmp_path / "run", workers=0)
    cut = [p for p in front.points if p.kind != "original" and p.verified]
    assert cut, [point.note for point in front.points]
    assert any(name.startswith("channels:") for point in cut for name in point.config["layers"])
    whole = next(p for p in front.points if p.kind == "original").metrics["macs"].value
    assert min(point.metrics["macs"].value for point in cut) < whole
    uniform = [p.label for p in front.points if p.kind == "uniform"]
    assert all(uniform)
    assert len(set(uniform)) == len(uniform)
    rows = {row["group"]: row for row in open_run(front.run).explain(cut[0].id)}
    spec = LayerSpec.from_dict(rows["channels:conv"]["spec"])
    assert rows["channels:conv"]["runs_as"] == f"{round(12 * spec.keep)} of 12 units"
    assert rows["channels:conv"]["label"] == ("whole" if spec.is_neutral else spec.label())
    assert rows["channels:conv"]["macs"] is None
    assert rows["block:blocks.0"]["runs_as"] in ("", "dropped")
    out = apply_config(cut[0].config, made, tmp_path / "applied", model=model())
    assert verify_artifact(out, task=made, model=model())["ok"]
    with pytest.raises(InputError, match="does not know"):
        apply_config(cut[0].config, task(), tmp_path / "elsewhere", model=model())


def test_experts_are_a_group_masked_in_a_trial_and_removed_in_the_export(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    made = task(experts=[1.0, 0.67, 0.34], weight_bits=[32])
    problem = prepare(made, store=tmp_path / "store", model=mixture())
    (group,) = [group for group in problem.space.groups if is_structural(group.name)]
    assert (group.name, [level.label() for level in group.levels]) == (
        "experts:experts", ["fp32", "k67:frequency", "k34:frequency"],
    )  # fmt: skip
    worker, exporter = Worker(problem.context), Exporter(problem)
    stored = {(fqn, LayerSpec()): worker.build_variants(fqn, [LayerSpec()])[0].n_bytes for fqn in problem.anatomy.fqns}
    costs, _ = static_costs(problem, stored)
    row = costs["bytes"][problem.space.groups.index(group)]
    assert row[0] - row[1] == pytest.approx(4 * 2 * (16 + 2 * 16 * 12))
    for level in (1, 2):
        levels = tuple(level if g is group else 0 for g in problem.space.groups)
        inputs = problem.context.split.take(20).inputs
        with exporter.candidate_model.applied(Candidate(levels=levels)) as resident, torch.no_grad():
            want = forward(resident, inputs)
        assignment = problem.space.assignment(Candidate(levels=levels))
        path = exporter.export(assignment, "paredown", tmp_path / f"out{level}")
        got = get_runtime("torch").load(path, threads=1, model_factory=mixture).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert (
            exact_totals(problem, exporter.candidate_model.pruned_models, Candidate(levels=levels))["bytes"] == written
        )
    with pytest.raises(TaskError, match=r"units of experts:experts leaves 1; at least 2 must stay"):
        prepare(task(experts=[1.0, 0.1]), store=tmp_path / "store", model=mixture())
    with pytest.raises(TaskError, match=r"space\.experts: this model has no experts that can be removed"):
        prepare(task(experts=[1.0, 0.5]), store=tmp_path / "store", model=model())
