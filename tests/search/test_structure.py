"""What is removed whole, as a part of the space: trials are masked, exports are smaller, and both say the same."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import LayerSpec, forward
from paredown.errors import ConfigError, InputError, IntegrityError, SpecError, TaskError
from paredown.evaluators.runtimes import STRUCTURE_FILE, get_runtime
from paredown.search import Candidate, Task, apply_config, search, verify_artifact
from paredown.search._bench import Worker
from paredown.search._build_space import uniform_settings
from paredown.search._chart import uniform_label
from paredown.search._config import assignment_of, config_of
from paredown.search._prepare import Prepared, prepare, static_costs
from paredown.search._structural_costs import exact_totals
from paredown.search._structure import is_structural, structure_of, threshold_settings
from paredown.search._thresholds import plans, weights_of
from paredown.search._workshop import Workshop

TINY = Path(__file__).parent / "tiny"


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
def prepared(task: Callable[..., Task], tmp_path: Path) -> Prepared:
    return prepare(task(**ALL), store=tmp_path / "store", model=model())


def smallest(prepared: Prepared, *, but: str = "") -> Candidate:
    """Every group at its last level, but one."""
    return Candidate(levels=tuple(0 if group.name == but else len(group.levels) - 1 for group in prepared.space.groups))


def test_sets_and_blocks_are_groups_of_the_space(prepared: Prepared) -> None:
    groups = {group.name: [level.label() for level in group.levels] for group in prepared.space.groups}
    assert groups == {
        "channels:stem": ["fp32", "k75", "k50"],
        "channels:blocks.0.a": ["fp32", "k75", "k50"],
        "channels:conv": ["fp32", "k75", "k50"],
        "neurons:inner": ["fp32", "k50"],
        "block:blocks.0": ["fp32", "k0"],
        **{fqn: ["fp32", "w4"] for fqn in ("stem", "blocks.0.a", "blocks.0.b", "conv", "inner", "head")},
    }
    assert [label for label, _ in uniform_settings(prepared.space)] == ["k75", "k50", "w4"]


def test_one_threshold_for_all_sets_is_a_baseline_too(prepared: Prepared) -> None:
    structured = prepared.bench.structured
    assert structured is not None
    found = threshold_settings(prepared.space, structured)
    uniform = [candidate for _, candidate in uniform_settings(prepared.space)]
    assert set(found) - set(uniform), "it keeps another share of each set"
    for candidate in found:
        assignment = prepared.space.assignment(candidate)
        assert all(is_structural(name) for name, spec in assignment.items() if not spec.is_neutral)
    label = uniform_label(config_of(prepared.space.assignment(uniform[1])))
    assert label == "k50"
    uneven = next(candidate for candidate in found if candidate not in uniform)
    assert uniform_label(config_of(prepared.space.assignment(uneven))).startswith("threshold k")


def test_it_goes_to_another_process(prepared: Prepared) -> None:
    again = pickle.loads(pickle.dumps(prepared.bench.structured))
    assert again == prepared.bench.structured


@pytest.mark.parametrize("but", ["", "block:blocks.0", "channels:stem"])
def test_a_trial_says_what_the_exported_model_says_and_costs_what_it_weighs(
    prepared: Prepared, tmp_path: Path, but: str
) -> None:
    candidate = smallest(prepared, but=but)
    shop = Workshop(prepared)
    inputs = prepared.bench.split.take(20).inputs
    before = {name: value.clone() for name, value in prepared.bench.model.state_dict().items()}
    with shop.worker.applied(candidate.levels) as resident, torch.no_grad():
        want = forward(resident, inputs)
    assert all(torch.equal(v, before[name]) for name, v in prepared.bench.model.state_dict().items())
    assignment = prepared.space.assignment(candidate)
    path = shop.export(assignment, "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    totals = exact_totals(prepared, shop.worker, candidate)
    written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
    assert totals["bytes"] == written == shop.stored_bytes(assignment, tmp_path / "again")
    assert totals["macs"] < 0.5 * prepared.anatomy.macs


def test_a_structure_file_that_is_damaged_or_of_another_model_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    path = Workshop(prepared).export(prepared.space.assignment(smallest(prepared)), "paredown", tmp_path / "out")
    structure = path.with_name(STRUCTURE_FILE)
    for text, kind, said in (
        ("{", IntegrityError, "is not JSON"),
        (structure.read_text().replace("conv.weight", "conv.gain"), ConfigError, "there is no tensor conv.gain"),
    ):
        structure.write_text(text)
        with pytest.raises(kind, match=said):
            get_runtime("torch").load(path, threads=1, model_factory=model)


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_other_formats_hold_the_smaller_model(prepared: Prepared, tmp_path: Path, format: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}[format])
    candidate = smallest(prepared)
    shop = Workshop(prepared)
    inputs = prepared.bench.split.take(20).inputs
    with shop.worker.applied(candidate.levels) as resident, torch.no_grad():
        want = forward(resident, inputs)
    path = shop.export(prepared.space.assignment(candidate), format, tmp_path / "out")
    runtime = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}[format]
    got = get_runtime(runtime).load(path, threads=1).run(inputs)
    torch.testing.assert_close(want, torch.as_tensor(got), atol=1e-3, rtol=1e-3)


def test_the_tables_costs_are_right_at_both_ends_and_never_negative(task: Callable[..., Task], tmp_path: Path) -> None:
    prepared = prepare(task(**ALL | {"weight_bits": [32]}), store=tmp_path / "store", model=model())
    worker = Worker(prepared.bench)
    stored = {(fqn, LayerSpec()): worker.build(fqn, [LayerSpec()])[0][0] for fqn in prepared.anatomy.fqns}
    costs, fixed = static_costs(prepared, stored)
    low = exact_totals(prepared, worker, smallest(prepared))
    for name in ("macs", "bops", "latency_ms"):
        assert all(value >= 0 for row in costs[name] for value in row)
        assert fixed[name] + sum(row[-1] for row in costs[name]) == pytest.approx(low[name])
    assert fixed["macs"] + sum(row[0] for row in costs["macs"]) == pytest.approx(prepared.anatomy.macs)


def test_a_reset_takes_a_half_applied_mask_off(prepared: Prepared) -> None:
    worker = Worker(prepared.bench)
    before = {name: (value.data_ptr(), value.clone()) for name, value in prepared.bench.model.state_dict().items()}
    block = worker.applied(smallest(prepared).levels)
    block.__enter__()
    worker.reset()
    for name, value in prepared.bench.model.state_dict().items():
        assert (value.data_ptr(), True) == (before[name][0], torch.equal(value, before[name][1]))
    assert not any(m._forward_hooks or "forward" in vars(m) for m in prepared.bench.model.modules())


def test_a_config_names_what_is_removed(prepared: Prepared) -> None:
    assignment = prepared.space.assignment(smallest(prepared))
    config = json.loads(json.dumps(config_of(assignment)))
    assert config["layers"]["channels:conv"] == {"keep": 0.5}
    again = assignment_of(config, prepared.anatomy)
    assert {name: spec for name, spec in again.items() if is_structural(name)} == {
        name: spec for name, spec in assignment.items() if is_structural(name)
    }
    structured = prepared.bench.structured
    assert structured is not None
    structured.check(again)
    for broken, said in (
        ({"channels:nowhere": LayerSpec(keep=0.5)}, "channels:nowhere, which this task does not know; known are"),
        ({"channels:conv": LayerSpec(weight_bits=4)}, "can keep a share of its units and nothing else, got 'w4'"),
    ):
        with pytest.raises(ConfigError, match=said):
            structured.check(broken)
    with pytest.raises(ConfigError, match="not ranked by 'taylor'"):
        structured.removal(prepared.bench.model, {"channels:conv": LayerSpec(keep=0.5, keep_method="taylor")})


def test_shares_by_glob_scores_alignment_and_leave(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(
        channels=[1.0, 0.5], keep_method=["l2", "hessian"], round_to=4, leave=["blocks.0.b"],
        overrides={"conv": {"channels": [1.0, 0.7]}},
    )  # fmt: skip
    prepared = prepare(made, store=tmp_path / "store", model=model())
    groups = {group.name: [level.label() for level in group.levels] for group in prepared.space.groups}
    assert groups["channels:conv"] == ["fp32", "k70:l2", "k70:hessian"]
    assert "channels:blocks.0.a" not in groups, "its channels go through a layer that is to be left alone"
    structured = prepared.bench.structured
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
    structured = prepare(made, store=tmp_path / "store", model=Separable().eval()).bench.structured
    assert structured is not None
    half = LayerSpec(keep=0.55, keep_method="l2")
    found = {s.name.removeprefix("channels:"): len(structured.kept(s, half)) for s in structured.sets}
    assert found == kept


def test_where_a_score_says_nothing_another_ranks(task: Callable[..., Task], tmp_path: Path) -> None:
    prepared = prepare(task(neurons=[1.0, 0.5], keep_method=["batch_norm"]), store=tmp_path / "store", model=model())
    structured = prepared.bench.structured
    assert structured is not None
    (group,) = [group for group in prepared.space.groups if is_structural(group.name)]
    assert [level.label() for level in group.levels] == ["fp32", "k50:l2"]
    assert "it is ranked by l2" in structured.left["neurons:inner by batch_norm"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"heads": [1.0, 0.5]}, "space.heads: this model has no heads that can be removed"),
        ({"channels": [1.0, 0.01]}, r"keeping 0.01 of the \d+ units of channels:\S+ leaves 0; at least 1 must stay"),
        ({"channels": [1.0, 0.5], "keep_method": ["l3"]}, "there is no score 'l3'; known are l1, l2"),
        ({"channels": [1.0, 0.5], "weight_method": ["gptq"]}, "do not know layers with fewer channels yet"),
        (
            {"channels": [1.0, 0.5], "sparsity": [0.0, 0.5], "sparsity_method": ["taylor"]},
            "do not know layers with fewer channels yet",
        ),
    ],
)
def test_what_cannot_be_is_said(task: Callable[..., Task], tmp_path: Path, space: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        prepare(task(**space), store=tmp_path / "store", model=model())


def test_scaled_channels_do_not_go_with_it(task: Callable[..., Task], tmp_path: Path) -> None:
    scaled = task(**ALL).with_overrides(['prepare.scaling="equalize"'])
    with pytest.raises(TaskError, match=r"prepare\.scaling: channels are not scaled"):
        prepare(scaled, store=tmp_path / "store", model=model())


REPAIRS = (
    ['repair.batch_norm="trials"', "repair.samples=40"],
    ["repair.bias=true"],
    ["repair.bias=true", 'repair.batch_norm="trials"', "repair.samples=40"],
)


@pytest.mark.parametrize("keys", REPAIRS)
@pytest.mark.parametrize("but", ["", "block:blocks.0", "channels:stem"])
def test_what_is_left_is_repaired_alike_in_a_trial_and_in_the_export(
    task: Callable[..., Task], tmp_path: Path, keys: list[str], but: str
) -> None:
    prepared = prepare(task(**ALL).with_overrides(keys), store=tmp_path / "store", model=model())
    off = task(**ALL).with_overrides(['repair.batch_norm="off"'])
    plain = prepare(off, store=tmp_path / "store", model=model())
    candidate, inputs = smallest(prepared, but=but), prepared.bench.split.take(20).inputs
    shop = Workshop(prepared)
    before = {name: value.clone() for name, value in prepared.bench.model.state_dict().items()}
    with shop.worker.applied(candidate.levels) as resident, torch.no_grad():
        want = forward(resident, inputs)
    with Worker(plain.bench).applied(candidate.levels) as resident, torch.no_grad():
        assert not torch.allclose(want, forward(resident, inputs), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(v, before[name]) for name, v in prepared.bench.model.state_dict().items())
    assignment = prepared.space.assignment(candidate)
    path = shop.export(assignment, "paredown", tmp_path / "out")
    got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    again = shop.export(assignment, "paredown", tmp_path / "again")
    assert path.read_bytes() == again.read_bytes(), "what was repaired once is not repaired twice"
    sizes = [Workshop(p).stored_bytes(assignment, tmp_path / "size") for p in (plain, prepared)]
    assert sizes[0] == sizes[1] == exact_totals(prepared, shop.worker, candidate)["bytes"]


def test_batch_norms_of_finalists_alone_follow_what_was_removed(task: Callable[..., Task], tmp_path: Path) -> None:
    """The removed model's batch norms then have the statistics of what they see."""
    keys = ['repair.batch_norm="finalists"', "repair.samples=40"]
    made = task(channels=[1.0, 0.5], weight_bits=[32]).with_overrides(keys)
    prepared = prepare(made, store=tmp_path / "store", model=model())
    shop, candidate = Workshop(prepared), smallest(prepared)
    assignment = prepared.space.assignment(candidate)
    norm = prepared.bench.model.get_submodule("bn")
    assert isinstance(norm.running_mean, Tensor)
    before = norm.running_mean.clone()
    with shop.worker.applied(candidate.levels):
        kept = norm.running_mean != 0
        assert torch.equal(norm.running_mean[kept], before[kept]), "a trial's batch norms stay"
    with shop.repaired(assignment) as (small, _, _, _):
        moved = small.get_submodule("blocks.0.bn").running_mean.clone()
    whole = prepared.bench.model.get_submodule("blocks.0.bn").running_mean
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
        return prepare(made, store=tmp_path / "store", model=model()).bench.repair.batch_norm

    assert asked(channels=[1.0, 0.5], weight_bits=[32]) == "trials"
    assert asked('repair.batch_norm="off"', channels=[1.0, 0.5], weight_bits=[32]) == "off"
    assert asked(weight_bits=[32, 8]) == "off"


