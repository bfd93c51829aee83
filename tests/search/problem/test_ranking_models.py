"""Models that rank and match: two towers, tables of categories, vectors. Figures are those of plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec
from paredown.errors import TaskError
from paredown.evaluators import run_split
from paredown.evaluators.runtimes import get_runtime
from paredown.search.artifacts import Exporter
from paredown.search.problem import Problem, prepare
from paredown.search.task import Task

N, ITEMS = 6, 12


class Towers(nn.Module):
    """Scores (N, ITEMS) of the candidates that each user brings."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.names = nn.Embedding(40, 16)
        self.item = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        users = functional.normalize(self.user(user), dim=-1)
        return torch.einsum("nd,nkd->nk", users, functional.normalize(self.item(self.names(candidates)), dim=-1))


class Crossed(nn.Module):
    """Logit (N, 1) of a click from numbers and categories, by the products of all pairs of vectors, as DLRM has it."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(n, 16) for n in (30, 20, 50))
        self.top = nn.Sequential(nn.Linear(16 + 6, 32), nn.ReLU(), nn.Linear(32, 1))
        self.register_buffer("pairs", torch.triu_indices(4, 4, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        rows = torch.stack([dense, *(table(categories[:, k]) for k, table in enumerate(self.tables))], 1)
        products = (rows @ rows.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]  # type: ignore[index]
        return self.top(torch.cat([dense, products], 1))  # type: ignore[no-any-return]


class AllPairs(nn.Module):
    """Scores (N, N) of each text with each image of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.texts, self.images = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        return self.texts(text) @ self.images(image).T  # type: ignore[no-any-return]


class Vectors(AllPairs):
    """Scores of all pairs beside the vectors, as in transformers' CLIP."""

    def forward(self, text: Tensor, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        texts, images = self.texts(text), self.images(image)
        return {"scores": texts @ images.T, "texts": texts, "images": images}


MODELS: dict[str, type[nn.Module]] = {"towers": Towers, "crossed": Crossed, "pairs": AllPairs, "vectors": Vectors}


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[kind]().eval()


def data(kind: str) -> dict[str, Any]:
    g = torch.Generator().manual_seed(3)
    return {name: _split(kind, g) for name in ("calibration", "search", "report")}


def _split(kind: str, g: torch.Generator) -> Any:
    if kind == "towers":
        candidates = torch.stack([torch.randperm(40, generator=g)[:ITEMS] for _ in range(N)])
        relevance = torch.randint(0, 4, (N, ITEMS), generator=g).float()
        return {"user": torch.randn(N, 8, generator=g), "candidates": candidates}, relevance
    if kind == "crossed":
        clicks = (torch.arange(N) % 2).float()[:, None]
        categories = torch.randint(0, 20, (N, 3), generator=g)
        return {"numbers": torch.randn(N, 4, generator=g), "categories": categories}, clicks
    return {"text": torch.randn(N, 8, generator=g), "image": torch.randn(N, 8, generator=g)}, None


def problem(folder: Path, kind: str, metric: str, *, runtime: str = "torch", batch_size: int = 4) -> Problem:
    task = {
        "model": {"factory": f"{Path(__file__)}:build", "args": {"kind": kind}},
        "data": {"factory": f"{Path(__file__)}:data", "args": {"kind": kind}, "batch_size": batch_size},
        "quality": {"metric": metric},
        "hardware": {"runtime": runtime},
        "space": {"weight_bits": [8, 32], "activation_bits": [8, 32]},
        "budget": {"trials": 1},
    }
    return prepare(Task.from_dict(task, base_dir=folder), store=folder / "store")


def _ndcg(scores: Tensor, relevance: Tensor) -> float:
    discounts = 1 / torch.log2(torch.arange(2.0, 12.0))
    gains = relevance.gather(1, scores.argsort(1, descending=True))[:, :10]
    best = relevance.sort(1, descending=True).values[:, :10]
    return float(((gains * discounts).sum(1) / (best * discounts).sum(1)).mean())


def _average_precision(scores: Tensor, clicks: Tensor) -> float:
    hits = clicks.flatten()[scores.flatten().argsort(descending=True)]
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


TRUTHS: dict[tuple[str, str], Callable[[Tensor, Tensor], float]] = {
    ("towers", "ndcg_at_10"): _ndcg,
    ("crossed", "average_precision"): _average_precision,
}


@pytest.mark.parametrize(("kind", "metric"), TRUTHS)
def test_the_figure_is_that_of_a_few_lines(kind: str, metric: str, tmp_path: Path) -> None:
    found = problem(tmp_path, kind, metric)
    inputs, targets = data(kind)["search"]
    with torch.no_grad():
        truth = TRUTHS[kind, metric](build(kind)(**inputs), targets)
    assert found.quality[metric].value == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kind", "metric"), TRUTHS)
def test_an_export_in_integers_computes_it(kind: str, metric: str, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip(runtime)
    found = problem(tmp_path, kind, metric, runtime=runtime)
    integer = LayerSpec(weight_bits=8, activation_bits=8, weight_method="auto")
    levels = {fqn: group.levels for group in found.space.groups for fqn in group.layers}
    assignment = {fqn: integer if integer in found else integer.weight_only for fqn, found in levels.items()}
    assert {fqn for fqn, spec in assignment.items() if spec != integer} <= {"names", *(f"tables.{k}" for k in range(3))}
    exporter = Exporter(found)
    main = exporter.export(assignment, get_runtime(runtime).format, tmp_path / "model")
    got = run_split(get_runtime(runtime).load(main, threads=1).run, found.report, N)
    with exporter.as_compressed(assignment) as (model, _, _):
        wanted = run_split(model, exporter.problem.report)
    assert isinstance(got, Tensor)
    assert isinstance(wanted, Tensor)
    assert torch.allclose(got, wanted, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("batch_size", [3, 4, 8])
def test_scores_of_all_pairs_are_no_output_of_a_sample(batch_size: int, tmp_path: Path) -> None:
    """Their number depends on the batch: 6 samples are two batches of 3, or 4 and 2, or one."""
    with pytest.raises(TaskError, match=r"is \(1, 1\) for one sample and \(2, 2\) for two"):
        problem(tmp_path, "pairs", "cosine", batch_size=batch_size)
    found = problem(tmp_path, "vectors", "cosine", batch_size=batch_size)
    assert found.context.distance.names == ("texts", "images")
    assert "outputs whose shape depends on the batch are not compared: scores" in found.notes
    assert found.context.metric.output == "texts"
