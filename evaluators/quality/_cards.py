"""Cards of the metrics."""

from __future__ import annotations

from ..._cards import Card

_SAMPLE = "a forward pass; each sample has a score, so tests are paired and trials can be raced"
_WHOLE = "a forward pass; its interval is a bootstrap over samples"

CARDS: dict[str, dict[str, Card]] = {
    "metric": {
        "accuracy": Card(
            does="Share of right answers; more is better; the default", cost=_SAMPLE,
            good_for="classifiers, also at each position",
            did_not_help="as a guide on few samples: candidates tie, which divergence tells apart",
            paper="none",
        ),
        "perplexity": Card(
            does="exp of the mean negative log likelihood over tokens; less is better", cost=_SAMPLE,
            good_for="language models", paper="Jelinek 1977, Perplexity",
        ),
        "perplexity_per_sequence": Card(
            does="As perplexity, with the mean of each sequence first; less is better", cost=_SAMPLE,
            good_for="sequences that count alike whatever their length", paper="Jelinek 1977, Perplexity",
        ),
        "mse": Card(
            does="Mean squared error to the targets; less is better", cost=_SAMPLE,
            good_for="regression and controllers", paper="none",
        ),
        "cosine": Card(
            does="Cosine with the original's outputs; more is better", cost=_SAMPLE + "; no targets",
            good_for="embeddings",
            did_not_help="as a measure of a task: it says how near the outputs are, not how good", paper="none",
        ),
        "mean_iou": Card(
            does="Mean intersection over union of the classes; more is better", cost=_WHOLE,
            good_for="segmentation", paper="Everingham 2010, The PASCAL VOC Challenge",
        ),
        "average_precision": Card(
            does="Area under precision over recall; more is better", cost=_WHOLE,
            good_for="detection of rare classes", paper="Everingham 2010, The PASCAL VOC Challenge",
        ),
        "spearman": Card(
            does="Rank correlation of outputs and targets; more is better", cost=_WHOLE,
            good_for="similarity of sentences, and scores whose order counts",
            paper="Spearman 1904, The Proof and Measurement of Association",
        ),
        "f1": Card(
            does="Harmonic mean of precision and recall, mean over classes; more is better", cost=_WHOLE,
            good_for="classes of different sizes, and several labels at once",
            paper="Van Rijsbergen 1979, Information Retrieval",
        ),
        "f1_micro": Card(
            does="As f1, with the counts of all classes together; more is better", cost=_WHOLE,
            good_for="several labels at once where frequent ones count more",
            paper="Van Rijsbergen 1979, Information Retrieval",
        ),
        "psnr": Card(
            does="Peak signal-to-noise ratio in dB over the data set; more is better", cost=_WHOLE,
            good_for="restoration of images; args data_range",
            did_not_help="as a measure of what people see", paper="none",
        ),
        "wer": Card(
            does="Word error rate: edits over words; less is better", cost=_WHOLE,
            good_for="speech recognition; args blank, space", paper="Levenshtein 1966",
        ),
        "hit_rate_at_10": Card(
            does="Share of rows whose target is among the first 10; any other number too", cost=_SAMPLE,
            good_for="recommendation", paper="Cremonesi 2010, Performance of Recommender Algorithms",
        ),
        "ndcg_at_10": Card(
            does="Discounted gain of the first 10 over the ideal one; any other number too", cost=_SAMPLE,
            good_for="search and recommendation where the place counts",
            paper="Jarvelin and Kekalainen 2002, Cumulated Gain-Based Evaluation",
        ),
    },
}  # fmt: skip
"""Kind -> name -> card."""
