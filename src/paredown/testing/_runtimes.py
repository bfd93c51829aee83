"""Contract of a runtime; see `paredown.evaluators.runtimes` (`Runtime`, `register_runtime`).

    from paredown.testing import check_runtime
    check_runtime(MyRuntime())

Each check raises `AssertionError` and says what the runtime broke.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..compressors import (
    Calibration,
    CompressedModel,
    Inputs,
    LayerSpec,
    Variant,
    applicable,
    calibrate,
    compress,
    forward,
    model_digest,
    weight_at,
)
from ..compressors.anatomy import Outputs, compared_tensors
from ..compressors.anatomy._trace import trace_anatomy
from ..errors import MissingExtra, ParedownError
from ..evaluators.runtimes import ExportError
from ._models import AWKWARD

if TYPE_CHECKING:
    from ..evaluators.runtimes import Runtime, Session

MODELS = (
    "convolutions",
    "grouped",
    "depthwise",
    "conv1d",
    "tied_weights",
    "shared_module",
    "keyword_inputs",
    "several_outputs",
    "transformer",
    "written_out",
    "recurrent",
    "multihead",
    "residual",
    "encoder",
    "cross_attention",
)
TREATMENTS = {
    "8-bit weights and activations": (LayerSpec(weight_bits=8, activation_bits=8),),
    "8 bits of whole tensors": (LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor"),),
    "8 bits in attention's products": (LayerSpec(weight_bits=8, activation_bits=8, activation_scope="product"),),
    "narrow weights": (
        LayerSpec(weight_bits=4, group_size=16),
        LayerSpec(weight_bits=16, weight_format="fp16"),
        LayerSpec(weight_bits=8),
        LayerSpec(weight_bits=4, weight_format="int_asym", group_size=16),
        LayerSpec(weight_bits=3, weight_format="palette"),
    ),
    "8 bits of each token": (LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="dynamic"),),
    "a mixture": (
        LayerSpec(rank=0.4),
        LayerSpec(weight_bits=4, sparsity=0.25),
        LayerSpec(),
        LayerSpec(weight_bits=5, rank=0.5, sparsity=0.25),
    ),
}
"""Treatments: name -> specs that the layers get in turn. The last two leave activations alone, so they must agree to
rounding.
"""

MAY_BE_REFUSED = ("8 bits of whole tensors", "8 bits in attention's products", "narrow weights")
"""Treatments that a runtime may refuse, by an `ExportError` that names a layer; it must run the others."""

_FLOAT_TOLERANCE = 1e-4
_SHARE_OF_EFFECT = 0.5


def check_runtime(runtime: Runtime, models: tuple[str, ...] = MODELS) -> None:
    """Check one runtime on these of the `AWKWARD` models, each under all `TREATMENTS`.

    What is checked: the artifact lies in its folder, and loaded again it computes what PyTorch computes, for any batch;
    activations that should be quantized are; the model, the inputs and torch's threads are left alone; what cannot be
    run is refused with an error of ours, that names the layer where it is a treatment's (`MAY_BE_REFUSED`). Raises
    `MissingExtra` if the runtime is not available here.
    """
    if (line := runtime.available()) is not None:
        raise MissingExtra(f"the runtime {runtime.name!r} cannot be checked: {line}")
    for name in models:
        for treatment, specs in TREATMENTS.items():
            case = _Case.make(name, specs)
            if case.assignment:
                what = f"{runtime.name}: {name} with {treatment}"
                _check(runtime, case, what, may_refuse=treatment in MAY_BE_REFUSED)
    _check_refusals(runtime)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    name: str
    model: nn.Module
    inputs: Inputs
    assignment: Mapping[str, LayerSpec]
    variants: Mapping[str, Variant]
    calibration: Calibration
    expected: Tensor
    float_expected: Tensor
    """Case of a model and treatment, with the outputs that no quantized activation gives."""

    @classmethod
    def make(cls, name: str, specs: tuple[LayerSpec, ...]) -> _Case:
        model, inputs = AWKWARD[name]()
        anatomy = trace_anatomy(model, inputs)
        calibration = calibrate(model, [inputs], anatomy, tensors=True, products=True)
        assignment: dict[str, LayerSpec] = {}
        for spec, group in zip(cycle(specs), anatomy.groups, strict=False):
            # layers that share a tensor must get the same weight: what does not apply to one is given to none
            fits = not any(applicable(spec.weight_only, anatomy[fqn]) for fqn in group)
            assignment.update(dict.fromkeys(group, spec if fits else LayerSpec()))
        if specs[0].rounds_tensors and not any(x.shared_input or x.residual_output for x in anatomy.layers):
            assignment = {}  # a model without sums: what "layer" does is checked anyway
        if specs[0].rounds_products and not any(x.product for x in anatomy.layers):
            assignment = {}  # likewise one without attention that can be taken apart
        for fqn, spec in assignment.items():
            of_layer = replace(spec, activation_scope="layer")
            if applicable(spec, anatomy[fqn]):  # an embedding's input is not quantized
                assignment[fqn] = spec.weight_only if applicable(of_layer, anatomy[fqn]) else of_layer
        variants = {
            layer.fqn: compress(weight_at(model, layer.fqn).detach(), assignment[layer.fqn], layer)
            for layer in anatomy.layers
            if layer.fqn in assignment
        }
        resident = CompressedModel(model, anatomy, calibration)
        with torch.no_grad():
            with resident.apply(assignment, variants):
                expected = _flat(forward(model, inputs))
            with resident.apply({fqn: spec.weight_only for fqn, spec in assignment.items()}, variants):
                float_expected = _flat(forward(model, inputs))
        return cls(name, model, inputs, assignment, variants, calibration, expected, float_expected)

    def export(self, runtime: Runtime, folder: Path) -> Path:
        return runtime.export(self.model, self.assignment, self.variants, self.calibration, self.inputs, folder)

    def load(self, runtime: Runtime, path: Path) -> Session:
        return runtime.load(path, threads=1, model_factory=lambda: AWKWARD[self.name]()[0])


def _check(runtime: Runtime, case: _Case, what: str, *, may_refuse: bool = False) -> None:
    before = model_digest(case.model), _hooks(case.model), case.model.training
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "new" / "artifact"
        try:
            path = case.export(runtime, out)
        except ExportError as error:
            _expect(may_refuse, f"it must be exported, and was refused: {error}", what)
            named = any(fqn in str(error) for fqn in case.assignment)
            _expect(named, f"a refusal must name the layer that it is about, got: {error}", what)
            return
        _expect(path.is_file(), f"export must return a file that it wrote, got {path}", what)
        _expect(out in path.parents, f"the artifact must lie in the given folder {out}, got {path}", what)
        after = model_digest(case.model), _hooks(case.model), case.model.training
        _expect(before == after, "export must leave the model's weights, hooks and train mode alone", what)
        session = case.load(runtime, path)
        inputs, threads = _copied(case.inputs), torch.get_num_threads()
        output = _flat(session.run(inputs))
        _expect(torch.get_num_threads() == threads, "run must leave torch's number of threads alone", what)
        _expect(_equal(inputs, case.inputs), "run must leave its inputs alone", what)
        _check_output(output, case, what)
        _expect(
            torch.equal(_flat(session.run(inputs)), output), "the same inputs must give the same output twice", what
        )
        again = case.load(runtime, path)
        for n in (1, 3):
            part = _flat(again.run(_first(case.inputs, n)))
            _expect(
                part.shape == output[:n].shape, f"a batch of {n} must give {n} outputs, got {tuple(part.shape)}", what
            )
            close = torch.allclose(part, output[:n], atol=0.1 * float(output.abs().max()))
            _expect(close, f"a batch of {n} must give what the same samples give in a larger one", what)


def _flat(outputs: Outputs) -> Tensor:
    """Outputs as one tensor: a model's only one, or all of floating point side by side."""
    if isinstance(outputs, Tensor):
        return outputs
    return torch.cat([part.flatten(1) for part in compared_tensors(outputs).values()], dim=1)


