"""Export of any of our models by `torch.export`: its output tensors by name, and a free batch axis where the model
allows it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from ...compressors import Inputs
from ...compressors.anatomy import NamedOutputs, Outputs, joined, mapped, named_tensors, outputs_of
from ...errors import InputError
from ._base import ExportError


def export_program(
    model: nn.Module, example_inputs: Inputs, *, free_batch: bool = True
) -> torch.export.ExportedProgram:
    """Export the model as a program of PyTorch's ordinary operations. `model` is left as it is.

    Tried in this order: plain tracing; tracing of the bytecode (`strict`), which sees through a `len(x)`; then with the
    batch fixed at one sample, and last at that of the example. Without `free_batch` it is fixed at once.
    Raises `ExportError` with PyTorch's own words where none of these works.
    """
    handle = model.register_forward_hook(_only_tensors)
    error: Exception | None = None
    try:
        for inputs, free, strict in (
            (with_batch(example_inputs, 2), True, False),
            (with_batch(example_inputs, 2), True, True),
            (with_batch(example_inputs, 1), False, False),
            (example_inputs, False, False),
        ):
            if free and not free_batch:
                continue
            try:
                program = _export(model, inputs, free, strict)
            except InputError:
                raise
            except Exception as reason:  # whatever the model's own forward or the tracer raises; the last is reported
                error = reason
                continue
            if not free or _is_free(program):
                return program
    finally:
        handle.remove()
    raise ExportError(
        f"torch.export cannot trace this model: {first_line(error)}; a forward that branches on the values in its "
        "tensors has to be rewritten, or the runtime 'torch' used, which needs no export"
    ) from error


def _export(model: nn.Module, inputs: Inputs, free_batch: bool, strict: bool) -> torch.export.ExportedProgram:
    args, kwargs = as_call(inputs)
    size = batch_size(inputs)
    axes: Callable[[Tensor], Any] = lambda x: {0: torch.export.Dim.AUTO} if free_batch and _has_batch(x, size) else None
    shapes: Any = {name: axes(x) for name, x in kwargs.items()} if kwargs else tuple(axes(x) for x in args)
    # the fused inference path of nn.TransformerEncoderLayer has no form in ONNX; PyTorch itself leaves it under hooks
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=strict)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _is_free(program: torch.export.ExportedProgram) -> bool:
    """Tell whether an axis given as AUTO is really free: `torch.export` may fix it silently."""
    names = set(program.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return any(isinstance(x, Tensor) and x.dim() > 0 and not is_concrete_int(x.shape[0]) for x in inputs)


def as_call(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """(args, kwargs) of the call that `inputs` stands for."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def batch_size(inputs: Inputs) -> int:
    """Length of the first tensor's first axis. Raises `InputError` where there is no sample."""
    args, kwargs = as_call(inputs)
    tensors = (*args, *kwargs.values())
    if not tensors or not all(isinstance(x, Tensor) for x in tensors) or not tensors[0].dim() or not len(tensors[0]):
        came = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in tensors)
        raise InputError(
            f"inputs must be a tensor, a tuple or a dict of tensors whose first axis is the sample, got ({came})"
        )
    return len(tensors[0])


def with_batch(inputs: Inputs, n: int) -> Inputs:
    """Same inputs with exactly `n` samples: cut, or filled by repeating the last.

    `torch.export` takes an axis of length 1 for a constant: a free axis must be shown to it with 2.
    """
    size = batch_size(inputs)

    def resized(x: Tensor) -> Tensor:
        if not _has_batch(x, size) or size == n:
            return x
        return x[:n] if size > n else torch.cat([x, x[-1:].expand(n - size, *x.shape[1:])])

    if isinstance(inputs, Mapping):
        return {name: resized(x) for name, x in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(resized(x) for x in inputs)
    return resized(inputs)


def chunks(inputs: Inputs, n: int) -> Iterator[tuple[Inputs, int]]:
    """Yield batches of exactly `n` samples, the last one filled up, with the number of samples that count in each."""
    size = batch_size(inputs)
    part: Callable[[Tensor, int], Tensor] = lambda x, start: x[start : start + n] if _has_batch(x, size) else x
    for start in range(0, size, n):
        piece: Inputs
        if isinstance(inputs, Mapping):
            piece = {name: part(x, start) for name, x in inputs.items()}
        elif isinstance(inputs, tuple):
            piece = tuple(part(x, start) for x in inputs)
        else:
            piece = part(inputs, start)
        yield with_batch(piece, n), min(n, size - start)


def _has_batch(x: Tensor, size: int) -> bool:
    return x.dim() > 0 and len(x) == size


def _only_tensors(module: nn.Module, args: Any, output: Any) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Outputs of the program: one tensor, or several in a tuple, or in a dict where the model names them."""
    outputs = outputs_of(output)
    if not isinstance(outputs, NamedOutputs):
        return outputs
    # a tensor that is returned twice, or is an input, is no output of its own in a graph
    tensors = {name: tensor.clone() for name, tensor in outputs.tensors.items()}
    return tensors if outputs.is_named else tuple(tensors.values())


def output_names(program: torch.export.ExportedProgram) -> list[str] | None:
    """Names of a program's outputs in order, `output_0` and so on for those of a tuple; None for one output."""
    spec = program.call_spec.out_spec
    if spec is None or spec.is_leaf():
        return None
    return list(spec.context) if spec.type is dict else [f"output_{n}" for n in range(spec.num_leaves)]


def run_chunks(run: Callable[[Inputs], Outputs], inputs: Inputs, n: int) -> Outputs:
    """Run batches of exactly `n` samples and join their outputs. Outputs whose axis 0 is no sample are left out."""
    found = []
    for piece, n_real in chunks(inputs, n):
        outputs = run(piece)
        if isinstance(outputs, NamedOutputs):
            outputs = outputs.only([name for name, x in named_tensors(outputs).items() if _has_batch(x, n)])
        found.append(mapped(outputs, lambda x, n_real=n_real: x[:n_real].clone()))  # type: ignore[misc]
    return joined(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence notices that the exporter prints of its own accord, and nothing else."""
    # "torchvision is not installed. Skipping torchvision::nms"; and each constant that could not be folded
    names = ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding")
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # nn.LSTM and its like point at their own parameters anew whenever the tracer swaps these
            warnings.filterwarnings("ignore", r"The tensor attributes? .* assigned during export", UserWarning)
            # a constant log(0) of a graph, such as that of T5's distances, is folded by numpy
            warnings.filterwarnings("ignore", r"(divide by zero|invalid value) encountered", RuntimeWarning)
            # raised in copyreg when torch.export copies its own tree specs
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def first_line(error: BaseException | None) -> str:
    """Type of an error, and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"
