"""PyTorch compiled: the same outputs, compiled once for a shape; and what is said where there is no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paredown.compressors import CompressedModel, LayerSpec, calibrate, compress, module_at, trace_anatomy
from paredown.errors import MissingExtra
from paredown.evaluators.runtimes import CompiledTorchRuntime, get_runtime
from paredown.testing import AWKWARD


def test_a_compiled_model_computes_what_pytorch_computes(tmp_path: Path) -> None:
    runtime = get_runtime("torch-compile")
    if (line := runtime.available()) is not None:
        pytest.skip(line)
    model, inputs = AWKWARD["bare_layer"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    assignment = {anatomy.fqns[0]: LayerSpec(weight_bits=8, activation_bits=8)}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec, anatomy[fqn])  # type: ignore[operator]
        for fqn, spec in assignment.items()
    }
    with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
        expected = model(inputs)
    path = runtime.export(model, assignment, variants, calibration, inputs, tmp_path)
    session = runtime.load(path, threads=1, model_factory=lambda: AWKWARD["bare_layer"]()[0])
    output = session.run(inputs)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    spent = session.compile_s  # type: ignore[attr-defined]
    assert spent > 0
    assert torch.equal(session.run(inputs), output)
    assert session.compile_s == spent  # type: ignore[attr-defined]  # the second run of a shape is a run


def test_without_a_compiler_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingExtra, match=r"'no-such-compiler' is not there; install one .*apt install g\+\+"):
        CompiledTorchRuntime().load(tmp_path / "model.safetensors", threads=1, model_factory=lambda: torch.nn.ReLU())
