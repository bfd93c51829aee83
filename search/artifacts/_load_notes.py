"""Notes beside an artifact: a few lines of plain code that load its file as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...evaluators.runtimes import OnnxRuntimeOptions, OpenVinoOptions, options_from

if TYPE_CHECKING:
    from ...compressors import Inputs
    from ._manifest import Artifact

LOAD = "LOAD.md"


def load_notes(artifact: Artifact, one: Inputs) -> str:
    """Text of the notes, in Markdown with one block of Python. The block runs in the artifact's folder.

    one  inputs of one sample, for names, shapes and types
    """
    threads = artifact.task["hardware"]["threads"]
    lines, words = _SNIPPETS.get(artifact.format, _in_own_format)(artifact, one, threads)
    code = "\n".join(lines)
    return (
        f"# Load this model\n\n`{artifact.main}` was measured in {artifact.runtime} as follows. {words}\n\n"
        f"```python\n{code}\n```\n"
    )


def _in_onnxruntime(artifact: Artifact, one: Inputs, threads: int) -> tuple[list[str], str]:
    options = options_from("onnxruntime", artifact.runtime_options)
    level = options.level_name if isinstance(options, OnnxRuntimeOptions) else "ORT_ENABLE_ALL"
    entries = options.entries if isinstance(options, OnnxRuntimeOptions) else {}
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        "options = onnxruntime.SessionOptions()",
        f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{level}",
        f"options.intra_op_num_threads = {threads}",
        *(f'options.add_session_config_entry("{key}", "{value}")' for key, value in entries.items()),
        f'session = onnxruntime.InferenceSession("{artifact.main}", options, providers=["CPUExecutionProvider"])',
        "ports = session.get_inputs()",
        "n = ports[0].shape[0] if isinstance(ports[0].shape[0], int) else 1  # samples",
        *_arrays(one, "port.name for port in ports"),
        "outputs = session.run(None, inputs)",
    ]
    return lines, "ONNX Runtime does not read options from the file: they must be given."


def _in_openvino(artifact: Artifact, one: Inputs, threads: int) -> tuple[list[str], str]:
    options = options_from("openvino", artifact.runtime_options)
    named = options.properties if isinstance(options, OpenVinoOptions) else {}
    given = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **named}
    lines = [
        "import numpy as np",
        "import openvino",
        "",
        "core = openvino.Core()",
        f'model = core.read_model("{artifact.main}")',
        "first = model.inputs[0].get_partial_shape()[0]",
        "n = 1 if first.is_dynamic else first.get_length()  # samples",
        *_arrays(one, "port.get_any_name() for port in model.inputs"),
        "if model.is_dynamic():  # fixed shapes run faster",
        "    model.reshape({name: list(array.shape) for name, array in inputs.items()})",
        "options = {",
        *(f'    "{name}": {value!r},'.replace("'", '"') for name, value in given.items()),
        "}",
        'compiled = core.compile_model(model, "CPU", options)',
        "result = compiled(inputs)",
        "outputs = [result[port] for port in compiled.outputs]",
    ]
    words = "OpenVINO reads the group size of dynamic quantization from the file; the other options must be given."
    return lines, words


def _in_pt2(artifact: Artifact, one: Inputs, threads: int) -> tuple[list[str], str]:
    lines = [
        "import torch",
        "",
        f"torch.set_num_threads({threads})",
        f'program = torch.export.load("{artifact.main}").module()',
        "n = 1  # samples; a program whose batch could not be left free takes as many as it was exported with",
        *_tensors(one),
        "with torch.inference_mode():",
        f"    outputs = program({_stars(one)}inputs)",
    ]
    return lines, "The runtime has no other options than its threads."


def _in_torch(artifact: Artifact, one: Inputs, threads: int) -> tuple[list[str], str]:
    factory = (artifact.task.get("model") or {}).get("factory") or "your.module:factory"
    module, _, name = str(factory).rpartition(":")
    importable = all(part.isidentifier() for part in module.split(".")) and not module.endswith(".py")
    source = f"from {module} import {name} as make" if importable else f"from your_module import {name} as make"
    lines = [
        "import torch",
        "",
        "import paredown",
        "",
        f"{source}  # makes the original's architecture: {factory}",
        "",
        f"torch.set_num_threads({threads})",
        'model = paredown.load(".", make)',
        *(["model = torch.compile(model)"] if artifact.runtime == "torch-compile" else []),
        "n = 1  # samples",
        *_tensors(one),
        "with torch.inference_mode():",
        f"    outputs = model({_stars(one)}inputs)",
    ]
    words = (
        "The file holds weights, and the architecture comes from your code. A reader that needs numpy alone is in "
        "paredown's docs/artifact.md."
    )
    return lines, words


def _in_own_format(artifact: Artifact, one: Inputs, threads: int) -> tuple[list[str], str]:
    lines = [
        "from pathlib import Path",
        "",
        "from paredown.evaluators.runtimes import get_runtime",
        "",
        "import your_plugin  # registers the runtime",
        "",
        f'session = get_runtime("{artifact.runtime}").load(Path("{artifact.main}"), threads={threads})',
    ]
    return lines, "The runtime comes from a plugin."


_SNIPPETS = {"onnx": _in_onnxruntime, "openvino": _in_openvino, "pt2": _in_pt2, "paredown": _in_torch}


def _named(one: Inputs) -> tuple[dict[str, Any], bool]:
    """(tensors by name or number, whether they have names)."""
    if isinstance(one, Mapping):
        return dict(one), True
    return {str(n): x for n, x in enumerate(one if isinstance(one, tuple) else (one,))}, False


def _arrays(one: Inputs, names: str) -> list[str]:
    """Lines that make `inputs`, name -> zeros, for `n` samples."""
    tensors, have_names = _named(one)
    zeros = [f"np.zeros({_shape(x)}, np.{str(x.dtype).removeprefix('torch.')})" for x in tensors.values()]
    if have_names:
        pairs = ", ".join(f'"{name}": {each}' for name, each in zip(tensors, zeros, strict=True))
        return [f"inputs = {{{pairs}}}  # put yours here"]
    return [f"arrays = [{', '.join(zeros)}]  # put yours here", f"inputs = dict(zip(({names}), arrays))"]


def _tensors(one: Inputs) -> list[str]:
    tensors, have_names = _named(one)
    zeros = [f"torch.zeros({_shape(x)}, dtype={x.dtype})" for x in tensors.values()]
    if have_names:
        pairs = ", ".join(f'"{name}": {each}' for name, each in zip(tensors, zeros, strict=True))
        return [f"inputs = {{{pairs}}}  # put yours here"]
    return [f"inputs = [{', '.join(zeros)}]  # put yours here"]


def _shape(x: Any) -> str:
    rest = ", ".join(str(side) for side in x.shape[1:])
    return f"(n, {rest})" if rest else "(n,)"


def _stars(one: Inputs) -> str:
    return "**" if isinstance(one, Mapping) else "*"
