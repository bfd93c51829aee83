"""Models with several outputs: all are compared, judged and exported, as [quality] outputs says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paredown
from paredown.compressors.anatomy import outputs_of
from paredown.errors import ParedownError, TaskError
from paredown.evaluators import METRICS, OutputDistance, Split, metric_from_callable, run_split
from paredown.evaluators.runtimes import get_runtime
from paredown.search.problem import Problem, prepare
from paredown.search.task import Task

TASK = """
[model]
factory = "net.py:{model}"
[data]
factory = "net.py:data"
[quality]
metric = "net.py:{metric}"
maximise = true
{quality}
[hardware]
runtime = "{runtime}"
latency_seconds = 0.05
[space]
weight_bits = [2, 8, 32]
activation_bits = [32]
[budget]
trials = 3
"""
NET = '''
from dataclasses import dataclass
import torch
from torch import nn

class Net(nn.Module):
    """A trunk with two heads: boxes in pixels and scores; the third layer feeds a tensor that is no float."""
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.boxes, self.scores = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(16, 3)
        self.extra = nn.Linear(16, 5)
    def heads(self, x):
        h = torch.relu(self.trunk(x))
        return 300 * self.boxes(h), self.scores(h), self.extra(h)

class Tuple(Net):
    def forward(self, x):
        boxes, scores, extra = self.heads(x)
        return boxes, scores, extra.argmax(1)

class Dict(Net):
    def forward(self, x):
        boxes, scores, extra = self.heads(x)
        return {"boxes": boxes, "scores": scores, "choice": extra.argmax(1), "loss": scores.sum()}

@dataclass
class Found:
    boxes: torch.Tensor
    scores: torch.Tensor

class Record(Net):
    def forward(self, x):
        return Found(*self.heads(x)[:2])

def right(scores, targets): return (scores.argmax(1) == targets).float()
def of_tuple(outputs, targets): return right(outputs[1], targets)
def of_dict(outputs, targets): return right(outputs["scores"], targets)
def of_record(outputs, targets): return right(outputs.scores, targets)
def of_one(outputs, targets): return -outputs.abs().mean(1)

def data():
    g = torch.Generator().manual_seed(1)
    return {n: (torch.randn(24, 6, generator=g), torch.randint(0, 3, (24,), generator=g))
            for n in ("calibration", "search", "report")}
'''
MODELS = {"Tuple": "of_tuple", "Dict": "of_dict", "Record": "of_record"}


def task(folder: Path, model: str, metric: str = "", *, quality: str = "", runtime: str = "torch") -> Task:
    (folder / "net.py").write_text(NET)
    text = TASK.format(model=model, metric=metric or MODELS[model], quality=quality, runtime=runtime)
    (folder / "task.toml").write_text(text)
    return Task.load(folder / "task.toml")


def problem(folder: Path, model: str, metric: str = "", **options: Any) -> Problem:
    return prepare(task(folder, model, metric, **options), store=folder / "store")


@pytest.mark.parametrize("model", MODELS)
def test_the_distance_is_that_of_ten_lines_of_pytorch(model: str, tmp_path: Path) -> None:
    found = problem(tmp_path, model)
    context, net = found.context, found.context.model
    names = ["output_0", "output_1"] if model == "Tuple" else ["boxes", "scores"]
    assert list(context.distance.names) == names
    before = {n: _two(net, split) for n, split in _splits(found)}
    with torch.no_grad():
        net.get_submodule("boxes").weight.mul_(1.1)  # type: ignore[operator,union-attr]
        net.get_submodule("scores").weight.mul_(0.8)  # type: ignore[operator,union-attr]
    after = _two(net, context.split)
    pairs = zip(before["search"], after, before["calibration"], strict=True)
    wanted = sum((a - b).square().mean(1) / c.var(correction=0) for a, b, c in pairs) / 2
    outputs = run_split(net, context.split)
    assert torch.allclose(context.distance.per_sample(outputs, context.reference), wanted.double(), rtol=1e-4)


def _two(net: nn.Module, split: Split) -> list[Tensor]:
    return list(outputs_of(net(split.inputs)).tensors.values())[:2]  # type: ignore[union-attr]


def _splits(found: Problem) -> list[tuple[str, Split]]:
    return [("search", found.context.split), ("calibration", found.splits.calibration)]


@pytest.mark.parametrize("model", MODELS)
def test_a_metric_gets_the_structure_of_the_model(model: str, tmp_path: Path) -> None:
    found = problem(tmp_path, model)
    net, split = found.context.model, found.context.split
    scores = outputs_of(net(split.inputs)).tensors  # type: ignore[union-attr]
    scores = scores["output_1"] if model == "Tuple" else scores["scores"]
    assert split.targets is not None
    assert found.quality[MODELS[model]].value == pytest.approx(
        float((scores.argmax(1) == split.targets).float().mean())
    )


def test_a_metric_of_one_tensor_reads_the_first_and_this_is_said(tmp_path: Path) -> None:
    found = problem(tmp_path, "Tuple", "of_one")
    boxes = run_split(found.context.model, found.context.split).tensors["output_0"]  # type: ignore[union-attr]
    assert found.quality["of_one"].value == pytest.approx(-float(boxes.abs().mean()), rel=1e-5)
    assert any("of_one reads the output output_0 alone" in line for line in found.notes)
    named = problem(tmp_path, "Tuple", "of_one", quality='outputs = ["output_1", "output_0"]')
    scores = run_split(named.context.model, named.context.split).tensors["output_1"]  # type: ignore[union-attr]
    assert named.quality["of_one"].value == pytest.approx(-float(scores.abs().mean()), rel=1e-5)


def test_what_feeds_nothing_compared_is_left_alone_and_named(tmp_path: Path) -> None:
    whole = problem(tmp_path, "Dict")
    assert whole.anatomy.without_effect == ("extra",)  # only whole numbers depend on it
    scores = problem(tmp_path, "Dict", quality='outputs = ["scores"]')
    assert set(scores.anatomy.without_effect) == {"boxes", "extra"}
    assert {fqn for group in scores.space.groups for fqn in group.layers} == {"trunk", "scores"}
    assert any("scores are compared" in line and "not boxes, choice" in line for line in scores.notes)


def test_weights_of_outputs_weigh(tmp_path: Path) -> None:
    found = problem(tmp_path, "Dict", quality="outputs = { boxes = 3.0, scores = 1.0 }")
    assert {part.name: part.share for part in found.context.distance.outputs} == {"boxes": 0.75, "scores": 0.25}


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ('outputs = ["logits"]', "quality.outputs names 'logits'; the model's outputs with the sample as axis 0 are"),
        ('outputs = ["choice"]', "only floating-point outputs are compared (boxes, scores)"),
        ('outputs = ["loss"]', "quality.outputs names 'loss'"),
        ("outputs = []", "must name each output once"),
        ("outputs = { boxes = 0.0 }", "must have weights above 0"),
    ],
)
def test_wrong_outputs_are_refused_by_name(quality: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ParedownError) as caught:
        problem(tmp_path, "Dict", quality=quality)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_outputs_of_a_model_with_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    one = task(tmp_path, "Dict", "of_one", quality='outputs = ["scores"]')
    with pytest.raises(TaskError, match="the model has one output"):
        prepare(one, store=tmp_path / "store", model=nn.Sequential(nn.Linear(6, 3)))


@pytest.mark.parametrize(("model", "runtime"), [("Tuple", "onnxruntime"), ("Dict", "openvino"), ("Record", "torch")])
def test_a_search_verifies_all_outputs(model: str, runtime: str, tmp_path: Path) -> None:
    front = paredown.search(task(tmp_path, model, runtime=runtime), out=tmp_path / "run", workers=0)
    verified = [point for point in front.points if point.verified]
    assert len(verified) > 1
    (original,) = [point for point in front.points if point.kind == "original"]
    if runtime == "torch":
        return
    format = get_runtime(runtime).format
    folder = original.export(format=format, out=tmp_path / "original")
    file = next(path for path in Path(folder).rglob("*") if path.suffix in (".onnx", ".xml"))
    session = get_runtime(runtime).load(file, threads=1)
    outputs = session.run(torch.randn(5, 6))
    names = {"Tuple": ("output_0", "output_1", "output_2"), "Dict": ("boxes", "scores", "choice", "loss")}
    assert outputs.names == names[model]  # type: ignore[union-attr]


def test_kl_is_of_the_first_output_and_squares_of_the_others() -> None:
    @dataclass
    class Out:
        logits: Tensor
        boxes: Tensor

    g = torch.Generator().manual_seed(0)
    original = outputs_of(Out(torch.randn(8, 3, generator=g), 50 * torch.randn(8, 4, generator=g)))
    moved = original.map(lambda x: x + torch.randn(x.shape, generator=g))  # type: ignore[union-attr]
    distance = OutputDistance.of_several(original, "kl", {"logits": 1.0, "boxes": 1.0})  # type: ignore[arg-type]
    a, b = original.structure(), moved.structure()  # type: ignore[union-attr]
    kl = (a.logits.softmax(1) * (a.logits.log_softmax(1) - b.logits.log_softmax(1))).sum(1)
    wanted = (kl + (a.boxes - b.boxes).square().mean(1) / a.boxes.var(correction=0)) / 2
    assert torch.allclose(distance.per_sample(moved, original), wanted.double(), rtol=1e-5)
    assert not distance.has_frame


def test_a_built_in_metric_reads_the_logits() -> None:
    outputs = outputs_of({"boxes": torch.randn(4, 2), "logits": torch.eye(3)[[0, 1, 2, 0]]})
    assert METRICS["accuracy"].scores(outputs, torch.tensor([0, 1, 1, 0])).tolist() == [1, 1, 0, 1]
    own = metric_from_callable(lambda found, targets: found["boxes"].sum(1), "own", True)
    assert len(own.scores(outputs, None)) == 4
