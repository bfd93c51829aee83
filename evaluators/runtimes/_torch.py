"""Runtime of eager PyTorch: the artifact is the file of `compressors.storage`, and every layer computes in FP32."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ._base import checked_threads

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant
    from ...compressors.anatomy import Outputs

MAIN_FILE = "model.safetensors"
STRUCTURE_FILE = "structure.json"
"""File beside the main file with the removal, where the model lost channels, heads or blocks."""


class TorchRuntime:
    """Eager PyTorch, which is always available.

    Wide linear layers of dynamic activations run in integers (`_torch_dynamic.py`). No other format is native: weights
    are decoded when the file is loaded.

    It also loads, by their suffixes, the programs of "pt2" and "executorch", which need no factory, and the folder of
    "compressed-tensors" (its config.json), which does.
    """

    name = "torch"
    format = "paredown"

    def __init__(self, *, dynamic_from: int | None = None) -> None:
        """Make a runtime with a limit.

        dynamic_from  least number of channels, in and out, of a linear layer that runs dynamic activations in integers;
                      the default comes from the shipped profile (`_thresholds.py`)
        """
        self._dynamic_from = dynamic_from

    def available(self) -> str | None:
        return None

    def _integers_from(self) -> int:
        from ._thresholds import dynamic_from

        return dynamic_from("torch") if self._dynamic_from is None else self._dynamic_from

    def export(
        self,
        model: nn.Module,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        calibration: Calibration | None,
        example_inputs: Inputs | None,
        out: Path,
    ) -> Path:
        """Write `out/model.safetensors`; the example inputs are not needed. See `Runtime.export`."""
        from ...compressors import save_model

        out.mkdir(parents=True, exist_ok=True)
        path = out / MAIN_FILE
        save_model(path, model, assignment, variants, calibration)
        return path

    def load(self, path: Path, *, threads: int, model_factory: Callable[[], nn.Module] | None = None) -> TorchSession:
        """Load a model; see `Runtime.load`. Raises the errors of `compressors.load_model` for an invalid file."""
        from ._torch_dynamic import multiply_integers

        if path.suffix == ".pt2":
            from ._pt2 import load_pt2

            module, fixed_batch = load_pt2(path)
            return TorchSession(module, checked_threads(threads), fixed_batch)
        if path.suffix == ".pte":
            from .exports import load_pte

            return TorchSession(load_pte(path), checked_threads(threads), 1)
        if model_factory is None:
            raise InputError(
                f"{path} holds weights only: the runtime 'torch' needs model_factory, which makes the architecture"
            )
        model = model_factory().eval()
        if path.suffix == ".json":
            from ...compressors.anatomy import fold_weights
            from .exports import load_compressed_tensors

            fold_weights(model)  # `load_model` does so itself
            return TorchSession(load_compressed_tensors(path, model), checked_threads(threads))
        multiply_integers(model, path, load_stored(path, model), self._integers_from())
        return TorchSession(model, checked_threads(threads))


def load_stored(path: Path, model: nn.Module) -> dict[str, LayerSpec]:
    """Load a stored model into `model`, a fresh one of the original's architecture, and return each layer's spec.

    path  the main file of the format "paredown"; where the structure file lies beside it, `model` loses the parts that
          it names

    Raises the errors of `compressors.load_model`, and `IntegrityError` for a structure file that is no JSON.
    """
    from ...compressors import load_model

    remove_stored(path.parent, model)
    return load_model(path, model)


def remove_stored(folder: Path, model: nn.Module) -> None:
    """Remove from `model` what the structure file in `folder` names; without such a file nothing is removed."""
    from ...compressors.anatomy import fold_weights
    from ...compressors.structure import Removal, remove_
    from ...errors import IntegrityError

    path = folder / STRUCTURE_FILE
    if not path.is_file():
        return
    try:
        removal = Removal.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IntegrityError(f"{path} is not JSON: {error}; export the model again") from error
    fold_weights(model)  # positions are those of plain weights
    remove_(model, removal)


class TorchSession:
    """Model in eval mode. `run` sets torch's threads and restores them.

    fixed_batch  the one batch size that the model takes; None: any
    """

    def __init__(self, model: nn.Module, threads: int, fixed_batch: int | None = None) -> None:
        self.model = model.cpu()
        self.threads, self.fixed_batch = threads, fixed_batch

    def run(self, inputs: Inputs) -> Outputs:
        import torch

        from ...compressors import forward
        from ...compressors.anatomy import mapped
        from ._program import run_chunks

        threads = torch.get_num_threads()
        if threads != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                if self.fixed_batch is None:
                    return mapped(forward(self.model, inputs), torch.Tensor.clone)
                return run_chunks(lambda batch: forward(self.model, batch), inputs, self.fixed_batch)
        finally:
            if threads != self.threads:
                torch.set_num_threads(threads)
