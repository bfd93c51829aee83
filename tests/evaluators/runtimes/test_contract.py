"""Every runtime keeps the contract, and a runtime that breaks a clause is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.errors import InputError, MissingExtra
from paredown.evaluators.runtimes import ExportError, OnnxRuntime, Session, TorchRuntime, get_runtime, list_runtimes
from paredown.testing import check_runtime
from paredown.testing._runtimes import MODELS, TREATMENTS, _Case


def test_torch_keeps_the_contract() -> None:
    check_runtime(TorchRuntime())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.vnni
def test_onnxruntime_keeps_the_contract(model: str) -> None:
    check_runtime(get_runtime("onnxruntime"), (model,))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.vnni
def test_openvino_keeps_the_contract(model: str) -> None:
    check_runtime(get_runtime("openvino"), (model,))


@pytest.mark.parametrize("model", ["transformer", "tied_weights", "shared_module", "grouped", "multihead", "encoder"])
@pytest.mark.vnni
def test_narrow_products_of_onnxruntime_keep_the_contract(model: str) -> None:
    """Narrow products of all layers keep the contract, though the default takes them for wide layers only."""
    check_runtime(OnnxRuntime(narrow_from=1), (model,))


def test_openvino_refuses_to_round_what_goes_into_a_sum(tmp_path: Path) -> None:
    case = _Case.make("residual", TREATMENTS["8 bits of whole tensors"])
    with pytest.raises(ExportError, match=r"blocks\.0\.second is w8 a8t, which rounds the output of blocks\.0\.norm2"):
        case.export(get_runtime("openvino"), tmp_path)


class Wrapped:
    """A session that runs another one."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any) -> torch.Tensor:
        return self.session.run(inputs)


class Broken(TorchRuntime):
    """A runtime that is right, but for what a subclass breaks."""

    name = "broken"
    session: Callable[[Session], Session] = staticmethod(lambda session: session)

    def load(self, path: Path, **options: Any) -> Any:
        return self.session(super().load(path, **options))


class ForgetsActivations(Broken):
    def export(self, model: Any, assignment: Any, *rest: Any) -> Path:
        return super().export(model, {fqn: spec.weight_only for fqn, spec in assignment.items()}, *rest)


class ForgetsSums(Broken):
    """Rounds what each layer reads for it alone, whatever the scope."""

    def export(self, model: Any, assignment: Any, *rest: Any) -> Path:
        return super().export(model, {f: replace(s, activation_scope="layer") for f, s in assignment.items()}, *rest)


class ForgetsProducts(Broken):
    """Runs attention's products in FP32, and the layers around them as they should be."""

    def export(self, model: Any, assignment: Any, *rest: Any) -> Path:
        product = {f for f, s in assignment.items() if s.activation_scope == "product"}
        of_layer = {f: replace(s, activation_scope="layer") if f in product else s for f, s in assignment.items()}
        return super().export(model, of_layer, *rest)


class ForgetsWeights(Broken):
    def export(self, model: Any, assignment: Any, *rest: Any) -> Path:
        return super().export(model, {}, *rest)


class WritesElsewhere(Broken):
    def export(self, *args: Any) -> Path:
        *rest, out = args
        return super().export(*rest, out.parent / "elsewhere")


class WritesNothing(Broken):
    def export(self, *args: Any) -> Path:
        return Path(args[-1]) / "model.safetensors"


class LeavesAHook(Broken):
    def export(self, model: Any, *rest: Any) -> Path:
        model.register_forward_hook(lambda *_: None)
        return super().export(model, *rest)


class ChangesTheModel(Broken):
    def export(self, model: Any, *rest: Any) -> Path:
        path = super().export(model, *rest)
        for parameter in model.parameters():
            parameter.data.add_(1.0)
        return path


class Noisy(Wrapped):
    def run(self, inputs: Any) -> torch.Tensor:
        output = super().run(inputs)
        return output + 1e-7 * torch.rand_like(output)