def test_plans_of_the_layers_leave_sets_and_blocks_whole(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(**ALL | {"weight_bits": [32], "sparsity": [0.0, 0.3, 0.6]})
    prepared = prepare(made, store=tmp_path / "store", model=model())
    found = plans(prepared.space, weights_of(prepared.bench.model))
    assert [label for label, _ in found] == ["global s30", "global s60"]
    for _, candidate in found:
        assignment = prepared.space.assignment(candidate)
        assert not structure_of(assignment)
        assert any(spec.sparsity > 0.0 for spec in assignment.values())


def test_tensors_that_are_shared_are_rounded_where_something_was_removed_too(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    space = {"weight_bits": [8], "activation_bits": [8], "activation_scope": ["tensor"]}
    prepared = prepare(task(**ALL | space), store=tmp_path / "store", model=model())
    shop, inputs = Workshop(prepared), prepared.bench.split.take(20).inputs
    for but in ("", "block:blocks.0"):
        candidate = smallest(prepared, but=but)
        assignment = prepared.space.assignment(candidate)
        with shop.worker.applied(candidate.levels) as resident, torch.no_grad():
            want = forward(resident, inputs)
        path = shop.export(assignment, "paredown", tmp_path / "out")
        got = get_runtime("torch").load(path, threads=1, model_factory=model).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert exact_totals(prepared, shop.worker, candidate)["bytes"] == written
        scopes = {spec.activation_scope for spec in assignment.values() if spec.changes_activation}
        assert "tensor" in scopes


def test_measured_latencies_do_not_go_with_it(task: Callable[..., Task], tmp_path: Path) -> None:
    measured = task(**ALL).with_overrides(["hardware.latency=measured"])
    with pytest.raises(TaskError, match="a table of measured latencies knows the layers as they are"):
        prepare(measured, store=tmp_path / "store", model=model())


def test_what_is_left_may_be_too_small_for_its_treatment(prepared: Prepared) -> None:
    worker = Worker(prepared.bench)
    assignment = {"neurons:inner": LayerSpec(keep=0.5), "head": LayerSpec(weight_bits=4, group_size=16)}
    with pytest.raises(SpecError, match="group_size 16 is no less than the 10 weights of a row"):
        worker.cutter.cut(assignment)


def test_another_device_is_refused(prepared: Prepared) -> None:
    with pytest.raises(InputError, match="search with that profile"):
        prepared.devices[0].rows(prepared.anatomy, prepared.space)


def test_from_a_search_to_an_artifact_that_is_measured_again(task: Callable[..., Task], tmp_path: Path) -> None:
    made = task(**ALL | {"weight_bits": [32]}).with_overrides(['objectives.names=["accuracy","macs"]'])
    front = search(made, model=model(), out=tmp_path / "run", workers=0)
    cut = [p for p in front.points if p.kind != "original" and p.verified]
    assert cut, [point.note for point in front.points]
    assert any(name.startswith("channels:") for point in cut for name in point.config["layers"])
    whole = next(p for p in front.points if p.kind == "original").metrics["macs"].value
    assert min(point.metrics["macs"].value for point in cut) < whole
    out = apply_config(cut[0].config, made, tmp_path / "applied", model=model())
    assert verify_artifact(out, task=made, model=model())["ok"]
    with pytest.raises(InputError, match="does not know"):
        apply_config(cut[0].config, task(), tmp_path / "elsewhere", model=model())


def test_experts_are_a_group_masked_in_a_trial_and_removed_in_the_export(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    made = task(experts=[1.0, 0.67, 0.34], weight_bits=[32])
    prepared = prepare(made, store=tmp_path / "store", model=mixture())
    (group,) = [group for group in prepared.space.groups if is_structural(group.name)]
    assert (group.name, [level.label() for level in group.levels]) == (
        "experts:experts", ["fp32", "k67:frequency", "k34:frequency"],
    )  # fmt: skip
    worker, shop = Worker(prepared.bench), Workshop(prepared)
    stored = {(fqn, LayerSpec()): worker.build(fqn, [LayerSpec()])[0][0] for fqn in prepared.anatomy.fqns}
    costs, _ = static_costs(prepared, stored)
    row = costs["bytes"][prepared.space.groups.index(group)]
    assert row[0] - row[1] == pytest.approx(4 * 2 * (16 + 2 * 16 * 12))
    for level in (1, 2):
        levels = tuple(level if g is group else 0 for g in prepared.space.groups)
        inputs = prepared.bench.split.take(20).inputs
        with shop.worker.applied(levels) as resident, torch.no_grad():
            want = forward(resident, inputs)
        assignment = prepared.space.assignment(Candidate(levels=levels))
        path = shop.export(assignment, "paredown", tmp_path / f"out{level}")
        got = get_runtime("torch").load(path, threads=1, model_factory=mixture).run(inputs)
        torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
        written = sum(file.stat().st_size for file in (path, path.with_name(STRUCTURE_FILE)))
        assert exact_totals(prepared, shop.worker, Candidate(levels=levels))["bytes"] == written
    with pytest.raises(TaskError, match=r"units of experts:experts leaves 1; at least 2 must stay"):
        prepare(task(experts=[1.0, 0.1]), store=tmp_path / "store", model=mixture())
    with pytest.raises(TaskError, match=r"space\.experts: this model has no experts that can be removed"):
        prepare(task(experts=[1.0, 0.5]), store=tmp_path / "store", model=model())
