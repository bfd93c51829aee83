"""Figures of a whole data set equal those of scikit-learn, scipy, or a few plain lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, ndcg_score
from torch import Tensor

from paredown.evaluators import METRICS, Metric, MetricError, Split, evaluate_split, get_metric, paired_test, summarise
from paredown.evaluators.quality import is_stateful, losses_of, metric_from_object

G = torch.Generator().manual_seed(0)
N = 60
LOGITS, CLASSES = 2 * torch.randn(N, 5, generator=G), torch.randint(4, (N,), generator=G)  # nobody has class 4
MAPS, MAP_CLASSES = torch.randn(N, 3, 4, 6, generator=G), torch.randint(3, (N, 4, 6), generator=G)
MAP_CLASSES[:20, 2:] = -100
LABELS = torch.randint(2, (N, 5), generator=G)
VALUES, WANTED = torch.randn(N, generator=G).mul(3).round(), torch.randn(N, generator=G).mul(2).round()


def figure(name: str, outputs: Tensor, targets: Tensor, **args: object) -> float:
    """Figure from two batches, as a search computes it."""
    split = Split("report", outputs, targets)
    metric = get_metric(name, args)
    return metric.value(evaluate_split(lambda inputs: inputs, split, metric, batch_size=37).metric)  # type: ignore[arg-type,return-value]


def test_the_mean_iou_of_maps_and_classes() -> None:
    counts = MAP_CLASSES != -100
    wanted = jaccard_score(MAP_CLASSES[counts], MAPS.argmax(1)[counts], average="macro")
    assert figure("mean_iou", MAPS, MAP_CLASSES) == pytest.approx(wanted)
    assert figure("mean_iou", MAPS.movedim(1, -1), MAP_CLASSES) == pytest.approx(wanted)
    wanted = jaccard_score(CLASSES, LOGITS.argmax(1), average="macro")
    assert figure("mean_iou", LOGITS, CLASSES) == pytest.approx(wanted)


@pytest.mark.parametrize(("name", "average"), [("f1", "macro"), ("f1_micro", "micro")])
def test_f1(name: str, average: str) -> None:
    assert figure(name, LOGITS, CLASSES) == pytest.approx(f1_score(CLASSES, LOGITS.argmax(1), average=average))
    counts = MAP_CLASSES != -100
    wanted = f1_score(MAP_CLASSES[counts], MAPS.argmax(1)[counts], average=average)
    assert figure(name, MAPS, MAP_CLASSES) == pytest.approx(wanted)
    wanted = f1_score(LABELS, LOGITS > 0, average=average)
    assert figure(name, LOGITS, LABELS) == figure(name, LOGITS, LABELS.float()) == pytest.approx(wanted)
    assert figure(name, LOGITS.sigmoid(), LABELS, threshold=0.5) == pytest.approx(wanted)
    with pytest.raises(MetricError, match="look like probabilities"):
        figure(name, LOGITS.sigmoid(), LABELS)


def test_a_class_that_nobody_has_or_says_is_left_out() -> None:
    outputs, targets = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 0])
    assert figure("f1", outputs, targets) == pytest.approx(f1_score(targets, outputs.argmax(1), average="macro"))
    assert figure("mean_iou", outputs, torch.tensor([0, 0, 1, 1])) == 1.0
    with pytest.raises(MetricError, match="no target counts"):
        METRICS["mean_iou"].value(torch.zeros(3, 9))


def test_average_precision() -> None:
    chances = LOGITS.softmax(1)
    wanted = np.mean([average_precision_score(c == CLASSES, chances[:, c]) for c in range(4)])
    assert figure("average_precision", LOGITS, CLASSES) == pytest.approx(wanted)
    assert figure("average_precision", chances, CLASSES) == pytest.approx(wanted)
    wanted = average_precision_score(LABELS, LOGITS, average="macro")
    assert figure("average_precision", LOGITS, LABELS) == pytest.approx(wanted)
    ties = LOGITS[:, 0].round()
    wanted = average_precision_score(LABELS[:, 0], ties)
    assert figure("average_precision", ties, LABELS[:, 0]) == pytest.approx(wanted)
    assert figure("average_precision", ties[:, None], LABELS[:, 0]) == pytest.approx(wanted)
    with pytest.raises(MetricError, match="no sample has any"):
        figure("average_precision", LOGITS, torch.zeros(N, 5))


def test_psnr() -> None:
    outputs, targets = torch.rand(N, 3, 4, 4, generator=G), torch.rand(N, 3, 4, 4, generator=G)
    error = float((outputs.double() - targets.double()).square().mean())
    assert figure("psnr", outputs, targets) == pytest.approx(-10 * math.log10(error))
    assert figure("psnr", outputs, targets, data_range=255) == pytest.approx(10 * math.log10(255**2 / error))
    with pytest.raises(MetricError, match="psnr is inf"):
        figure("psnr", outputs, outputs)


def test_spearman_with_ties() -> None:
    wanted = spearmanr(VALUES, WANTED).statistic
    assert figure("spearman", VALUES, WANTED) == pytest.approx(wanted)
    assert figure("spearman", VALUES[:, None], WANTED) == pytest.approx(wanted)
    with pytest.raises(MetricError, match="all outputs are equal"):
        figure("spearman", torch.ones(N), WANTED)


def _edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i, *row[1:]]
        for j, y in enumerate(b, 1):
            row[j] = min(row[j - 1] + 1, before[j] + 1, before[j - 1] + (x != y))
    return row[-1]


def test_wer_of_tokens_and_words() -> None:
    frames, targets = torch.randn(N, 12, 4, generator=G), torch.randint(1, 4, (N, 6), generator=G)
    targets[::3, 4:] = -100
    targets[0] = -100  # an empty text: what is said there is wrong, and it adds no words
    edits = words = 0
    for answer, wanted in zip(frames.argmax(-1).tolist(), targets.tolist(), strict=True):
        merged = [t for place, t in enumerate(answer) if t and (place == 0 or answer[place - 1] != t)]
        text = [t for t in wanted if t >= 0]
        edits, words = edits + _edits(merged, text), words + len(text)
    assert figure("wer", frames, targets) == pytest.approx(edits / words)
    split = lambda tokens: "".join(" abc"[t] if t > 0 else "" for t in tokens).replace("c", " ").split()
    said = [split([t for p, t in enumerate(a) if p == 0 or a[p - 1] != t]) for a in frames.argmax(-1).tolist()]
    texts = [split(t) for t in targets.tolist()]
    edits = sum(_edits(a, b) for a, b in zip(said, texts, strict=True))  # type: ignore[arg-type]
    assert figure("wer", frames, targets, space=3) == pytest.approx(edits / sum(map(len, texts)))
    with pytest.raises(MetricError, match="none of the 2 samples"):
        figure("wer", frames[:2], torch.full((2, 3), -100))
    with pytest.raises(MetricError, match="blank = 9 is no token"):
        figure("wer", frames, targets, blank=9)


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_rankings(k: int) -> None:
    scores, item = torch.randn(N, 20, generator=G), torch.randint(20, (N,), generator=G)
    hits = (scores.topk(min(k, 20)).indices == item[:, None]).any(1).double().mean()
    assert figure(f"hit_rate_at_{k}", scores, item) == pytest.approx(float(hits))
    graded = torch.randint(4, (N, 20), generator=G)
    graded[0] = 0
    assert figure(f"ndcg_at_{k}", scores, graded) == pytest.approx(ndcg_score(graded, scores, k=k))
    assert figure(f"ndcg_at_{k}", scores.round(), graded) == pytest.approx(ndcg_score(graded, scores.round(), k=k))
    one = torch.nn.functional.one_hot(item, 20)
    assert figure(f"ndcg_at_{k}", scores, item) == pytest.approx(ndcg_score(one, scores, k=k))
    assert figure(f"hit_rate_at_{k}", torch.zeros(N, 20), item) == (1.0 if k >= 20 else 0.0)


class Agreement:
    """Mean F1 of two classes by the protocol of torchmetrics."""

    def __init__(self, n_classes: int = 5) -> None:
        self.n_classes = n_classes
        self.reset()

    def reset(self) -> None:
        self.counts = torch.zeros(self.n_classes, self.n_classes)

    def update(self, preds: Tensor, target: Tensor) -> None:
        for wanted, given in zip(target, preds.argmax(1), strict=True):
            self.counts[wanted, given] += 1

    def compute(self) -> Tensor:
        both = self.counts.sum(0) + self.counts.sum(1)
        return (2 * self.counts.diag() / both)[both > 0].mean()


def test_an_object_with_update_and_compute_is_a_metric() -> None:
    made = Agreement()
    made.update(LOGITS[:3], CLASSES[:3])
    assert is_stateful(made)
    assert is_stateful(Agreement)
    assert not is_stateful(lambda outputs, targets: outputs)
    metric = metric_from_object(made, "agreement", True)
    rows = metric.scores(LOGITS, CLASSES)
    assert metric.value(rows) == pytest.approx(f1_score(CLASSES, LOGITS.argmax(1), average="macro"))
    assert metric.value(metric.scores(LOGITS[7:20], CLASSES[7:20])) == pytest.approx(
        f1_score(CLASSES[7:20], LOGITS[7:20].argmax(1), average="macro")
    )
    assert float(made.counts.sum()) == 3
    measured = summarise(rows, metric, "report")
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < measured.value < measured.high
    assert paired_test(rows, metric.scores(LOGITS * 3, CLASSES), metric).difference == 0.0
    with pytest.raises(MetricError, match="65536 that are kept"):
        metric.scores(torch.zeros(2, 70_000), None)


@pytest.mark.parametrize("name", ["f1", "mean_iou", "average_precision"])
def test_a_better_model_is_found_better_by_swapping_rows(name: str) -> None:
    metric = METRICS[name]
    good = LOGITS + 3 * torch.nn.functional.one_hot(CLASSES, 5)
    a, b = metric.scores(good, CLASSES), metric.scores(LOGITS, CLASSES)
    better, worse = paired_test(a, b, metric), paired_test(b, a, metric)
    assert better.p_value == 1 / (1 + metric.resamples)
    assert better.low > 0
    assert worse.p_value > 0.9
    assert worse.difference == -better.difference
    with pytest.raises(MetricError, match="no loss for each sample"):
        losses_of(metric, a)


def test_the_swaps_do_not_find_a_difference_that_is_none() -> None:
    rng, metric, found = torch.Generator().manual_seed(1), METRICS["f1"], 0
    for _ in range(60):
        a, b = (torch.randn(50, 3, generator=rng) for _ in range(2))
        targets = torch.randint(3, (50,), generator=rng)
        found += paired_test(metric.scores(a, targets), metric.scores(b, targets), metric).p_value < 0.1
    assert found / 60 < 0.1 + 3 * math.sqrt(0.09 / 60)


def _extreme(metric: Metric, name: str) -> Tensor:
    right = LOGITS + 50 * torch.nn.functional.one_hot(CLASSES, 5)
    right[0] = LOGITS[0]
    if name == "perplexity":
        return metric.scores(right, CLASSES)
    if name == "mse":
        return metric.scores(torch.eye(N), torch.zeros(N, N)) * torch.tensor([1.0, 1.0])
    return metric.scores(right, CLASSES)


@pytest.mark.parametrize("name", ["accuracy", "perplexity", "f1", "f1_micro", "mean_iou", "average_precision"])
def test_no_interval_leaves_the_range(name: str) -> None:
    metric = METRICS[name]
    measured = summarise(_extreme(metric, name), metric, "report")
    least, most = metric.range
    assert measured.low is not None
    assert measured.high is not None
    assert least <= measured.low <= measured.value <= measured.high <= most


def test_names_and_settings_that_are_not_known_are_refused() -> None:
    assert get_metric("ndcg_at_7").name == "ndcg_at_7"
    with pytest.raises(MetricError, match="unknown metric 'ndcg@7'"):
        get_metric("ndcg@7")
    with pytest.raises(MetricError, match="psnr takes no argument 'range'; it takes data_range"):
        get_metric("psnr", {"range": 1})
    with pytest.raises(MetricError, match="accuracy takes no argument 'k'; it takes none"):
        get_metric("accuracy", {"k": 1})