class OneSampleOnly(Wrapped):
    def run(self, inputs: Any) -> torch.Tensor:
        output = super().run(inputs)
        return output if len(output) == 4 else output[:1]


class SpoilsItsInputs(Wrapped):
    def run(self, inputs: Any) -> torch.Tensor:
        output = super().run(inputs)
        inputs.zero_()
        return output


class SetsThreads(Wrapped):
    def run(self, inputs: Any) -> torch.Tensor:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().run(inputs)


class AnyThreads(Broken):
    def load(self, path: Path, **options: Any) -> Any:
        return super().load(path, **{**options, "threads": max(1, options["threads"])})


@pytest.mark.parametrize(
    ("runtime", "clause"),
    [
        (ForgetsActivations, "does not quantize as the calibration says"),
        (ForgetsWeights, "must be that of PyTorch|does not quantize"),
        (WritesElsewhere, "must lie in the given folder"),
        (WritesNothing, "must return a file that it wrote"),
        (LeavesAHook, "hooks"),
        (ChangesTheModel, "leave the model's weights"),
        (AnyThreads, "zero threads"),
    ],
)
def test_a_broken_runtime_is_rejected(runtime: type[Broken], clause: str) -> None:
    with pytest.raises(AssertionError, match=clause):
        check_runtime(runtime(), ("convolutions",))


@pytest.mark.parametrize(
    ("session", "clause"),
    [
        (Noisy, "same output twice"),
        (OneSampleOnly, "a batch of 3 must give 3"),
        (SpoilsItsInputs, "leave its inputs alone"),
        (SetsThreads, "number of threads"),
    ],
)
def test_a_broken_session_is_rejected(session: type[Wrapped], clause: str) -> None:
    runtime = Broken()
    runtime.session = session
    threads = torch.get_num_threads()
    try:
        with pytest.raises(AssertionError, match=clause):
            check_runtime(runtime, ("convolutions",))
    finally:
        torch.set_num_threads(threads)


def test_a_runtime_that_does_not_round_what_is_added_is_rejected() -> None:
    with pytest.raises(AssertionError, match=r"whole tensors: .*does not quantize as the calibration says"):
        check_runtime(ForgetsSums(), ("residual",))


def test_a_runtime_that_leaves_the_factors_of_attention_alone_is_rejected() -> None:
    with pytest.raises(AssertionError, match=r"attention's products: .*does not quantize as the calibration says"):
        check_runtime(ForgetsProducts(), ("transformer",))


def test_a_runtime_that_is_not_there_is_not_checked() -> None:
    class Absent(Broken):
        def available(self) -> str | None:
            return "no such package; get it with: pip install it"

    with pytest.raises(MissingExtra, match="pip install it"):
        check_runtime(Absent())


def test_the_known_runtimes_are_listed_where_one_is_unknown() -> None:
    assert list_runtimes()[:3] == ("torch", "onnxruntime", "openvino")
    with pytest.raises(InputError, match="'tflite'; known are torch, onnxruntime, openvino"):
        get_runtime("tflite")


class Refuses(Broken):
    """Refuses what it may not refuse, or without a name."""

    def __init__(self, treated: Callable[[Any], bool], words: str) -> None:
        super().__init__()
        self.treated, self.words = treated, words

    def export(self, model: Any, assignment: Any, *rest: Any) -> Path:
        if any(self.treated(spec) for spec in assignment.values()):
            raise ExportError(self.words)
        return super().export(model, assignment, *rest)


def test_a_refusal_names_its_layer_and_is_no_way_out() -> None:
    is_narrow = lambda spec: spec.weight_bits == 16
    check_runtime(Refuses(is_narrow, "0 is FP16, and there is no kernel"), ("convolutions",))
    with pytest.raises(AssertionError, match="a refusal must name the layer that it is about, got: no kernel"):
        check_runtime(Refuses(is_narrow, "no kernel"), ("convolutions",))
    with pytest.raises(AssertionError, match="it must be exported, and was refused: 0 is too much"):
        check_runtime(Refuses(lambda spec: spec.rank < 1.0, "0 is too much"), ("convolutions",))
