"""ExecuTorch: what is missing is said, a stand-in is handed the right program, and the real thing runs where it is."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.compressors import LayerSpec
from paredown.errors import MissingExtra
from paredown.evaluators.runtimes import ExportError, export_model
from paredown.testing import AWKWARD

W4A8 = LayerSpec(weight_bits=4, activation_bits=8)


def test_it_says_how_to_get_it(compressed: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    hidden: Callable[..., Any] = lambda name, *rest: None if name == "executorch" else found(name, *rest)
    monkeypatch.setattr("paredown.evaluators.runtimes._base.find_spec", hidden)
    args, _ = compressed(*AWKWARD["mlp"](), W4A8)
    with pytest.raises(MissingExtra, match=r"'executorch' is not installed; .*pip install 'paredown\[executorch\]'"):
        export_model("executorch", *args, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Modules by ExecuTorch's names that keep what they are given, or fail where told to."""
    seen: dict[str, Any] = {}

    def lower(program: Any, partitioner: list[Any]) -> Any:
        if "fail" in seen:
            raise RuntimeError(seen["fail"])
        seen.update(program=program, partitioner=partitioner)
        return types.SimpleNamespace(to_executorch=lambda: types.SimpleNamespace(buffer=b"program"))

    def module(name: str, **contents: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(contents, __path__=[], __spec__=importlib.util.spec_from_loader(name, None))
        monkeypatch.setitem(sys.modules, name, made)

    partition = "executorch.backends.xnnpack.partition"
    for name in ("executorch", "executorch.backends", "executorch.backends.xnnpack", partition):
        module(name)
    module(f"{partition}.xnnpack_partitioner", XnnpackPartitioner=lambda: "xnnpack")
    module("executorch.exir", to_edge_transform_and_lower=lower)
    return seen


def test_the_program_that_is_lowered_has_the_compressed_numbers(
    stand_in: dict[str, Any], compressed: Callable[..., Any], tmp_path: Path
) -> None:
    args, expected = compressed(*AWKWARD["convolutions"](), W4A8)
    path = export_model("executorch", *args, tmp_path)
    assert path.read_bytes() == b"program"
    assert stand_in["partitioner"] == ["xnnpack"]
    module = stand_in["program"].module()
    torch.testing.assert_close(torch.cat([module(args[-1][i : i + 1]) for i in range(4)]), expected)
    stand_in["fail"] = "no kernel for it"
    with pytest.raises(ExportError, match="ExecuTorch cannot lower this model: RuntimeError: no kernel for it"):
        export_model("executorch", *args, tmp_path)


def test_it_runs_where_it_is_installed(elsewhere: Callable[..., str], tmp_path: Path) -> None:
    code = """
import sys, torch
from pathlib import Path
from paredown.compressors import Anatomy, CompressedModel, LayerSpec, calibrate, compress, forward, module_at
from paredown.evaluators.runtimes import export_model, get_runtime
from paredown.testing import AWKWARD
for name in ("convolutions", "transformer"):
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    specs = {fqn: LayerSpec(weight_bits=4, activation_bits=8) for fqn in anatomy.fqns if fqn != "embed"}
    variants = {f: compress(module_at(model, f).weight.detach(), s, anatomy[f]) for f, s in specs.items()}
    with CompressedModel(model, anatomy, calibration).apply(specs, variants), torch.no_grad():
        expected = forward(model, inputs)
    path = export_model("executorch", model, specs, variants, calibration, inputs, Path(sys.argv[1]) / name)
    print("apart", float((get_runtime("torch").load(path, threads=1).run(inputs) - expected).abs().max()))
"""
    found = elsewhere(("executorch",), code, tmp_path)
    apart = [float(line.split()[1]) for line in found.splitlines() if line.startswith("apart")]
    assert len(apart) == 2
    assert max(apart) <= 1e-4