def _check_output(output: Tensor, case: _Case, what: str) -> None:
    expected = case.expected
    _expect(isinstance(output, Tensor) and output.device.type == "cpu", "run must return a tensor on the CPU", what)
    _expect(output.shape == expected.shape, f"expected shape {tuple(expected.shape)}, got {tuple(output.shape)}", what)
    error = float((output - expected).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    if not any(spec.changes_activation for spec in case.assignment.values()):
        _expect(
            error <= _FLOAT_TOLERANCE * scale,
            f"the output must be that of PyTorch within {_FLOAT_TOLERANCE * scale:.0e}, it differs by {error:.1e}",
            what,
        )
        return
    # a value that lies between two codes may fall on either side, so not the largest error counts, but the mean square
    found = float((output - expected).square().mean().sqrt())
    effect = float((case.float_expected - expected).square().mean().sqrt())
    _expect(
        found <= _SHARE_OF_EFFECT * effect + 1e-6,
        f"quantized activations change the output by {effect:.1e} (root mean square), and the runtime differs from "
        f"PyTorch's by {found:.1e}: it does not quantize as the calibration says",
        what,
    )


def _check_refusals(runtime: Runtime) -> None:
    case = _Case.make("convolutions", (LayerSpec(),))
    with tempfile.TemporaryDirectory() as folder:
        path = case.export(runtime, Path(folder))
        try:
            runtime.load(path, threads=0, model_factory=lambda: case.model)
        except ParedownError:
            pass
        else:
            raise AssertionError(f"{runtime.name}: load must refuse zero threads with an error of paredown")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            case.load(runtime, path).run(case.inputs)
        except ParedownError:
            return
        raise AssertionError(f"{runtime.name}: a truncated file must be refused with an error of paredown")


def _expect(holds: bool, clause: str, what: str) -> None:
    if not holds:
        raise AssertionError(f"{what}: {clause}")


def _hooks(model: nn.Module) -> list[int]:
    return [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]


def _first(inputs: Inputs, n: int) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: x[:n] for name, x in inputs.items()}
    return tuple(x[:n] for x in inputs) if isinstance(inputs, tuple) else inputs[:n]


def _copied(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: x.clone() for name, x in inputs.items()}
    return tuple(x.clone() for x in inputs) if isinstance(inputs, tuple) else inputs.clone()


def _equal(one: Inputs, other: Inputs) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(torch.equal(x, other[name]) for name, x in one.items())
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
