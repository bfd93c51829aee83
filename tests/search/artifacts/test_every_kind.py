"""Every format with every kind of point: exported, loaded, and verified, or refused by name before anything is left."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paredown
from paredown.errors import InputError, MissingExtra, ParedownError
from paredown.evaluators.runtimes import ExportError, get_runtime, list_formats
from paredown.search import Task, apply_config, export_point, search, verify_artifact
from paredown.search.artifacts import answers_of, read_artifact
from paredown.search.problem import prepare

TINY = Path(__file__).parents[1] / "tiny"

Layers = dict[str, dict[str, Any]]
KINDS: dict[str, tuple[str, Layers]] = {
    "plain": ("layers", {"head": {"weight_bits": 4}, "inner": {"weight_bits": 8, "activation_bits": 8}}),
    "removed": (
        "layers",
        {
            "channels:conv": {"keep": 0.5},
            "neurons:inner": {"keep": 0.5},
            "block:blocks.0": {"keep": 0.0},
            "head": {"weight_bits": 4},
        },
    ),
    "experts": ("listed", {"experts:experts": {"keep": 0.5, "keep_method": "frequency"}, "head": {"weight_bits": 4}}),
    "packed experts": ("packed", {"experts:experts": {"keep": 0.5, "keep_method": "frequency"}}),
    "low rank": ("layers", {"inner": {"rank": 0.3}, "conv": {"rank": 0.3, "weight_bits": 4}}),
}
"""Kind of point -> (model, what its layers and groups become)."""

ELSEWHERE = "describes the original's layers, and this model has lost parts of "
NOT_TORCHAO = "torchao has no config for "
REFUSED = {
    ("compressed-tensors", "removed"): ELSEWHERE + "block:blocks.0, channels:conv, neurons:inner; take 'paredown'",
    ("compressed-tensors", "experts"): ELSEWHERE + "experts:experts; take 'paredown'",
    ("torchao-config", "plain"): NOT_TORCHAO + "inner (w8 a8): calibrated ranges are in no config",
    ("torchao-config", "removed"): ELSEWHERE + "block:blocks.0, channels:conv, neurons:inner; take 'paredown'",
    ("torchao-config", "experts"): ELSEWHERE + "experts:experts; take 'paredown'",
    ("torchao-config", "low rank"): NOT_TORCHAO,
}
"""(format, kind) -> what its refusal says. All others can be done."""


def task_for(net: str) -> Task:
    space: dict[str, Any] = {"channels": [1.0, 0.5], "neurons": [1.0, 0.5], "blocks": True}
    return Task.from_dict(
        {
            "model": {"factory": f"kinds.py:{net}"},
            "data": {"factory": "kinds.py:data", "args": {"of": net}, "calibration": 40, "search": 100, "report": 100},
            "space": {"weight_bits": [4, 8, 32], **(space if net == "layers" else {"experts": [1.0, 0.5]})},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "budget": {"trials": 6},
            "mlflow": {"enabled": False},
        },
        base_dir=TINY,
    )


def fresh(net: str) -> nn.Module:
    """The architecture, whose weights say nothing."""
    namespace: dict[str, Any] = {"__name__": "kinds"}
    source = TINY / "kinds.py"
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    model: nn.Module = namespace[net]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def holds(out: Path, net: str) -> None:
    """The artifact is what it claims to be, in a fresh process and by the runtime that a user calls."""
    found = verify_artifact(out, task=task_for(net))
    assert found["ok"], [check for check in found["checks"] if not check["ok"]]
    artifact = read_artifact(out)
    session = get_runtime(artifact.runtime).load(artifact.main_path, threads=1, model_factory=lambda: fresh(net))
    inputs = torch.randn(7, 16, generator=torch.Generator().manual_seed(3))
    ran = session.run(inputs)
    assert isinstance(ran, Tensor)
    assert ran.abs().max() > 0.01
    if artifact.format != "paredown":
        with pytest.raises(InputError, match=rf"of the format '{artifact.format}', which is no module of PyTorch"):
            paredown.load(out, lambda: fresh(net))
        return
    lost = (out / "structure.json").is_file()
    assert lost == any(":" in name for name in artifact.config["layers"])
    for path in (out, out / "manifest.json", artifact.main_path):
        loaded = paredown.load(path, lambda: fresh(net))
        with torch.no_grad():
            torch.testing.assert_close(loaded(inputs), ran)
    assert lost == (sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in fresh(net).parameters()))


def _cell(format: str, kind: str) -> Any:
    """A cell of the matrix. Those of formats that write removed structure like any other model are slow together."""
    is_quick = format == "paredown" or kind == "removed" or (format, kind) in REFUSED
    return pytest.param(format, kind, marks=() if is_quick else pytest.mark.slow)


CELLS = [
    _cell(format, kind)
    for format in list_formats()
    for kind in KINDS
    if kind != "packed experts" or format in ("paredown", "onnx")
]


@pytest.mark.parametrize(("format", "kind"), CELLS)
def test_every_format_with_every_kind_of_point(tmp_path: Path, format: str, kind: str) -> None:
    net, layers = KINDS[kind]
    config, out = {"schema_version": 2, "layers": layers}, tmp_path / "out"
    needed = {"onnx": "onnxruntime", "tensorrt-onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch"}
    if find_spec(needed.get(format, "torch")) is None:
        with pytest.raises(MissingExtra, match="pip install"):
            apply_config(config, task_for(net), out, format=format)
    elif (format, kind) in REFUSED:
        with pytest.raises(ExportError, match=re.escape(REFUSED[format, kind])):
            apply_config(config, task_for(net), out, format=format)
    else:
        holds(apply_config(config, task_for(net), out, format=format), net)
        return
    assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_point_entropy_coded(tmp_path: Path, kind: str) -> None:
    net, layers = KINDS[kind]
    config = {"schema_version": 2, "layers": layers}
    holds(apply_config(config, task_for(net), tmp_path / "out", entropy=True), net)


@pytest.mark.parametrize("format", [name for name in list_formats() if name != "paredown"])
def test_formats_of_others_are_not_entropy_coded(tmp_path: Path, format: str) -> None:
    with pytest.raises(InputError, match=f"entropy coding is for the format 'paredown', which is ours; '{format}' is"):
        apply_config({"schema_version": 2, "layers": {}}, task_for("layers"), tmp_path, format=format, entropy=True)


def test_points_of_a_search_are_exported_and_loaded(tmp_path: Path) -> None:
    task = task_for("layers").with_overrides(['objectives.names=["accuracy","macs"]', "quality.max_loss=1.0"])
    front = search(task, out=tmp_path / "run", workers=0)
    point = next(p for p in front.points if any(":" in name for name in p.config["layers"]))
    for n, (format, entropy) in enumerate((("paredown", False), ("paredown", True), ("onnx", False))):
        if format == "paredown" or find_spec("onnxruntime"):
            holds(export_point(front.run, point.id, format, tmp_path / f"out{n}", entropy=entropy), "layers")


@pytest.mark.parametrize("kind", ["removed", "experts"])
def test_what_was_removed_is_checked_like_the_rest(tmp_path: Path, kind: str) -> None:
    net, layers = KINDS[kind]
    out = apply_config({"schema_version": 2, "layers": layers}, task_for(net), tmp_path / "out")
    text = (out / "structure.json").read_text()
    (out / "structure.json").write_text(text.replace("[0,", "[1,", 1) if "[0," in text else text[:-9] + "}")
    for act in (lambda: paredown.load(out, lambda: fresh(net)), lambda: verify_artifact(out, task=task_for(net))):
        with pytest.raises(ParedownError, match=r"structure\.json (does not match|has \d+ bytes)"):
            act()
    (out / "structure.json").unlink()
    with pytest.raises(ParedownError, match=r"structure\.json is missing"):
        paredown.load(out, lambda: fresh(net))


@pytest.mark.parametrize(
    ("overrides", "has_answers"),
    [
        ([], True),
        (['quality.divergence="mse"'], True),
        (['quality.metric="cosine"'], False),
        (['quality.metric="cosine"', "quality.class_axis=-1"], True),
        (['quality.metric="cosine"', 'quality.divergence="kl"'], True),
        (['quality.metric="mine.py:norm"', "quality.maximise=true", 'quality.divergence="mse"'], False),
    ],
)
def test_an_embedding_has_no_answer(tmp_path: Path, overrides: list[str], has_answers: bool) -> None:
    """The largest of its numbers means nothing, so no share of equal ones is claimed or printed."""
    (tmp_path / "kinds.py").write_text((TINY / "kinds.py").read_text())
    (tmp_path / "mine.py").write_text("def norm(outputs, targets):\n    return outputs.norm(dim=1)\n")
    task = Task.from_dict(task_for("layers").to_dict(), base_dir=tmp_path).with_overrides(overrides)
    outputs = answers_of(prepare(task, store=tmp_path / "store"))
    assert (outputs.class_axis is not None) == has_answers
    assert (outputs.kind, outputs.names) == ("mse" if not has_answers else outputs.kind, ())


def test_an_embedding_claims_no_same_answer(tmp_path: Path) -> None:
    task = task_for("layers").with_overrides(['quality.metric="cosine"'])
    config = {"schema_version": 2, "layers": {"inner": {"weight_bits": 8, "activation_bits": 8}}}
    artifact = read_artifact(apply_config(config, task, tmp_path / "out"))
    assert "runtime_same_answer" not in artifact.claims
    assert "same answer" not in artifact.agreement
    assert artifact.agreement.startswith("outputs within")
