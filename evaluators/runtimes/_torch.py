"""PyTorch itself: the artifact is the file of `compressors.storage`, and every layer computes in FP32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ._base import checked_threads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant

MAIN_FILE = "model.safetensors"


class TorchRuntime:
    """Eager PyTorch: always there, and no format is native: weights are decoded when the file is loaded."""

    name = "torch"
    format = "paredown"

    def available(self) -> str | None:
        return None

    def export(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs | None,
        out: Path,
    ) -> Path:
        """Writes `out/model.safetensors`; the example inputs are not needed. See `Runtime.export`."""
        from ...compressors import save_model

        out.mkdir(parents=True, exist_ok=True)
        path = out / MAIN_FILE
        save_model(path, model, assignment, variants, calibration)
        return path

    def load(self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None) -> TorchSession:
        """See `Runtime.load`. Raises what `compressors.load_model` raises for a file that is not in order."""
        from ...compressors import load_model

        if model_factory is None:
            raise InputError(
                f"{path} holds weights only: the runtime 'torch' needs model_factory, which makes the architecture"
            )
        model = model_factory()
        load_model(path, model)
        return TorchSession(model, checked_threads(threads))


class TorchSession:
    """A model in eval mode. `run` sets torch's threads and puts them back."""

    def __init__(self, model: nn.Module, threads: int) -> None:
        self._model = model.cpu().eval()
        self._threads = threads

    def run(self, inputs: Inputs) -> Tensor:
        import torch

        from ...compressors import forward

        threads = torch.get_num_threads()
        if threads != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                return forward(self._model, inputs).clone()
        finally:
            if threads != self._threads:
                torch.set_num_threads(threads)
