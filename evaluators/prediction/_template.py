"""Template of a traced model, from which any assignment's graph is made in milliseconds, to time it only.

`torch.export` and the ONNX exporter take 2 to 15 seconds a model. Here they run once, with every layer's weight left
open and a quantizer before every layer; a form is then put in layer by layer with the exporter's own `fill_weights`.
The graph runs the same kernels as the real export of the same forms (a test compares what the runtimes ran). Its
weights are stand-ins: the originals, rounded to int8 or split into factors that are not the best ones, which costs no
less time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...compressors import weight_at
from ...compressors.calibration import output_key
from ...errors import InputError
from ..runtimes import Lowered, prepare
from ..runtimes.onnx import fill_weights, finish, means_in_codes, quantize_in_graph, trace, wrap_by_slices
from ._forms import PLAIN, Form
from ._wiring import Wiring, wiring_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

    from ...compressors import Anatomy, Calibration, Inputs

_STEP = 2.0**-10
"""Unit of the marking scales: a quantizer is traced with the scale (number of the layer + 1) * step, exact in
float32.
"""


@dataclass(slots=True, kw_only=True)
class Template:
    """Traced graph of one model.

    layers  fqns of the layers that can be given a form, in the order in which they run
    wiring  how they are connected
    """

    graph: ir.Model
    layers: tuple[str, ...]
    wiring: Wiring
    _open: Mapping[str, str]
    _weights: Mapping[str, Tensor]
    _ranges: Mapping[str, tuple[float, int]]
    _outputs: Mapping[str, tuple[float, int]]
    _stand_ins: dict[tuple[str, Form], Lowered] = field(default_factory=dict)

    @classmethod
    def trace(cls, model: nn.Module, anatomy: Anatomy, calibration: Calibration, example_inputs: Inputs) -> Template:
        """Trace a model. Where `calibration` knows whole tensors, forms round those (`activation_scope` tensor).

        Raises `ExportError` where the model, or a layer of it, cannot be written as ONNX.
        """
        from ...compressors import LayerSpec

        spec = LayerSpec(weight_bits=8, activation_bits=8)
        layers = [layer.fqn for layer in anatomy.layers if layer.kind != "embedding" and not layer.is_fused]
        weights = {fqn: _weight(model, fqn) for fqn in layers}
        ranges = {fqn: calibration.qparams(fqn, spec) for fqn in layers}
        places = calibration.places
        outputs = {fqn: calibration.qparams(output_key(fqn), spec) for fqn in layers if places.get(fqn, ("", ""))[1]}
        marked = [
            Lowered(
                fqn=fqn,
                codes=torch.zeros(weights[fqn].shape, dtype=torch.int8),
                scales=torch.ones(len(weights[fqn])),
                activation=((n + 1) * _STEP, 0),
                activation_at=places.get(fqn, ("", ""))[0],
                output=((len(layers) + n + 1) * _STEP, 0) if fqn in outputs else None,
                output_at=places.get(fqn, ("", ""))[1],
            )
            for n, fqn in enumerate(layers)
        ]
        graph, opened = trace(prepare(model, marked, quantize_in_graph), marked, example_inputs)
        names = {fqn: str(value.name) for fqn, value in opened.items()}
        return cls(
            graph=graph,
            layers=tuple(layers),
            wiring=wiring_of(graph.graph, names, {fqn: n for n, fqn in enumerate(layers)}, _STEP),
            _open=names,
            _weights=weights,
            _ranges=ranges,
            _outputs=outputs,
        )

    def build(self, forms: Mapping[str, Form], *, guarded: bool) -> ir.Model:
        """Build the graph in which each layer has its form; layers that are not named are plain.

        guarded  as for `export_onnx`: for ONNX Runtime
        """
        if unknown := [fqn for fqn in forms if fqn not in self._weights and not forms[fqn].is_plain]:
            raise InputError(f"{unknown[0]} cannot be given a form; the layers are {', '.join(self.layers[:6])}, …")
        model = self.graph.clone()
        graph = model.graph
        inputs = {value.name: value for value in graph.inputs}
        opened = {fqn: inputs[name] for fqn, name in self._open.items()}
        quantizers = _quantizers(graph, 2 * len(self.layers))
        lowered = [self._stand_in(fqn, forms.get(fqn, PLAIN)) for fqn in self.layers]
        guards: dict[tuple[int, float, int], ir.Value] = {}
        for n, layer in enumerate(lowered):
            for quantize, dequantize in quantizers.get(n, ()):
                _set_quantizer(graph, quantize, dequantize, layer, guards if guarded else None)
            given = self._outputs.get(layer.fqn) if layer.activation is not None else None
            for quantize, dequantize in quantizers.get(len(self.layers) + n, ()):
                of_output = replace(layer, fqn=output_key(layer.fqn), activation=given)
                _set_quantizer(graph, quantize, dequantize, of_output, guards if guarded else None)
        fill_weights(model, [layer for layer in lowered if layer.is_structured], opened)
        for layer in lowered:
            if not layer.is_structured:
                _fill_dense(graph, opened[layer.fqn], layer.fqn, self._weights[layer.fqn])
        if guarded:
            means_in_codes(graph)
        else:
            wrap_by_slices(graph)
        return finish(model)

    def write(self, forms: Mapping[str, Form], path: Path, *, guarded: bool) -> Path:
        """Write the built graph as an ONNX file."""
        import onnx_ir as ir

        ir.save(self.build(forms, guarded=guarded), path)
        return path

    def _stand_in(self, fqn: str, form: Form) -> Lowered:
        if (fqn, form) not in self._stand_ins:
            self._stand_ins[fqn, form] = _stand_in(fqn, form, self._weights[fqn], self._ranges[fqn])
        return self._stand_ins[fqn, form]


def _weight(model: nn.Module, fqn: str) -> Tensor:
    return weight_at(model, fqn).detach().float().cpu()


def _stand_in(fqn: str, form: Form, weight: Tensor, activation: tuple[float, int]) -> Lowered:
    quantizer = activation if form.rounded else None
    if form.integer:
        rows = weight.reshape(len(weight), -1)
        scales = rows.abs().amax(dim=1).clamp_min(1e-8) / 127.0
        codes = torch.round(rows / scales[:, None]).to(torch.int8).reshape(weight.shape)
        return Lowered(fqn=fqn, codes=codes, scales=scales, activation=quantizer)
    if form.kept_rank:
        rows = weight.reshape(len(weight), -1)
        if not 1 <= form.kept_rank <= min(rows.shape):
            raise InputError(f"{fqn} has rank {min(rows.shape)} at most, and {form.kept_rank} is to be kept")
        u, v = rows[:, : form.kept_rank], rows[: form.kept_rank]
        if u.shape[1] != form.kept_rank:  # pragma: no cover  (the check above)
            raise InputError(f"{fqn} cannot keep rank {form.kept_rank}")
        scale = float(rows.abs().mean().clamp_min(1e-8)) * form.kept_rank
        return Lowered(fqn=fqn, effective=weight, factors=(u / scale, v.contiguous()), activation=quantizer)
    return Lowered(fqn=fqn, activation=quantizer)


def _quantizers(graph: ir.Graph, n_layers: int) -> dict[int, list[tuple[ir.Node, ir.Node]]]:
    """Number of a layer -> its (QuantizeLinear, DequantizeLinear), one for each call."""
    found: dict[int, list[tuple[ir.Node, ir.Node]]] = {}
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        scale = node.inputs[1]
        if scale is None or scale.const_value is None:
            continue
        n = round(float(scale.const_value.numpy().reshape(-1)[0]) / _STEP) - 1
        if 0 <= n < n_layers:
            found.setdefault(n, []).extend((node, reader) for reader in node.outputs[0].consumers())
    return found


def _set_quantizer(
    graph: ir.Graph,
    quantize: ir.Node,
    dequantize: ir.Node,
    layer: Lowered,
    guards: dict[tuple[int, float, int], ir.Value] | None,
) -> None:
    """Replace the marking scale by the real scale and zero point, or remove the quantizer. `guards`: existing clips to
    share.
    """
    import onnx_ir as ir

    source, out = quantize.inputs[0], dequantize.outputs[0]
    if source is None or layer.activation is None:
        out.replace_all_uses_with(source, replace_graph_outputs=True)  # type: ignore[arg-type]
        graph.remove(dequantize, safe=True)
        if not tuple(quantize.outputs[0].uses()):
            graph.remove(quantize, safe=True)
        return
    scale, zero = layer.activation
    step = _constant(graph, f"{layer.fqn}.step", np.array(scale, np.float32))
    point = _constant(graph, f"{layer.fqn}.zero", np.array(zero, np.uint8))
    for node in (quantize, dequantize):
        node.replace_input_with(1, step)
        node.replace_input_with(2, point)
    if guards is None or layer.is_int8:
        return
    key = (id(source), scale, zero)
    if key in guards:
        out.replace_all_uses_with(guards[key], replace_graph_outputs=True)
        return
    low = _constant(graph, f"{layer.fqn}.low", np.array(-zero * scale, np.float32))
    high = _constant(graph, f"{layer.fqn}.high", np.array((255 - zero) * scale, np.float32))
    clip = ir.node("Clip", [out, low, high])
    guards[key] = clip.outputs[0]
    clip.outputs[0].name = f"{out.name}_clip"
    clip.outputs[0].type, clip.outputs[0].shape = out.type, out.shape
    out.replace_all_uses_with(clip.outputs[0], replace_graph_outputs=True)
    clip.replace_input_with(0, out)
    graph.insert_after(dequantize, clip)


def _fill_dense(graph: ir.Graph, weight: ir.Value, fqn: str, value: Tensor) -> None:
    """Fill a dense weight like the exporter's optimizer: the transposed weight is stored, without a Transpose."""
    for node, index in tuple(weight.uses()):
        perm = node.attributes.get_ints("perm", None)
        if node.op_type == "Transpose" and value.dim() == 2 and (perm is None or tuple(perm) == (1, 0)):
            node.outputs[0].replace_all_uses_with(_constant(graph, f"{fqn}.dense_t", value.t().numpy()))
            graph.remove(node, safe=True)
        else:
            node.replace_input_with(index, _constant(graph, f"{fqn}.dense", value.numpy()))
    graph.inputs.remove(weight)


def _constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    import onnx_ir as ir

    if name not in graph.initializers:
        value = ir.val(name, const_value=ir.tensor(np.array(array, order="C"), name=name))
        graph.register_initializer(value)
    return graph.initializers[name]
